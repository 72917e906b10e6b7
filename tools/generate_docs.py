"""Write what is generated of the documentation: from the code, and costs from `benchmarks/results.json`.

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

sys.path.append(str(Path(__file__).parents[1]))  # for what is in benchmarks/

from benchmarks.page import performance, plots_of
from benchmarks.results import Results
from benchmarks.sentences import MARK, renewed

import relprop
from relprop import operations
from relprop.calls.names import documented_name
from relprop.cli.commands import app as command_line
from relprop.operations.arithmetic import drawn, step
from relprop.operations.pointwise import quantised
from relprop.operations.reshaping import compared, detach
from relprop.operations.sparse import elements
from relprop.rules import book, files, linear
from relprop.rules.elsewhere_names import LIBRARIES, Here, Library
from relprop.rules.presets import DEFAULT, DEFAULT_FOR_TOKENS, DEFAULT_WITHOUT_BOUNDS, PRESET_SOURCES
from relprop.rules.sources import REFERENCES
from relprop.tutorial.demo.page import demo

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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
        "On the command line, `relprop rules` prints an overview, `relprop rules NAME` one of them.\n",
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
        "For each operation the first line that matches gives the rule. Without `rules=`, the default for "
        f"the tokens of a text is `{DEFAULT_FOR_TOKENS}`. For other inputs it is `{DEFAULT}` if bounds of "
        f"the input are given, else `{DEFAULT_WITHOUT_BOUNDS}`.\n",
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
        "\n## Plain gradients, for comparison\n",
        "`explain(..., rules=NAME)` takes these names too.\n",
    ]
    lines += [f"- `{name}`: {book.formula(one)}" for name, one in relprop.rules.BASELINES.items()]
    lines += ["\n## Rules as text and in files\n", _text(files)]
    lines.append(
        'Use such a file by `explain(..., rules="mine.toml")` or `relprop explain --rules mine.toml`.\n'
    )
    lines.append("## References\n")
    lines += [f"- {name}: {title}" for name, title in REFERENCES.items()]
    return NOTE + "\n".join(lines) + "\n"


def operation_table() -> str:
    """Every operation that relevance can cross, and how."""
    lines = [
        "# Operations\n",
        "relprop covers these operations in every spelling: as a module, a function, a method, an operator,",
        "in place or not; in a custom autograd function; scripted, traced or exported. They have the names",
        "of torch's documentation. `getitem` is `x[...]`. Functions that torch composes of these",
        "operations, such as `F.normalize` or `F.cosine_similarity`, are crossed as their parts.",
        "`relprop coverage MODEL` lists the operations of a model, and everything that is not covered. If",
        "relevance reaches an operation that is not covered, an error names its place. CONTRIBUTING.md shows",
        "how to add an operation.\n",
    ]
    for family, table in operations.FAMILIES.items():
        crossed = {name: entry for name, entry in table.items() if entry not in (*ENDS, quantised, elements)}
        lines += [f"## {family[0].upper()}{family[1:]}\n", f"{TREATMENTS[family]}\n"]
        lines.append(_listed(crossed) + "\n")
    ends = {name: entry for name, entry in operations.TABLE.items() if entry in ENDS}
    lines += ["## Constants\n", f"{END}\n", _listed(ends)]
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
    """The names of a library, and their names here, as a table."""
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


ENDS = (step, drawn, detach, compared)
"""Entries of operations that relevance does not cross."""

END = (
    "The results of these operations are constants for relevance, like those of `argmax` or `item`: their "
    "gradient is zero, or the model asks for a constant. They are an error only if the score does not depend "
    "on the inputs in another way."
)

TRANSFORMS = {"_fft_r2c": "fft.rfft", "_fft_c2r": "fft.irfft", "_fft_c2c": "fft.fft"}
"""What users know as these kernels, in all its dimensions."""

TREATMENTS = {
    "attention, as the products in it": (
        "softmax(q kᵀ)·v is two products with a softmax between them. A rule for products chooses between "
        "two treatments. The weights are constants and v gets all (`SignalTakesAll`, CP-LRP; also without a "
        "rule). Or each factor of both products gets half (`Uniform`, AttnLRP). Fused kernels stay fused: "
        "the gradient by q and k times 1/4, and by v times 1/2, is the same. `nn.MultiheadAttention` and "
        "torch's transformer layers are attention between linear layers. Relevance that the softmax does not "
        'conserve, and that of a mask of numbers, is in the ledger under "softmax".'
    ),
    "linear, by a rule of the composite": (
        "Sums of products with a constant weight. The composite chooses the rule. The plain gradient is "
        "LRP-0. A bias, a scale or a batch normalisation after such an operation, and zeros padded around "
        "its input, are part of it. A sparse matrix that is a constant, or an argument of the model, is a "
        "weight whose stored elements are the connections. `bilinear` is such an operation on all products "
        "of two inputs, and `torchvision::deform_conv2d` one on samples of the image, whose positions get "
        "nothing. A complex weight a + ib is the real weight [[a, -b], [b, a]] of real and imaginary parts. "
        "A weight that depends on the input makes it a product of activations."
    ),
    "pointwise": (
        "If f(ax) = a·f(x) for positive a, as for ReLU, relevance passes unchanged, by the plain gradient. "
        "Other functions pass it on by the slope of the line from (0, f(0)) to (x, f(x)). The relevance of "
        'f(0) is absorbed under "pointwise". A chain of such functions, sums and products of one value, such '
        "as a written-out GELU or `x * torch.sigmoid(x)`, counts as one function of that value. What is not "
        "finite at 0, such as `log`, is covered in a chain that is, as `log(x.clamp(min=1e-6))` or "
        "`log(x**2 + 1e-6)`. Fake quantisation is a clamp, and what it rounds is a constant."
    ),
    "sums, products with constants": (
        "The terms of a sum share relevance by contribution, so residual connections need no rule. A "
        'composite may have one. A constant term absorbs its part, under "constant". A constant factor '
        "changes no shares. What `frac` and `remainder` take off is a constant."
    ),
    "products of activations, by a rule of their own": (
        "Factors share by their roles. A weight is a bounded function that is not 0 at 0, such as a sigmoid, "
        "or a softmax; a statistic is for instance 1/√variance, or an inverse matrix. Both get nothing "
        "beside a signal, which gets all relevance, as in squeeze-and-excitation and attention. Two signals, "
        "or two weights, get half "
        "each, also where one of them is broadcast. In `cp-lrp`, what an activation function such as SiLU "
        "made is a gate, too. A composite may have another rule, but statistics always count as constants. "
        "Relevance crosses products of two matrices of activations, and `mul` and `div` of two activations, "
        "in the same way. [design.md](design.md) has all roles."
    ),
    "normalisation": (
        "Divisors and the statistics of batch normalisation count as constants. The rest is linear. Batch "
        "normalisation becomes part of the linear operation before it, or of the one directly after it. "
        "Otherwise relevance passes by the plain gradient, and the shift absorbs a part, under "
        '"shift", unless a composite names a rule for it.'
    ),
    "softmax": (
        "By its Taylor expansion of first order, R_i = x_i (R_i - s_i Σ R_j), Achtibat et al. 2024, "
        'prop. 3.1. Relevance that it does not conserve is in the ledger under "softmax". A softmax that is '
        "a factor of a product is a gate and gets nothing (see products). The terms of `logsumexp` get "
        "R_i = x_i s_i · R/z, and the entropy of s is in the ledger likewise. In a target, `cross_entropy` "
        "and `nll_loss` are sums of log-probabilities, and `ctc_loss` is the `logsumexp` of its paths."
    ),
    "pooling": (
        "Sums and averages share in proportion to contributions. In a maximum the largest value gets all. "
        "With `AveragePooling` in a composite, the window of a max-pooling shares like that of an average "
        "pooling."
    ),
    "recurrent layers and cells, step by step": (
        "Gates get nothing, and signals all, as in Arras et al. 2017; `Uniform` gives the gates half, and "
        "`Proportional` a share by value. The linear operations on inputs and states have their rules. "
        "Relevance goes back through the steps of the one call, and is that of cells and of a network that "
        'is written out. First states are inputs, or absorb their part, under "constant" or "parameters". '
        "Packed sequences are rows of all steps."
    ),
    "embedding bags, as the lookup and the pooling in them": (
        "Written out as a lookup and a sum, a mean or a maximum of the rows of each bag. Integers that are "
        "an input get what their rows get."
    ),
    "resampling": (
        "Linear in the image, with weights that depend on positions alone. A grid of positions that depends "
        "on the input gets no relevance."
    ),
    "rearranging": (
        "Relevance goes to the elements that the values came from. Constants, such as a border that is not "
        'zero or another part of `cat`, absorb theirs, under "constant".'
    ),
    "writing to parts of a tensor": (
        "The relevance of each element goes to the value that was written there last. Constants, written or "
        'written over, absorb theirs, under "constant".'
    ),
    "sparse matrices that depend on the input, as dense ones": (
        "A sparse matrix whose elements depend on the input is the dense matrix of the same elements, and "
        "has its products, sums and rules. The softmax is that of the elements that are stored."
    ),
}
"""How relevance crosses the operations of each family."""


def generated() -> dict[Path, str]:
    """The text of every page and picture that is generated."""
    results = Results.read(ROOT / "benchmarks" / "results.json")
    found = {
        DOCS / "commands.md": commands(),
        DOCS / "rules.md": rules_and_presets(),
        DOCS / "operations.md": operation_table(),
        DOCS / "coming-from.md": coming_from(),
        DOCS / "digit.html": demo(),
        DOCS / "performance.md": NOTE + performance(results),
    }
    found |= {DOCS / "images" / name: plot for name, plot in plots_of(results).items()}
    for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        if path not in found and MARK.search(text := path.read_text(encoding="utf-8")):
            found[path] = renewed(text, results, str(path.relative_to(ROOT)))
    return found


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
    for path, text in generated().items():
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(str(path.relative_to(ROOT)))
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not as the program would write them: {', '.join(stale)}. Run `make docs`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
