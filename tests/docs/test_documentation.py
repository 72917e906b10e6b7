"""Every page that has Python in it runs, and docs/from-scratch.md computes what it says it computes."""

import linecache
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import markdown
import oracle
from torchvision_shim import import_torchvision

import_torchvision()  # transformers needs one that works

ROOT = Path(__file__).parents[2]
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if markdown.has_python(page)
]

SHAPES = {
    "mlp": {"l1": (300, 784), "l2": (100, 300), "l3": (10, 100)},
    "cnn": {"c1": (10, 1, 5, 5), "c2": (25, 10, 5, 5), "c3": (100, 25, 4, 4), "c4": (10, 100, 1, 1)},
}


# The pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_every_page_runs(page, tmp_path, monkeypatch):
    # What a page writes is written here, not in the tree.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    markdown.run(page)


def test_from_scratch_is_as_short_as_it_says():
    code = "".join(block.text for block in markdown.blocks(oracle.PAGE) if block.language == "python")
    definitions, loading, _ = code.partition("import relprop")
    assert loading
    assert len([line for line in definitions.splitlines() if line.strip()]) <= 110, "about a hundred lines"


@pytest.fixture
def page(tmp_path):
    """Write a page with the text given."""

    def write(text):
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        linecache.checkcache(str(path))
        return path

    return write


def test_blocks_share_a_namespace_and_other_languages_are_not_run(page):
    path = page(
        "# Title\n\n```python\na = 20\n```\n\n```sh\nrm a\n```\n\n"
        "- item\n\n  ~~~python\n  if a:\n      a += 1\n  ~~~\n\n"
        "````text\n```python\na = 0\n```\n````\n"
    )
    assert [(block.language, block.line) for block in markdown.blocks(path)] == [
        ("python", 4),
        ("sh", 8),
        ("python", 14),
        ("text", 19),
    ]
    assert markdown.run(path)["a"] == 21


