"""Layer-wise relevance propagation for PyTorch models, unchanged, at the price of a gradient."""

from relprop.composites import PRESETS, Composite, convolution, dense
from relprop.errors import (
    CoverageError,
    FileError,
    InputError,
    ModelError,
    RelpropError,
    RuleError,
)
from relprop.explain import explain, propagating
from relprop.explanation import Explanation
from relprop.input_rules import Flat, WSquare, ZBox
from relprop.ledger import Ledger
from relprop.operations import register
from relprop.rules import Absolute, AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.targets import Contrastive, Logit, LogOdds, RunnerUp, Weighted
from relprop.zoo import load

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "Absolute",
    "AlphaBeta",
    "Composite",
    "Contrastive",
    "CoverageError",
    "Epsilon",
    "Explanation",
    "FileError",
    "Flat",
    "Gamma",
    "InputError",
    "Ledger",
    "LogOdds",
    "Logit",
    "ModelError",
    "RelpropError",
    "RuleError",
    "RunnerUp",
    "WSquare",
    "Weighted",
    "ZBox",
    "ZPlus",
    "convolution",
    "dense",
    "explain",
    "load",
    "propagating",
    "register",
]
