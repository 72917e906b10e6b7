"""Figures as files: SVG, PDF and PNG, whole, with a description, and with the same bytes each time."""

import base64
import contextlib
import io
import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure as Drawing
from PIL import Image

import relprop
from relprop.errors import FileError, InputError
from relprop.figures.figure import Figure
from relprop.figures.samples import figure_of
from relprop.figures.style import own_style


def texts(path):
    """The texts of an SVG file, in their order."""
    return [
        "".join(element.itertext()) for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")
    ]


def sizes(path):
    """The sizes of the texts of an SVG file in pixels, of which 72 are an inch."""
    return [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", path.read_text())]


def test_texts_of_an_svg_file_are_texts(table, tmp_path):
    explanation, x = table
    names = ["age", "income", "Größe", "loans", "rent", "cars", "pets", "trips"]
    explanation.save(tmp_path / "a.svg", features=names, values=x, samples=[1], k=3)
    found = texts(tmp_path / "a.svg")
    assert f"class 1, score {float(explanation.score[1]):.4g}" in found
    assert {"relevance", "the other 5"} <= set(found)
    assert sum(name.partition(" = ")[0] in names for name in found) == 3
    # Seven points are what journals ask for at least.
    assert min(sizes(tmp_path / "a.svg")) >= 7


def test_fonts_are_embedded_in_a_pdf_file(table, tmp_path):
    table[0].save(tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_every_kind_has_a_description_and_no_date(images, tmp_path):
    explanation, x = images
    for kind in ("svg", "pdf"):
        explanation.save(tmp_path / f"a.{kind}", x, model="my network")
        content = (tmp_path / f"a.{kind}").read_bytes()
        for told in ("Relevance of the input for classes 2, 2, 2", "my network", explanation.preset):
            assert told.encode() in content, (kind, told)
        assert b"relprop " in content
        assert not re.search(rb"CreationDate|ModDate|<dc:date>|20\d\d-\d\d-\d\d", content)
    svg = (tmp_path / "a.svg").read_text()
    assert f"Score: {', '.join(f'{score:.6g}' for score in explanation.score.tolist())}" in svg
    figure_of(explanation, x, {"model": "my network"}).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info["Model"] == "my network"
        assert picture.info["Software"] == f"relprop {relprop.__version__}"
        assert picture.info["dpi"][0] == pytest.approx(300, abs=1)


def test_descriptions_with_any_letters_can_be_read_again(images, tmp_path):
    explanation, _ = images
    explanation.save(tmp_path / "a.svg", title="a < b & \x1b \udc80 γ")
    assert "a < b & \\x1b \\udc80 γ" in texts(tmp_path / "a.svg")
    explanation.save(tmp_path / "a.pdf", title="a < b & \x1b \udc80 γ")


SAME = """
import zlib, torch, relprop
from relprop.figures.samples import figure_of
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2)).eval()
x = torch.rand(2, 3, 8, 8)
e = relprop.explain(model, x, target=lambda y: y[:, 0] + 9)
figures = figure_of(e, x, {}), e.waterfall(k=3)
print(*[zlib.crc32(f.as_bytes(kind)) for f in figures for kind in ("svg", "pdf", "png")])
"""


def test_the_same_figure_has_the_same_bytes_in_every_process():
    found = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SAME],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0].split()) == 6


def test_settings_of_the_user_do_not_change_a_figure_nor_does_a_figure_change_them(table, tmp_path):
    explanation, _ = table
    explanation.save(tmp_path / "a.svg")
    before = dict(mpl.rcParams.copy())
    own = {"font.size": 30, "figure.facecolor": "black", "svg.fonttype": "path", "savefig.bbox": "tight"}
    with mpl.rc_context(own):
        within = dict(mpl.rcParams.copy())
        explanation.save(tmp_path / "b.svg")
        assert dict(mpl.rcParams.copy()) == within
    assert dict(mpl.rcParams.copy()) == before
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with mpl.rc_context({"font.family": "serif"}):  # that of the paper
        explanation.save(tmp_path / "c.svg")
    assert "DejaVu Serif" in (tmp_path / "c.svg").read_text()
    assert "DejaVu Serif" not in (tmp_path / "a.svg").read_text()


def test_threads_draw_one_after_the_other_so_that_the_settings_are_the_users_at_the_end():
    entered, leave = threading.Event(), threading.Event()

    def draw():
        with own_style():
            entered.set()
            leave.wait(20)

    with mpl.rc_context():
        before = dict(mpl.rcParams.copy())
        other = threading.Thread(target=draw)
        with own_style():
            other.start()
            assert not entered.wait(0.2)
        leave.set()
        other.join(20)
        assert entered.is_set()
        assert dict(mpl.rcParams.copy()) == before


