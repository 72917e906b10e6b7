"""Rules, by which relevance crosses an operation, and composites, which list rules with their places.

`relprop.rules.linear` explains the letters in the formulas. A rule of your own takes a `LinearOperation` and
`Incoming` relevance, and returns `Propagated`: docs/own-rules.md.
"""

from typing import TYPE_CHECKING, NoReturn

from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules import first_layer, linear, other
from relprop.rules.composite import Composite
from relprop.rules.elsewhere import no_attribute
from relprop.rules.first_layer import *
from relprop.rules.gradients import BASELINES
from relprop.rules.linear import *
from relprop.rules.other import *
from relprop.rules.presets import PRESETS
from relprop.rules.rule import PrintedRule, Rule

__all__ = [
    "BASELINES",
    "PRESETS",
    "Composite",
    "Incoming",
    "LinearOperation",
    "PrintedRule",
    "Propagated",
    "Rule",
]
__all__ += linear.__all__
__all__ += first_layer.__all__
__all__ += other.__all__


if not TYPE_CHECKING:  # a checker knows by itself what is not there

    def __getattr__(name: str) -> NoReturn:
        raise no_attribute(__name__, name)
