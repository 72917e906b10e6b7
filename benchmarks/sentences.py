"""What other pages say of costs, from the figures of `make bench`; the pages have marks for it.

A mark is `<!-- figures: NAME -->...<!-- end -->`, and what is between is written anew.
"""

import re
from collections.abc import Callable, Mapping

from benchmarks.case import Row
from benchmarks.cells import ratio
from benchmarks.figures import Figures
from benchmarks.page import DEFAULT, checkpoints
from benchmarks.results import Found, Results

MARK = re.compile(r"(<!-- figures: (?P<name>[\w ]+) -->\n?).*?(\n?<!-- end -->)", re.DOTALL)


class MissingError(Exception):
    """There is no figure for a mark."""


def price(figures: Figures) -> str:
    """The first sentence of the README."""
    return _needed(figures.between("pictures", "relprop", "epsilon"))


def price_of_graphs(figures: Figures) -> str:
    """The same of decoders, as graphs."""
    return _needed(figures.between("decoders", "graph", "cp-lrp"))


def price_of_defaults(figures: Figures) -> str:
    """The same of the default rules for pictures."""
    return _needed(figures.between("pictures", "relprop", DEFAULT))


def networks(figures: Figures) -> str:
    """VGG-16 and ResNet-50, by four rules."""
    rules = {"epsilon": "ε", "z+": "z⁺", "gamma": "γ", "alpha2-beta1": "αβ"}

    def row(name: str, amount: Callable[[Found, Row], float | None]) -> list[str]:
        return [_amount(figures, name, amount, Row("relprop", each)) for each in rules]

    time, memory = row("vgg16", Found.time), row("vgg16", Found.memory)
    told = [f"{each} ({name})" for each, name in zip(time, rules.values(), strict=True)]
    return (
        f"VGG-16 takes {_list(told)} times the time, and {_list(memory)} times the memory. ResNet-50 takes "
        f"{_list(row('resnet50', Found.time))} times the time, and {_list(row('resnet50', Found.memory))} "
        "times the memory."
    )


def peers(figures: Figures) -> str:
    """Other libraries on the same networks, by ε."""
    told = []
    for way in ("zennit", "captum", "autolrp"):
        rows = [_amount(figures, name, Found.time, Row(way, "epsilon")) for name in ("vgg16", "resnet50")]
        told.append(f"{way} {rows[0]} and {rows[1]}")
    return f"{told[0]}, {told[1]}, {told[2]}"


def digits(figures: Figures) -> str:
    """How many times faster than NumPy."""
    own = _figure(figures, "digits-cnn", Found.time, Row("relprop", "deep-taylor"))
    return f"{_figure(figures, 'digits-cnn', Found.time, Row('NumPy of 2017', 'deep-taylor')) / own:.0f}"


def long_text(figures: Figures) -> str:
    """AttnLRP and CP-LRP on a text of 1,024 tokens: time and memory."""
    rows = [Row("relprop", rules) for rules in ("attnlrp", "cp-lrp")]
    times = [_amount(figures, "length/1024", Found.time, row) for row in rows]
    memory = [_amount(figures, "length/1024", Found.memory, row) for row in rows]
    return (
        f"AttnLRP takes {times[0]} times the time and {memory[0]} times the memory of the gradient, CP-LRP "
        f"{times[1]} and {memory[1]}"
    )


def recurrent(figures: Figures) -> str:
    """ε and AttnLRP on layers of torch."""
    layers = {"lstm": "an LSTM", "gru": "a GRU", "rnn": "an RNN"}

    def told(rules: str, kinds: Mapping[str, str]) -> str:
        rows = {
            name: [_amount(figures, f"{kind}-{batch}", Found.time, Row("relprop", rules)) for batch in (1, 8)]
            for kind, name in kinds.items()
        }
        return ", ".join(f"on {name} {one} and {eight}" for name, (one, eight) in rows.items())

    attnlrp = told("attnlrp", {kind: layers[kind] for kind in ("lstm", "gru")})
    return (
        f"ε {told('epsilon', layers)}. `Uniform`, `Proportional`, projections, and rules that put "
        "relevance on zeros in hidden layers go through the parts of a layer, call by call, and take longer: "
        f"`attnlrp` {attnlrp}."
    )


def graphs(figures: Figures) -> str:
    """What a graph saves, where most of the time is Python's."""
    cases = {
        "llama-64": ("a LLaMA, 64 wide, 32 tokens", "attnlrp"),
        "lstm-written": ("an LSTM that is written out, 200 steps", "epsilon"),
        "digit-cnn": ("one digit", "epsilon"),
    }
    told = []
    for case, (name, rules) in cases.items():
        python = _amount(figures, case, Found.time, Row("relprop", rules))
        told.append(f"{name}: {_amount(figures, case, Found.time, Row('graph', rules))} instead of {python}")
    return "; ".join(told)


def memory(figures: Figures) -> str:
    """ε and γ on VGG-16 and ResNet-50."""
    epsilon, gamma = Row("relprop", "epsilon"), Row("relprop", "gamma")
    vgg = [_amount(figures, "vgg16", Found.memory, row) for row in (epsilon, gamma)]
    resnet = [_amount(figures, "resnet50", Found.memory, row) for row in (epsilon, gamma)]
    return (
        f"ε on VGG-16 takes {vgg[0]} times the memory of the input gradient, γ {vgg[1]} times; on ResNet-50 "
        f"{resnet[0]} and {resnet[1]} times"
    )


def with_checkpoints(figures: Figures) -> str:
    """The table of checkpoints."""
    return _needed(checkpoints(figures))


SENTENCES: Mapping[str, Callable[[Figures], str]] = {
    "price": price,
    "price of graphs": price_of_graphs,
    "price of defaults": price_of_defaults,
    "networks": networks,
    "peers": peers,
    "digits": digits,
    "long text": long_text,
    "recurrent": recurrent,
    "graphs": graphs,
    "memory": memory,
    "checkpoints": with_checkpoints,
}
"""By the name in the mark."""


def renewed(text: str, results: Results, page: str) -> str:
    """A page with its marks filled.

    Args:
        text: the page.
        results: what was measured.
        page: how errors name it.

    Raises:
        ValueError: a mark has no such name, or nothing was measured for it.
    """
    figures = Figures(results)

    def write(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in SENTENCES:
            raise ValueError(f"{page} has the mark {name!r}. There are: {', '.join(SENTENCES)}.")
        try:
            return found[1] + SENTENCES[name](figures) + found[3]
        except MissingError:
            raise ValueError(
                f"{page} has the mark {name!r}, for which nothing was measured. Run `make bench`."
            ) from None

    return MARK.sub(write, text)


def _figure(figures: Figures, case: str, amount: Callable[[Found, Row], float | None], row: Row) -> float:
    found = figures.results.cases.get(case)
    value = amount(found, row) if found is not None else None
    if value is None:
        raise MissingError
    return value


def _amount(figures: Figures, case: str, amount: Callable[[Found, Row], float | None], row: Row) -> str:
    return ratio(_figure(figures, case, amount, row))


def _needed(text: str) -> str:
    if not text:
        raise MissingError
    return text


def _list(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
