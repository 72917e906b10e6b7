"""Layer-wise relevance propagation for PyTorch models, unchanged, at the price of a gradient."""

from typing import TYPE_CHECKING, NoReturn

from relprop.coverage import Coverage, coverage
from relprop.errors import (
    CoverageError,
    FileError,
    InputError,
    ModelError,
    RelpropError,
    RuleError,
    ScoreWarning,
)
from relprop.explain import explain, propagating
from relprop.files import VERSION
from relprop.models.language import LanguageModel, load_language_model
from relprop.operations import register
from relprop.results.explanation import Explanation, load_explanation
from relprop.results.ledger import Ledger
from relprop.rules.composite import Composite, Depth, convolution, dense, feed_forward
from relprop.rules.elsewhere import no_attribute
from relprop.rules.first_layer import Flat, WSquare, ZBox
from relprop.rules.gradients import BASELINES
from relprop.rules.linear import Absolute, AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.rules.other import AveragePooling, BySize, EqualShares, SignalTakesAll, Uniform
from relprop.rules.presets import PRESETS
from relprop.targets.classes import Contrastive, Difference, Logit, LogOdds, RunnerUp, Weighted
from relprop.targets.structured import At, Part, Region
from relprop.text.explain import explain_text
from relprop.text.generation import Generation, explain_generation
from relprop.text.result import TextExplanation
from relprop.zoo import load

__version__ = VERSION

__all__ = [
    "BASELINES",
    "PRESETS",
    "Absolute",
    "AlphaBeta",
    "At",
    "AveragePooling",
    "BySize",
    "Composite",
    "Contrastive",
    "Coverage",
    "CoverageError",
    "Depth",
    "Difference",
    "Epsilon",
    "EqualShares",
    "Explanation",
    "FileError",
    "Flat",
    "Gamma",
    "Generation",
    "InputError",
    "LanguageModel",
    "Ledger",
    "LogOdds",
    "Logit",
    "ModelError",
    "Part",
    "Region",
    "RelpropError",
    "RuleError",
    "RunnerUp",
    "ScoreWarning",
    "SignalTakesAll",
    "TextExplanation",
    "Uniform",
    "WSquare",
    "Weighted",
    "ZBox",
    "ZPlus",
    "convolution",
    "coverage",
    "dense",
    "explain",
    "explain_generation",
    "explain_text",
    "feed_forward",
    "load",
    "load_explanation",
    "load_language_model",
    "propagating",
    "register",
]


if not TYPE_CHECKING:  # a checker knows by itself what is not there

    def __getattr__(name: str) -> NoReturn:
        raise no_attribute(__name__, name)
