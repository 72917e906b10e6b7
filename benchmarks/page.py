"""docs/performance.md, and sentences of other pages, from the figures of `make bench`."""

from collections.abc import Mapping

from benchmarks import plots
from benchmarks.case import BASE, BASE_OF_LXT, Row
from benchmarks.cases import PARTS
from benchmarks.cells import DIGIT_NAMES, HEADS, NAMES, as_table, cell, duration, named, ratio
from benchmarks.figures import Figures
from benchmarks.results import Found, Results

DEFAULTS: Mapping[str, str] = {"decoders": "cp-lrp", "depth": "cp-lrp", "length": "cp-lrp"}
"""The default rules of a part, if they are not those of pictures and signals without bounds."""

DEFAULT = "epsilon-gamma-flat"

SERIES: Mapping[str, tuple[str, str]] = {
    "batch": ("samples", "ResNet-50 on more and more pictures of 96 pixels"),
    "size": ("pixels of each side", "ResNet-50 on one picture, larger and larger"),
    "depth": ("layers", "A LLaMA, 64 wide, 32 tokens, with more and more layers"),
    "length": ("tokens", "A LLaMA, 8 layers, 256 wide, on longer and longer texts"),
}
"""What grows, and the title of the plot."""


def at_a_glance(figures: Figures) -> str:
    """What one pays, in sentences and a table."""
    rows = []
    for part in ("pictures", "decoders", "recurrent", "digits"):
        for case, found in figures.part(part):
            default = DEFAULTS.get(part, DEFAULT)
            cells = [
                cell(found, Row(way, rules))
                for rules in ("epsilon", default)
                for way in ("relprop", "plan", "graph")
            ]
            if any(cells):
                rows.append([case.title, duration(found.gradient.median), *cells])
    if not rows:
        return ""
    head = ["", "the gradient takes", "ε", "planned", "as a graph", "default rules", "planned", "as a graph"]
    plot = ""
    if figures.dots_of("epsilon", ("relprop",)):
        plot = "![Time of ε by relprop and other libraries, relative to the gradient]"
        plot += "(images/performance-epsilon.svg)\n\n"
    return (
        f"{sentences(figures)}\n\n{plot}{as_table(head, rows)}\n\n"
        "Times are relative to the plain input gradient of the same model: one forward and one backward "
        "pass. ± is half the distance of the quartiles. "
        '"Planned" is the ninth explanation of an `Explainer` on inputs of one shape, and those after it. '
        '"As a graph" is `Explainer.compile` ([graphs.md](graphs.md)). The default rules are '
        "`epsilon-gamma-flat`, for decoders `cp-lrp`. "
        f"{figures.about(['pictures', 'decoders', 'recurrent', 'digits'])}"
    )


def sentences(figures: Figures) -> str:
    """What one pays, in sentences."""
    said = []
    for part, rules, where in (
        ("pictures", "epsilon", "On networks of pictures, ε"),
        ("decoders", "cp-lrp", "On decoders CP-LRP"),
    ):
        if told := figures.between(part, "relprop", rules):
            said.append(f"{where} takes {told} times as long as a gradient")
            if planned := figures.between(part, "plan", rules):
                said[-1] += f", and {planned} times once an `Explainer` has a plan"
            said[-1] += "."
    said.append("The smaller the operations, the more of the time is Python's, which plans and graphs save.")
    return " ".join(said)


def pictures(figures: Figures) -> str:
    """Networks of pictures, by rules."""
    rows = figures.rows(
        "pictures", ("relprop", "plan", "graph", "inductor", "zennit", "captum", "autolrp", "LXT")
    )
    if not rows:
        return ""
    return (
        "## Networks of pictures\n\n"
        f"Two pictures of 224 pixels. Time relative to the gradient:\n\n{rows}\n\n"
        "Each library is used as its documentation advises, on the networks that it knows. zennit has "
        "canonizers for VGG and ResNet. captum gives each branch of a sum all of the relevance, which in "
        "ResNet-50 is not right ([parity.md](parity.md)), and takes as long. "
        "γ is 0.25, αβ is α2β1, each in all layers with weights. "
        f"{figures.about(['pictures'])}"
    )


