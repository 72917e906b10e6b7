"""What the ledger and the names of rules on a page mean, for readers who do not know relprop."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from relprop.rules.gradients import BASELINES
from relprop.rules.presets import PRESET_SOURCES
from relprop.view.ledger_plot import REMAINING, colours_of

SINKS: Mapping[str, str] = MappingProxyType(
    {
        "bias": "biases of layers, which add to the score whatever the input is",
        "epsilon": "ε, a small number with which rules keep divisions stable",
        "no contribution": "neurons to which no input contributed",
        "constant": "numbers that the network adds, such as padding",
        "parameters": "weights that are added, such as positions of tokens",
        "shift": "shifts of normalisations, which act as biases",
        "pointwise": "activation functions that are not 0 at 0, such as a sigmoid",
        "softmax": "a softmax, of which no rule conserves all",
        "statistic": "quotients by a mean or a deviation, which count as constants",
        "condition": "conditions of this explanation, which hold relevance back",
        "zero input": "values that are zero, from which relevance cannot go on",
        "not conserved": "nothing in particular: a plain gradient does not share the score out",
    }
)
"""What absorbs relevance under the name of each sink."""

ARRIVED = "Inputs: what has arrived at the map."

ABSORBED = (
    "The other parts are sinks: what the network adds to the score without the input. Where sinks have most "
    "of the score, the map shows only the rest of it."
)


def shades(sinks: Iterable[str]) -> dict[str, str]:
    """Return the colours of the ledger's parts, as in plots of ledgers, for CSS."""
    colours = {"inputs": REMAINING, **colours_of(sorted(sinks))}
    return {name: f"rgb({red}, {green}, {blue})" for name, (red, green, blue) in colours.items()}


def about_rules(name: str) -> str:
    """Say what the name of rules stands for; "" if nothing is known of it."""
    if name in PRESET_SOURCES:
        return (
            f"{name} is a list of rules, one for each kind of operation, after {PRESET_SOURCES[name]}. A "
            "rule says how an operation shares the relevance of its outputs out among its inputs."
        )
    if name in BASELINES:
        return f"{name} is no list of rules: it is computed from the plain gradient of the score."
    return "Rules of one's own. A rule says how an operation shares relevance out among its inputs."