def test_a_backend_is_never_chosen(tmp_path):
    code = f"""
import sys, torch, relprop
e = relprop.explain(torch.nn.Linear(3, 2).eval(), torch.ones(1, 3), target=lambda y: y[:, 0] + 9)
assert "matplotlib" not in sys.modules
e.save({str(tmp_path / "a.pdf")!r})
e.waterfall()._repr_png_()
import matplotlib
print("matplotlib.pyplot" in sys.modules, isinstance(matplotlib.rcParams._get("backend"), str))
"""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert run.stdout.split() == ["False", "False"]


def test_without_matplotlib_an_error_says_what_to_install(tmp_path):
    code = """
import sys, torch, relprop
sys.modules["matplotlib"] = None
e = relprop.explain(torch.nn.Linear(3, 2).eval(), torch.ones(1, 3), target=lambda y: y[:, 0] + 9)
bars = e.aggregate([[0]]).bars
for call in (lambda: e.save("a.svg"), lambda: e.plot(ax=0), lambda: e.waterfall(), lambda: bars()):
    try:
        call()
    except relprop.errors.InputError as error:
        print(error)
print(len(e.top(2)), e.plot().pixels.ndim)
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=tmp_path,
    )
    told = "figures are drawn by matplotlib, which is not installed: pip install 'relprop[plot]'"
    assert run.stdout.splitlines() == [told] * 4 + ["2 3"]
    assert not list(tmp_path.iterdir())


# What is in a figure


def test_a_figure_has_the_width_of_a_column_or_of_a_page(images, table):
    for explanation, options, width in (
        (images[0], {"samples": [0]}, 3.4),
        (images[0], {"samples": [0, 1]}, 3.4),
        (images[0], {}, 7.0),
        (images[0], {"width": 5}, 5.0),
        (table[0], {"sample": 1}, 3.4),
        (table[0], {}, 7.0),
    ):
        assert figure_of(explanation, None, options).drawing.get_size_inches()[0] == pytest.approx(width)


def test_nothing_of_a_figure_is_cut_off(images, table, signals):
    made = [
        figure_of(images[0], images[1], {"title": "All of them", "classes": ["a long name of a class"] * 5}),
        figure_of(images[0], None, {"samples": [0], "classes": ["a very long name of a class indeed"] * 5}),
        figure_of(table[0], None, {"features": [f"a rather long name of feature {n}" for n in range(8)]}),
        figure_of(signals[0], signals[1], {"features": ["left", "right", "trigger"]}),
    ]
    for figure in made:
        figure.as_bytes("png")
        (left, bottom), (right, top) = figure.drawing.get_tightbbox().get_points()
        width, height = figure.drawing.get_size_inches()
        assert -0.02 <= left < right <= width + 0.02
        assert -0.02 <= bottom < top <= height + 0.02


def test_samples_are_in_rows_with_their_own_scales_or_a_shared_one(images):
    explanation, x = images
    own = figure_of(explanation, x, {"columns": 2})
    *cells, bar = own.axes
    assert len(cells) == 4
    assert not cells[3].axison
    assert [cell.get_title() for cell in cells[:3]] == [
        f"class 2, score {s:.4g}" for s in explanation.score.tolist()
    ]
    assert all(cell.get_xlabel().startswith("±") for cell in cells[:3])
    assert [text.get_text() for text in bar.get_yticklabels()] == ["−", "0", "+"]
    shared = figure_of(explanation, None, {"shared": True})
    images_of = [cell.get_images()[0] for cell in shared.axes[:3]]
    assert len({image.get_clim() for image in images_of}) == 1
    high = images_of[0].get_clim()[1]
    assert shared.axes[3].get_yticklabels()[-1].get_text() == f"{high:.3g}"
    assert shared.axes[0].get_xlabel() == ""


def test_a_title_is_above_all_samples_or_in_the_place_of_the_only_label(images):
    one = figure_of(images[0], None, {"samples": [0], "title": "Mine"})
    assert one.axes[0].get_title() == "Mine"
    assert one.drawing.get_suptitle() == ""
    several = figure_of(images[0], None, {"title": "Mine"})
    assert several.axes[0].get_title().startswith("class 2, score ")
    assert several.drawing.get_suptitle() == "Mine"
    assert one.metadata["Title"] == several.metadata["Title"] == "Mine"


def test_the_values_are_in_a_vector_file_and_no_enlarged_picture(images, tmp_path):
    explanation, _ = images
    explanation.save(tmp_path / "a.svg", samples=[0], bar=False)
    (data,) = re.findall(r"data:image/png;base64,([^\"]+)", (tmp_path / "a.svg").read_text())
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (8, 8)


def test_a_signal_and_a_table_have_a_row_for_each_sample(signals, table):
    rows = figure_of(signals[0], signals[1], {})
    assert [ax.get_xlabel()[:23] for ax in rows.axes[:2]] == ["time step (full colour:"] * 2
    assert len(figure_of(table[0], None, {}).axes) == 2
    assert len(figure_of(table[0], None, {"samples": [1]}).axes) == 1


def test_bars_of_several_rows_have_one_scale_if_it_is_shared(table):
    own, shared = (
        [ax.get_xlim() for ax in figure_of(table[0], None, how).axes] for how in ({}, {"shared": True})
    )
    assert own[0] != own[1]
    assert shared[0] == shared[1] == (min(low for low, _ in own), max(high for _, high in own))


def test_a_notebook_shows_a_figure(table):
    figure = figure_of(table[0], None, {"samples": [0]})
    with Image.open(io.BytesIO(figure._repr_png_())) as picture:
        assert picture.width == 680
    assert repr(figure).startswith("Figure(Relevance of the input for class 1; 3.4 x ")
    assert repr(Figure(figure.drawing)).startswith("Figure(a figure; 3.4 x ")


def test_what_a_user_adds_is_saved(table, tmp_path):
    figure = figure_of(table[0], None, {"samples": [0]})
    figure.axes[0].set_title("My own title")
    figure.save(tmp_path / "a.svg")
    assert "My own title" in texts(tmp_path / "a.svg")


def test_relevance_of_a_recorded_module_and_of_a_whole_input(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2)).eval()
    found = relprop.explain(model, torch.rand(1, 1, 8, 8), target=lambda y: y[:, 0] + 9, record="0")
    figure = figure_of(found, None, {"of": "0"})
    assert figure.axes[0].get_images()[0].get_array().shape == (6, 6)
    assert figure.metadata["Title"].startswith("Relevance of 0 for ")
    assert figure.metadata["Relevance of"] == "0"
    whole = relprop.explain(lambda x: (x * x).sum(), torch.rand(5, 4))
    whole.save(tmp_path / "a.svg")  # 5 x 4: one sample of a signal
    assert "time step" in texts(tmp_path / "a.svg")


# What cannot be written


def half_a_file(drawing, target, **how):
    """Write the beginning of a file, and fail."""
    with contextlib.ExitStack() as stack:
        file = target if hasattr(target, "write") else stack.enter_context(open(target, "wb"))
        file.write(b"%PDF-1.4")
    raise MemoryError


def test_a_figure_is_whole_or_not_at_all(table, tmp_path, monkeypatch):
    explanation, _ = table
    explanation.save(tmp_path / "a.pdf")
    before = (tmp_path / "a.pdf").read_bytes()
    with pytest.raises(FileError, match=r"cannot write .*/a.pdf/b.svg: .* Choose another"):
        explanation.save(tmp_path / "a.pdf" / "b.svg")
    with pytest.raises(InputError, match=r"explanation.save\(k=0\)"):
        explanation.save(tmp_path / "a.pdf", k=0)
    monkeypatch.setattr(Drawing, "savefig", half_a_file)
    with pytest.raises(MemoryError):
        explanation.save(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pdf"]


def test_names_and_options_without_meaning_are_refused(table, tmp_path):
    explanation, _ = table
    figure = figure_of(explanation, None, {})
    with pytest.raises(
        InputError, match=r"figure.save\('a.jpg'\): give a name that ends in .svg or .pdf, for pap"
    ):
        figure.save("a.jpg")
    with pytest.raises(InputError, match=r"figure.save\(3\): give the name of a file"):
        figure.save(3)
    with pytest.raises(
        InputError, match=r"explanation.save\(colr=...\): there is no such option. Did you mean col"
    ):
        explanation.save(tmp_path / "a.svg", colr=1)
    many = relprop.Explanation.concatenate([explanation] * 40)
    with pytest.raises(
        InputError, match=r"there are 80 samples, too many for a picture. Choose some: plot\(samp"
    ):
        many.save(tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_a_figure_leaves_relevance_as_it_was(images):
    explanation, x = images
    before = explanation.relevance.clone(), x.clone()
    figure_of(explanation, x, {"smooth": True}).as_bytes("png")
    assert explanation.relevance.equal(before[0])
    assert x.equal(before[1])