def test_a_traceback_shows_the_line_of_the_page(page):
    path = page("Text\n\n```python\na = 1\n```\n\nText\n\n```python\n\na / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as error:
        markdown.run(path)
    last = traceback.extract_tb(error.tb)[-1]
    assert (last.filename, last.lineno, last.line) == (str(path), 11, "a / 0")


def test_a_syntax_error_names_the_line_of_the_page(page):
    with pytest.raises(SyntaxError) as error:
        markdown.run(page("Text\n\n```python\na = 1\nb = = 2\n```\n"))
    assert error.value.lineno == 5


def test_what_a_block_prints_is_compared_with_the_output_below_it(page):
    right = "```python\nprint(1 + 1)\n```\n\n```output\n2\n```\n"
    markdown.run(page(right))
    path = page(right.replace("\n2\n", "\n3\n\n4\n") + "\nText\n")
    with pytest.raises(AssertionError, match=r"page.md, line 6: the block before this one prints\n2"):
        markdown.run(path)
    markdown.renew(path)
    assert path.read_text(encoding="utf-8") == right + "\nText\n"


def test_a_block_that_is_never_closed_is_an_error(page):
    with pytest.raises(SyntaxError, match=r"page.md, line 3: the block is never closed"):
        markdown.blocks(page("Text\n\n```python\na = 1\n"))


# The layers of docs/from-scratch.md


def random_parameters(name):
    """Give parameters of the right shapes whose activations neither die nor grow, in float64."""
    generator = torch.Generator().manual_seed(1)
    parameters = {}
    for layer, shape in SHAPES[name].items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        parameters[f"{layer}.weight"] = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        parameters[f"{layer}.bias"] = 0.1 * torch.randn(shape[0], generator=generator, dtype=torch.float64)
    return parameters


def random_images(name):
    side = 28 if name == "mlp" else 32
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.rand(6, 1, side, side, generator=generator, dtype=torch.float64) - 1


def by_torch(name, parameters, x):
    """Compute the scores with torch's own operations."""
    weights = [(parameters[f"{layer}.weight"], parameters[f"{layer}.bias"]) for layer in SHAPES[name]]
    if name == "mlp":
        x = x.flatten(1)
    for number, (weight, bias) in enumerate(weights, start=1):
        x = nn.functional.linear(x, weight, bias) if name == "mlp" else nn.functional.conv2d(x, weight, bias)
        if number < len(weights):
            x = x.relu() if name == "mlp" else 2 * nn.functional.avg_pool2d(x.relu(), 2)
    return x.flatten(1)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_scores_and_sensitivity_are_those_of_torch(name):
    parameters, x = random_parameters(name), random_images(name).requires_grad_()
    labels = torch.tensor([3, 1, 4, 1, 5, 9])
    scores = by_torch(name, parameters, x)
    (gradient,) = torch.autograd.grad(scores.gather(1, labels[:, None]).sum(), x)
    np.testing.assert_allclose(
        oracle.scores(name, parameters, x.detach()), scores.detach(), rtol=1e-12, atol=1e-13
    )
    maps = oracle.maps(name, "sensitivity", parameters, x.detach(), labels)
    np.testing.assert_allclose(maps, gradient**2, rtol=1e-10, atol=1e-20)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_negative_score_gives_an_empty_map(name):
    parameters, x = random_parameters(name), random_images(name)
    labels = oracle.scores(name, parameters, x).argmin(axis=1)
    assert (oracle.scores(name, parameters, x).min(axis=1) < 0).all()
    for method in ("deep-taylor", "alpha2-beta1"):
        assert not oracle.maps(name, method, parameters, x, labels).any()


def test_images_that_are_not_padded_are_refused():
    with pytest.raises(
        AssertionError, match=r"takes images \(N, 1, 32, 32\), not \(6, 1, 28, 28\): pad them with -1"
    ):
        oracle.maps("cnn", "deep-taylor", random_parameters("cnn"), random_images("mlp"), np.zeros(6, int))


# The rules, a second time: from the formula, contribution by contribution


def layers():
    """Give a dense layer, a convolution and a pooling, each with the shape of an input."""
    random = np.random.default_rng(3)
    names = oracle.page()
    return {
        "dense": (names["Dense"](random.normal(size=(6, 5)), random.normal(size=5)), (2, 6)),
        "convolution": (
            names["Convolution"](random.normal(size=(2, 3, 3, 4)), random.normal(size=4)),
            (2, 4, 5, 3),
        ),
        "pooling": (names["Pooling"](), (2, 4, 4, 3)),
    }


def input_and_relevance(layer, shape, low):
    random = np.random.default_rng(4)
    x = random.uniform(low, 1, size=shape)
    return x, random.uniform(0, 1, size=layer.forward(x).shape)


def weight_matrix(layer, shape):
    """Find the weights (inputs, outputs) of a linear layer by passing each unit vector through it."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    zero = layer.forward(np.zeros_like(units))
    return (layer.forward(units) - zero).reshape(len(units), -1)


def shared(x, R, contributions):
    """Share each `R[n, j]` in proportion to `contributions(x[n])[i, j]`."""
    maps = np.zeros_like(x)
    for n, image in enumerate(x):
        q = contributions(image)
        maps[n] = (q / q.sum(axis=0) * R[n]).sum(axis=1)
    return maps


RULES = {
    "z_plus": lambda x, R, w: shared(x, R, lambda image: image[:, None] * np.maximum(w, 0)),
    # With the bounds -1 and 1.
    "z_box": lambda x, R, w: shared(
        x, R, lambda image: image[:, None] * w + np.maximum(w, 0) - np.minimum(w, 0)
    ),
    "alpha_beta": lambda x, R, w: (
        2 * shared(x, R, lambda image: image[:, None] * np.maximum(w, 0))
        - shared(x, R, lambda image: image[:, None] * np.minimum(w, 0))
    ),
}


@pytest.mark.parametrize("kind", ["dense", "convolution"])
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_their_formulas(kind, rule):
    layer, shape = layers()[kind]
    x, R = input_and_relevance(layer, shape, low=-1 if rule == "z_box" else 0)
    found = oracle.page()[rule](layer, R)
    expected = RULES[rule](x.reshape(2, -1), R.reshape(2, -1), weight_matrix(layer, shape[1:]))
    np.testing.assert_allclose(found.reshape(2, -1), expected, rtol=1e-6, atol=1e-7)


def test_pooling_shares_in_proportion():
    layer, shape = layers()["pooling"]
    x, R = input_and_relevance(layer, shape, low=0)
    found = layer.relevance(R)
    # Its weights are 0.5 or 0, so that z+ is the same.
    expected = RULES["z_plus"](x.reshape(2, -1), R.reshape(2, -1), weight_matrix(layer, shape[1:]))
    np.testing.assert_allclose(found.reshape(2, -1), expected, rtol=1e-6, atol=1e-7)


def test_alpha_beta_conserves_when_all_weights_share_a_sign():
    names = oracle.page()
    layer = names["Dense"](np.ones((4, 1)), np.zeros(1))
    layer.forward(np.array([[0.0, 1.0, 2.0, 3.0]]))
    maps = names["alpha_beta"](layer, np.array([[6.0]]))
    # Twice the relevance by contribution, less once in proportion to the input alone.
    np.testing.assert_allclose(maps, [[0, 1, 2, 3]], atol=1e-7)
    layer.forward(np.zeros((1, 4)))
    np.testing.assert_allclose(names["alpha_beta"](layer, np.array([[6.0]])), np.full((1, 4), 1.5))


# The maps of the twelve digits


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_deep_taylor_maps_of_the_digits_are_positive_and_sum_to_the_scores(name):
    names = oracle.page()
    x, parameters = names["rows" if name == "mlp" else "squares"], names["parameters"](f"mnist-{name}")
    scores = oracle.scores(name, parameters, x.reshape(12, 1, *((28, 28) if name == "mlp" else (32, 32))))
    scores = scores[np.arange(12), names["labels"]]
    maps = names["maps"][f"{name}-deeptaylor"].reshape(12, -1)
    assert (scores > 0).any()
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum(axis=1), np.maximum(scores, 0), rtol=1e-6, atol=1e-6)