def decoders(figures: Figures) -> str:
    """Language models, by rules."""
    rows = figures.rows("decoders", ("relprop", "plan", "graph", "inductor", "autolrp", "LXT"))
    if not rows:
        return ""
    return (
        f"## Decoders\n\nThe shape of LLaMA, 8 layers, explained for one next token:\n\n{rows}\n\n"
        '"Compiled" is `mode="inductor"`. LXT patches the model\'s code and needs transformers 4.57: it runs '
        "beside, in an environment of its own, and is compared with the gradient there. autolrp writes "
        "attention out, its default. "
        f"{figures.about(['decoders'])}"
    )


def small(figures: Figures) -> str:
    """The tutorial's networks."""
    ways = ("relprop", "plan", "graph", "inductor", "NumPy", "NumPy of 2017")
    rows = figures.rows("digits", ways, DIGIT_NAMES)
    if not rows:
        return ""
    return (
        "## Digits\n\n"
        f"The tutorial's networks, of which one digit takes a millisecond or two:\n\n{rows}\n\n"
        '"NumPy" is the code of [from-scratch.md](from-scratch.md), in double precision; '
        '"as in 2017" its products are by `numpy.dot`. '
        f"{figures.about(['digits'])}"
    )


def recurrent(figures: Figures) -> str:
    """Recurrent networks."""
    rows = figures.rows("recurrent", ("relprop", "plan", "graph"))
    if not rows:
        return ""
    return (
        "## Recurrent networks\n\n"
        "200 steps. Time relative to the gradient, which for layers of torch goes through torch's own "
        f"kernel:\n\n{rows}\n\n"
        f"{figures.about(['recurrent'])}"
    )


def compiled(figures: Figures) -> str:
    """How long graphs take to make, and compiled explanations beside the compiled gradient."""
    rows = []
    for case in figures.cases:
        found = figures.results.cases[case.name]
        traced = [each.first for row, each in found.rows.items() if row.way == "graph" and each.seconds]
        if "/" in case.name or not traced:
            continue
        base = found.time(Row("compiled gradient"))
        about = [
            case.title,
            f"{_seconds(min(traced))} to {_seconds(max(traced))} s",
            "" if base is None else ratio(base),
        ]
        each = []
        for row in case.compiled:
            own = found.time(row) if row.way == "inductor" else None
            if own is not None and base is not None:
                name = DIGIT_NAMES.get(row.rules, NAMES[row.rules])
                made_in = f"{_seconds(found.rows[row].first)} s"
                each.append([name, made_in, ratio(own), ratio(own / base)])
        first, *others = each or [[""] * 4]
        rows += [about + first, *([""] * len(about) + other for other in others)]
    if not rows:
        return ""
    head = ["", "a graph is made in", "compiled gradient", "rules", "compiled in", "compiled explanation"]
    return (
        "## Tracing and compiling\n\n"
        "A graph is made once for inputs of one shape, and checked against an explanation in Python. "
        '`mode="inductor"` compiles it by `torch.compile`, which takes longer and needs a compiler:\n\n'
        f"{as_table([*head, 'beside the compiled gradient'], rows)}\n\n"
        "The compiled gradient and explanation are in times of the gradient in Python."
    )


def series(figures: Figures) -> str:
    """What grows, as plots and tables."""
    told = []
    for part, (x_name, title) in SERIES.items():
        cases = figures.part(part)
        if not figures.lines_of(part):
            continue
        every = dict.fromkeys(row for case, _ in cases for row in case.rows(compiled=False))
        rows = [row for row in every if row not in (BASE, BASE_OF_LXT)]
        head = [x_name, "the gradient takes", *(named(row) for row in rows)]
        body = [
            [str(case.at), duration(found.gradient.median), *(cell(found, row) for row in rows)]
            for case, found in cases
        ]
        told.append(
            f"### {PARTS[part][0].upper()}{PARTS[part][1:]}\n\n"
            f"![{title}: time relative to the gradient](images/performance-{part}.svg)\n\n"
            f"{as_table(head, body)}\n\n{figures.about([part])}"
        )
    return "\n\n".join(["## What grows", *told]) if told else ""


def memory(figures: Figures) -> str:
    """Peak memory."""
    ways = ("relprop", "plan", "graph", "zennit", "captum", "autolrp", "LXT")
    rows = [
        *figures.lines("pictures", ways, Found.memory),
        *figures.lines("decoders", ways, Found.memory),
    ]
    if not rows:
        return ""
    told = [
        "## Memory",
        "The most that is allocated at once, beyond the model and the weights that rules have "
        "derived from its own, relative to the gradient's:",
        as_table(["", "rules", *(HEADS[way] for way in ways)], rows),
    ]
    if table := checkpoints(figures):
        told += [
            "With `checkpoint`, what a layer computes is let go, and computed again in the backward. A "
            "LLaMA of 8 layers, 256 wide, memory and time relative to the gradient without checkpoints:",
            table,
        ]
    return "\n\n".join([*told, figures.about(["pictures", "decoders", "length"])])


