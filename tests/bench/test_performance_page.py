"""docs/performance.md: what is written of figures, and where there are none."""

import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import plots
from benchmarks.case import Row
from benchmarks.cases import CASES
from benchmarks.figures import Figures
from benchmarks.measuring import Cost, Measured
from benchmarks.page import performance, plots_of
from benchmarks.results import Found, Results
from benchmarks.sentences import MARK, SENTENCES, renewed

ROOT = Path(__file__).parents[2]

RUN = "2026-01-02 03:04"
MACHINE = {
    "processor": "A processor",
    "cores": 4,
    "threads": 1,
    "import": 0.04,
    "versions": {"torch": "2.13.0", "zennit": "1.0.0"},
}


def measured(times: float) -> Measured:
    """What takes so many times the gradient, which takes 0.1 s, 10 MiB and 1000 products."""
    seconds = [0.1 * times * wave for wave in (0.9, 1.0, 1.1)]
    return Measured(1.5, seconds, Cost(int(times * 10 * 2**20), int(1000 * times)))


def everything(**others: float) -> Results:
    """Results of all cases: a way and rules take as long as their place in the plan says, or as given."""
    cases = {}
    for case in CASES:
        rows = {row: measured(1 + number) for number, row in enumerate(case.rows(compiled=True))}
        cases[case.name] = Found(RUN, rows, took=60.0, other_work=others.get(case.name, 0.0))
    return Results(cases, {RUN: MACHINE})


def section(page: str, title: str) -> str:
    """The text below a title."""
    return re.split(r"^#+ ", page.partition(f" {title}\n")[2], flags=re.M)[0]


def test_each_part_has_a_section_with_its_figures():
    page = performance(everything())
    for title in (
        "Networks of pictures",
        "Decoders",
        "Digits",
        "Recurrent networks",
        "Tracing and compiling",
        "More and more samples at once",
        "Longer and longer texts",
        "Memory",
        "Products",
    ):
        assert "| ---" in section(page, title), title
    # The second row of the plan is relprop by ε: twice the gradient, quartiles at 0.95 and 1.05 times that.
    assert "| VGG-16 | ε | 2.00 ± 0.10 |" in section(page, "Networks of pictures")
    assert "| VGG-16 | ε | 2.00 |" in section(page, "Memory")
    assert "On networks of pictures, ε takes 2.00 times as long as a gradient" in page
    assert "nan" not in page
    assert "| zennit |" in section(page, "Networks of pictures")
    assert "| zennit |" not in section(page, "Decoders"), "columns without figures are left out"


def test_the_page_says_what_figures_were_measured_on():
    page = performance(everything(vgg16=0.7))
    told = "(Medians of 3 rounds"
    assert f"{told}, beside other work that kept up to 0.7 cores busy.)" in section(
        page, "Networks of pictures"
    )
    assert f"{told}.)" in section(page, "Decoders")
    assert (
        "\n1. 2026-01-02 03:04 UTC, A processor, 4 cores, 1 thread for each way; torch 2.13.0, "
        "zennit 1.0.0." in section(page, "How it was measured")
    )
    assert (
        f"Everything took {len(CASES)} minutes: digits 3.0, pictures 6.0, decoders 2.0, recurrent 7.0, "
        in page
    )
    assert "`import relprop` takes 40 ms longer than `import torch`." in page


def test_runs_on_one_machine_are_told_together_and_others_by_number():
    results = everything()
    later, elsewhere = "2026-01-03 00:00", "2026-01-04 00:00"
    results.runs |= {later: MACHINE | {"import": 0.05}, elsewhere: MACHINE | {"cores": 8}}
    for name, run in (("vgg16", later), ("digit-cnn", elsewhere)):
        results.cases[name] = Found(run, results.cases[name].rows, 60.0, 0.0)
    page = performance(results)
    assert f"\n1. {RUN} to {later} UTC, A processor, 4 cores" in page
    assert f"\n2. {elsewhere} UTC, A processor, 8 cores" in page
    assert "rounds, 1 [below](#how-it-was-measured).)" in section(page, "Networks of pictures")
    assert "rounds, 1 and 2 [below](#how-it-was-measured).)" in section(page, "Digits")


