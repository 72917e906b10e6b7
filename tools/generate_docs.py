"""Write the pages of the documentation that the program itself tells: commands, rules, operations.

python tools/generate_docs.py           write them
python tools/generate_docs.py --check   fail if they are not as the program would write them
"""

import argparse
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["COLUMNS"] = "100"  # the width of help texts, whatever the terminal

import typer.main
from typer.testing import CliRunner

import relprop
from relprop import operations
from relprop.calls.names import documented_name
from relprop.cli.commands import app as command_line
from relprop.operations.pooling import sign
from relprop.operations.reshaping import compared, detach
from relprop.rules import book, files, linear
from relprop.rules.elsewhere_names import LIBRARIES, Here, Library
from relprop.rules.presets import DEFAULT, DEFAULT_WITHOUT_BOUNDS, PRESET_SOURCES
from relprop.rules.sources import REFERENCES

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by `make docs`; changes made here are lost. -->\n\n"


def commands() -> str:
    """Every command's help text."""
    app = typer.main.get_command(command_line)
    names = sorted(getattr(app, "commands", {}))
    pages = ["# Commands\n\nWhat `relprop COMMAND --help` prints.\n"]
    for name in [None, *names]:
        arguments = [name, "--help"] if name else ["--help"]
        result = CliRunner().invoke(command_line, arguments, prog_name="relprop", env={"COLUMNS": "100"})
        title = f"relprop {name}" if name else "relprop"
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        pages.append(f"## {title}\n\n```text\n{text}\n```\n")
    return NOTE + "\n".join(pages)


def rules_and_presets() -> str:
    """Every rule with its formula, every preset with its entries, and how rules are written in a file."""
    lines = [
        "# Rules and presets\n",
        "At the shell, `relprop rules` prints an overview, `relprop rules NAME` all about one of them.\n",
        _text(linear),
    ]
    for title, group in book.GROUPS.items():
        lines.append(f"## {title}\n")
        module = sys.modules[group[0].__module__]
        if module is not linear:
            lines.append(_text(module))
        for rule in group:
            lines += [f"### {rule.__name__}\n", _fenced(book.signature(rule))]
            lines.append(_fenced(book.description(rule)))
    lines += [
        "## Presets\n",
        "For each operation the first line that matches gives the rule. Without `rules=`, "
        f"`{DEFAULT}` is taken where the bounds of the input are known, else `{DEFAULT_WITHOUT_BOUNDS}`.\n",
        "| preset | where | rule | source |",
        "| --- | --- | --- | --- |",
    ]
    for name, composite in relprop.PRESETS.items():
        named, source = f"`{name}`", PRESET_SOURCES[name]
        for where, chosen in book.entries(composite):
            cells = [named, where, f"`{chosen}`", source]
            lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
            named = source = ""
    lines += [
        "\n## Without rules, to compare with\n",
        "`explain(..., rules=NAME)` takes these names too.\n",
    ]
    lines += [f"- `{name}`: {book.formula(one)}" for name, one in relprop.rules.BASELINES.items()]
    lines += ["\n## Rules as text and in files\n", _text(files)]
    lines.append(
        '`explain(..., rules="mine.toml")` and `relprop explain --rules mine.toml` take such a file.\n'
    )
    lines.append("## References\n")
    lines += [f"- {name}: {title}" for name, title in REFERENCES.items()]
    return NOTE + "\n".join(lines) + "\n"


def operation_table() -> str:
    """Every operation that relevance can cross, and how."""
    lines = [
        "# Operations\n",
        "Relevance crosses these operations, whichever way they are spelled: as a module, a function, a",
        "method, an operator, in place or not; in a custom autograd function; scripted, traced or exported.",
        "They have the names of torch's documentation; `getitem` is `x[...]`. Functions that torch composes",
        "of them, such as `nn.LSTM`, `F.normalize` or `F.cosine_similarity`, are crossed as their parts, and",
        "`relprop coverage MODEL` lists these. Anything else on the way of relevance is an error that names",
        "the place; `relprop coverage` finds all at once. CONTRIBUTING.md tells how to add an operation.\n",
    ]
    for family, table in operations.FAMILIES.items():
        crossed = {name: entry for name, entry in table.items() if entry not in ENDS}
        lines += [f"## {family[0].upper()}{family[1:]}\n", f"{TREATMENTS[family]}\n"]
        lines.append(_listed(crossed) + "\n")
    ends = {name: entry for name, entry in operations.TABLE.items() if entry in ENDS}
    lines += ["## Ends of the way\n", f"{END}\n", _listed(ends)]
    return NOTE + "\n".join(lines).rstrip() + "\n"


def coming_from() -> str:
    """The page about other libraries, whose tables come from the table that errors ask."""
    path = DOCS / "coming-from.md"
    text = path.read_text(encoding="utf-8")
    for name, library in LIBRARIES.items():
        mark = f"<!-- the names of {name} -->\n"
        before, marked, rest = text.partition(mark)
        end = rest.find("<!-- end -->")
        if not marked or end < 0:
            raise ValueError(f"{path} has no place for a table: write {mark.strip()} and <!-- end -->.")
        text = f"{before}{mark}\n{_names_of(name, library)}\n{rest[end:]}"
    return text


def _names_of(name: str, library: Library) -> str:
    """What a library calls things, and what they are here, as a table."""
    whose = "in papers" if name == "literature" else f"in {name}"
    lines = [f"| {whose} | here | |", "| --- | --- | --- |"]
    for ending, table in (("", library.names), ("=", library.arguments), ("= of a rule", library.parameters)):
        lines += [_row(names.split(), ending, here) for names, here in table.items()]
    return "\n".join(lines) + "\n"


