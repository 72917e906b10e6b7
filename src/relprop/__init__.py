"""Layer-wise relevance propagation for PyTorch models, unchanged, at the price of a gradient."""

from relprop.baselines import BASELINES
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
from relprop.explanation import Explanation
from relprop.generation import Generation, explain_generation
from relprop.ledger import Ledger
from relprop.models.language import LanguageModel, load_language_model
from relprop.operations import register
from relprop.rules.composite import Composite, Depth, convolution, dense, feed_forward
from relprop.rules.first_layer import Flat, WSquare, ZBox
from relprop.rules.linear import Absolute, AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.rules.other import AveragePooling, BySize, EqualShares, SignalTakesAll, Uniform
from relprop.rules.presets import PRESETS
from relprop.store import load_explanation
from relprop.structured_targets import At, Part, Region
from relprop.targets import Contrastive, Difference, Logit, LogOdds, RunnerUp, Weighted
from relprop.text import explain_text
from relprop.text_explanation import TextExplanation
from relprop.zoo import load

__version__ = "0.3.0"

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