def test_what_was_not_measured_or_failed_is_left_out():
    assert performance(Results()) == "# Performance\n"
    assert plots_of(Results()) == {}
    results = everything()
    results.cases = {"vgg16": results.cases["vgg16"], "resnet50": results.cases["resnet50"]}
    rows = dict(results.cases["vgg16"].rows)
    rows[Row("zennit", "epsilon")] = Measured(error="none")
    results.cases["vgg16"] = Found(RUN, rows, 1, 0)
    page = performance(results)
    assert "## Decoders" not in page
    line = next(line for line in page.splitlines() if line.startswith("| VGG-16 | ε |"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    head = section(page, "Networks of pictures").split("\n| ")[1].split("|")
    assert cells[[cell.strip() for cell in head].index("zennit")] == ""


def test_a_case_whose_gradient_failed_has_no_line():
    results = everything()
    rows = dict(results.cases["densenet121"].rows) | {Row("gradient"): Measured(error="none")}
    results.cases["densenet121"] = Found(RUN, rows, 1, 0)
    assert "DenseNet" not in section(performance(results), "Networks of pictures")


def test_plots_are_pictures_with_a_title_and_all_lines():
    found = plots_of(everything())
    assert set(found) == {
        f"performance-{name}.svg" for name in ("epsilon", "batch", "size", "depth", "length")
    }
    assert found == plots_of(everything())
    for name, text in found.items():
        tree = ElementTree.fromstring(text)
        assert tree[0].tag.endswith("title")
        assert tree[0].text
        assert f"images/{name}" in performance(everything())
    lines = Figures(everything()).lines_of("depth")
    assert found["performance-depth.svg"].count("<polyline") == len(lines)


def test_lines_lie_where_their_figures_are():
    plot = plots.lines("a title", "x", "y", {"a & b": [(1, 1), (10, 3), (100, 2)]})
    (points,) = re.findall(r'polyline points="([^"]+)"', plot)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert x1 - x0 == pytest.approx(x2 - x1), "the axis is logarithmic"
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.3), "up is more"
    assert "a &amp; b" in plot


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    plot = plots.lines("", "x", "y", {f"line {i}": [(1, 1), (2, 1.01 + i / 1000)] for i in range(6)})
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>line', plot))
    assert all(below - above >= 13.9 for above, below in pairwise(heights))


# What other pages say


def test_marks_are_filled_anew_and_the_rest_stays():
    text = "By ε <!-- figures: price -->0.1<!-- end --> times.\n<!-- figures: price -->\nx\n<!-- end -->\n"
    assert renewed(text, everything(), "README.md") == (
        "By ε <!-- figures: price -->2.00<!-- end --> times.\n<!-- figures: price -->\n2.00\n<!-- end -->\n"
    )
    assert renewed("no mark", Results(), "README.md") == "no mark"


@pytest.mark.parametrize("name", SENTENCES)
def test_each_sentence_has_figures_and_needs_them(name):
    text = f"<!-- figures: {name} --><!-- end -->"
    assert re.search(r"\d", MARK.sub(lambda found: found[0], renewed(text, everything(), "page")))
    with pytest.raises(ValueError, match=f"page has the mark '{name}', for which nothing was measured. Run"):
        renewed(text, Results(), "page")


def test_a_mark_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"README.md has the mark 'cost'. There are: price, "):
        renewed("<!-- figures: cost -->1<!-- end -->", everything(), "README.md")


def test_the_results_of_the_project_are_of_cases_that_exist():
    results = Results.read(ROOT / "benchmarks" / "results.json")
    assert set(results.cases) <= {case.name for case in CASES}
    assert all(results.runs[found.run]["versions"]["torch"] for found in results.cases.values())


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marks_within_a_sentence_begin_no_line(page):
    # Markdown would end the paragraph there, and read no links in the rest of the line.
    assert not re.search(r"^ *<!-- figures: [\w ]+ -->[^\n]", page.read_text(encoding="utf-8"), re.M)