def _row(names: list[str], ending: str, here: Here) -> str:
    there = ", ".join(f"`{name}{ending[:1]}`{ending[1:]}" for name in names)
    typed = f"`{here.typed}`" if here.typed else "nothing"
    return f"| {there} | {typed} |" + (f" {here.note} |" if here.note else " |")


def _listed(table: Mapping[str, Any]) -> str:
    """The operations of a table by the names that users know, each once."""
    names: dict[str, None] = {}
    for name in table:
        if name in ("convolution", "_convolution"):  # of which one name depends on the arguments
            known = [f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)]
        else:
            known = [TRANSFORMS.get(name) or documented_name(name)]
        names.update(dict.fromkeys(each for each in known if not _is_hidden(each)))
    return ", ".join(f"`{name}`" for name in names)


def _is_hidden(name: str) -> bool:
    """Whether no user meets a name: kernels of others, and what export writes for views."""
    return name.startswith(("_", "native_")) or (name.endswith("_copy") and name != "index_copy")


def _text(module: ModuleType) -> str:
    """What a module says of itself, as markdown."""
    return inspect.cleandoc(module.__doc__ or "").replace("<", "&lt;") + "\n"


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


ENDS = (sign, detach, compared)
"""Entries of operations that relevance does not cross."""

END = (
    "What these return is a constant for relevance, as the results of `argmax` or `item` are: "
    "their gradient is zero, or the model says so. They are no error as long as another way leads to the "
    "inputs."
)

TRANSFORMS = {"_fft_r2c": "fft.rfft", "_fft_c2r": "fft.irfft", "_fft_c2c": "fft.fft"}
"""What users know as these kernels, in all its dimensions."""

TREATMENTS = {
    "attention, as the products in it": (
        "softmax(q kᵀ)·v is two products with a softmax between them, and a rule for products chooses: "
        "the weights are constants and v takes all (`SignalTakesAll`, and without a rule; CP-LRP), or "
        "both factors of both products get half (`Uniform`; AttnLRP). Fused kernels stay fused: the "
        "gradient by q and k times 1/4, and by v times 1/2, is the same. `nn.MultiheadAttention` and torch's "
        "transformer layers are this between linear layers. What the softmax does not "
        'conserve, with what a mask of numbers takes, is in the ledger under "softmax".'
    ),
    "linear, by a rule of the composite": (
        "Sums of products with a constant weight. The composite chooses the rule; the plain gradient "
        "is LRP-0. A bias, a scale or a batch normalisation behind such an operation, and zeros "
        "padded around its input, are part of it."
    ),
    "pointwise": (
        "Where f(ax) = a·f(x) for positive a, as for ReLU, relevance passes unchanged, by the plain "
        "gradient. Other functions pass it on by the slope of the line from (0, f(0)) to (x, f(x)), "
        'and what f(0) carries is absorbed under "pointwise". A chain of such functions, sums and '
        "products of one and the same value, such as a GELU written out or `x * torch.sigmoid(x)`, "
        "counts as one function of that value."
    ),
    "sums, products with constants": (
        "The terms of a sum keep what they contributed, so that residual connections need no rule, "
        'unless a composite has one for sums; a constant term absorbs its part, under "constant". A '
        "constant factor changes no shares."
    ),
    "products of activations, by a rule of their own": (
        "One factor may weigh the other one: a sigmoid or softmax, a statistic such as 1/√variance, "
        "a value that is broadcast, as in squeeze-and-excitation, or what an activation function made "
        "against what none did, as in gated feed-forward layers. The other factor, the signal, takes "
        "all. Where neither weighs the other, each gets half. A composite may decide otherwise, but "
        "statistics are constants always. Products of two matrices of activations are crossed alike. "
        "The same holds for `mul` and `div` of two activations."
    ),
    "normalisation": (
        "What is divided by counts as a constant, and so do the statistics of batch normalisation; "
        "what remains is linear. Batch normalisation becomes part of the linear operation before it, "
        "or of the one right behind it. Where it stands alone, the plain gradient goes on and its "
        'shift absorbs a part, under "shift", unless a composite names a rule for it.'
    ),
    "softmax": (
        "By its Taylor expansion of first order, R_i = x_i (R_i - s_i Σ R_j), Achtibat et al. 2024, "
        'prop. 3.1. What it does not conserve is in the ledger under "softmax". A softmax that weighs '
        "something else is a gate and gets nothing (see products)."
    ),
    "pooling": (
        "Sums and averages share in proportion to contributions. In a maximum the winner takes all; "
        "`AveragePooling` in a composite shares out the window of a max-pooling as an average would."
    ),
    "resampling": (
        "Linear in the image, with weights that positions alone decide; a grid of positions that "
        "depends on the input gets no relevance."
    ),
    "rearranging": (
        "Relevance goes where the values came from. What lands on constants, such as a border that is "
        'not zero or another part of `cat`, is absorbed under "constant".'
    ),
    "writing to parts of a tensor": (
        "Each element has the relevance of what was written there last; what lands on a constant, "
        'written or written over, is absorbed under "constant".'
    ),
}
"""How relevance crosses the operations of each family."""

PAGES = {
    "commands.md": commands,
    "rules.md": rules_and_presets,
    "operations.md": operation_table,
    "coming-from.md": coming_from,
}


def main() -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail if a page is not up to date"
    )
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path.relative_to(DOCS.parent)))
        else:
            path.write_text(text)
    if stale:
        print(f"not as the program would write them: {', '.join(stale)}. Run `make docs`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
