"""Rules, by which relevance crosses an operation, and composites, which say where which rule applies.

What the letters in the formulas mean is told in `relprop.rules.linear`.
"""

from relprop.rules.composite import Composite
from relprop.rules.first_layer import Flat, WSquare, ZBox
from relprop.rules.linear import Absolute, AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.rules.other import AveragePooling, BySize, EqualShares, SignalTakesAll, Uniform
from relprop.rules.presets import PRESETS

__all__ = [
    "PRESETS",
    "Absolute",
    "AlphaBeta",
    "AveragePooling",
    "BySize",
    "Composite",
    "Epsilon",
    "EqualShares",
    "Flat",
    "Gamma",
    "SignalTakesAll",
    "Uniform",
    "WSquare",
    "ZBox",
    "ZPlus",
]