def checkpoints(figures: Figures) -> str:
    """Memory and time with checkpoints, by length."""
    rows = (
        Row("relprop", "attnlrp"),
        Row("relprop", "cp-lrp"),
        Row("checkpointed gradient"),
        Row("checkpointed relprop", "attnlrp"),
        Row("LXT", "attnlrp"),
        Row("autolrp", "attnlrp"),
    )
    body = []
    for row in rows:
        cells = []
        for _, found in figures.part("length"):
            memory, time = found.memory(row), found.time(row)
            cells.append("" if memory is None or time is None else f"{ratio(memory)}, {ratio(time)}")
        body.append([named(row), *cells])
    gradient = [
        f"{found.gradient.cost.memory / 2**20:,.0f} MiB, {duration(found.gradient.median)}"
        for _, found in figures.part("length")
        if found.gradient.cost is not None
    ]
    if not gradient:
        return ""
    head = ["", *(f"{case.at:,} tokens" for case, _ in figures.part("length"))]
    return as_table(head, [["the gradient", *gradient], *body])


def products(figures: Figures) -> str:
    """Counted products."""
    ways = ("relprop", "zennit", "captum", "autolrp")
    rows = [
        line
        for part in ("pictures", "digits")
        for line in figures.lines(part, ways, Found.products, DIGIT_NAMES if part == "digits" else None)
        if any(line[2:])
    ]
    if not rows:
        return ""
    return (
        "## Products\n\n"
        "Operations of convolutions and matrix products, counted, relative to the gradient's. Fused "
        f"attention is not counted:\n\n{as_table(['', 'rules', *ways], rows)}"
    )


def measured(figures: Figures) -> str:
    """What figures were measured on."""
    if not figures.settings:
        return ""
    told = []
    for number, (about, runs) in enumerate(figures.settings, start=1):
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        threads = "1 thread" if about["threads"] == 1 else f"{about['threads']} threads"
        when = runs[0] if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        told.append(
            f"{number}. {when} UTC, {about['processor']}, {about['cores']} cores, {threads} for each way; "
            f"{versions}."
        )
    took = {
        part: sum(figures.results.cases[case.name].took for case in figures.cases if case.part == part) / 60
        for part in PARTS
    }
    each = ", ".join(f"{part} {minutes:.1f}" for part, minutes in took.items() if minutes)
    imports = [about["import"] for about in figures.results.runs.values() if "import" in about]
    imported = ""
    if imports:
        imported = f" `import relprop` takes {1e3 * imports[-1]:.0f} ms longer than `import torch`."
    return (
        "## How it was measured\n\n"
        "`make bench` measures everything and writes `benchmarks/results.json`; `make docs` writes this "
        'page from it. `make bench BENCH="--only decoders"` measures a part anew. All ways of a case run '
        "in one process (LXT in its own): once to warm up, once for memory and products, then in turns, "
        "each round beginning with another way. Figures are medians. Weights are random, since time does not "
        "depend on them; those of the digits' networks are trained. "
        f"Everything took {sum(took.values()):.0f} minutes: {each}.{imported}\n\n" + "\n".join(told)
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"


SECTIONS = (
    at_a_glance,
    pictures,
    decoders,
    small,
    recurrent,
    compiled,
    series,
    memory,
    products,
    measured,
)


def performance(results: Results) -> str:
    """The page; sections without figures are left out."""
    figures = Figures(results)
    told = [section(figures) for section in SECTIONS]
    return "\n\n".join(["# Performance", *(text for text in told if text)]) + "\n"


def plots_of(results: Results) -> dict[str, str]:
    """The plots of the page by the names of their files."""
    figures = Figures(results)
    found = {}
    if rows := figures.dots_of("epsilon", ("relprop", "plan", "graph", "zennit", "captum", "autolrp")):
        title, axis = "ε: time relative to the gradient", "× gradient, logarithmic"
        found["performance-epsilon.svg"] = plots.dots(title, axis, rows)
    for part, (x_name, title) in SERIES.items():
        if lines := figures.lines_of(part):
            found[f"performance-{part}.svg"] = plots.lines(title, x_name, "time / gradient", lines)
    return found
