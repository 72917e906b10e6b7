"""Every name that `relprop` itself has. To import it brings in torch."""

from relprop import errors, places, rules, targets
from relprop.errors import RelpropError
from relprop.models.language import LanguageModel, load_language_model
from relprop.operations import register
from relprop.results.explanation import Explanation, load_explanation
from relprop.rules.composite import Composite
from relprop.rules.presets import PRESETS
from relprop.runs.coverage import Coverage, coverage
from relprop.runs.explain import explain, explain_each
from relprop.runs.explainer import Explainer
from relprop.runs.propagating import propagating
from relprop.text.explain import explain_text
from relprop.text.generation import Generation, explain_generation
from relprop.text.result import TextExplanation
from relprop.zoo import load

__all__ = [
    "PRESETS",
    "Composite",
    "Coverage",
    "Explainer",
    "Explanation",
    "Generation",
    "LanguageModel",
    "RelpropError",
    "TextExplanation",
    "coverage",
    "errors",
    "explain",
    "explain_each",
    "explain_generation",
    "explain_text",
    "load",
    "load_explanation",
    "load_language_model",
    "places",
    "propagating",
    "register",
    "rules",
    "targets",
]
