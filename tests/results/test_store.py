"""Explanations in files: everything comes back, and nothing that somebody else wrote is executed."""

import dataclasses
import inspect
import json
import os
import pickle
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import relprop
from relprop.errors import FileError, InputError
from relprop.places import First
from relprop.results.inner import InnerRelevance
from relprop.view.mosaic import made_by_relprop


def network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    nn.init.constant_(model[-1].bias, 2)  # scores are positive: explain warns of others
    return model


def explained(**arguments):
    torch.manual_seed(0)
    arguments = {"target": [2, 0, 1]} | arguments
    return relprop.explain(network(), torch.rand(3, 3, 8, 8), **arguments)


def same(one, other):
    """Whether what came back equals what was stored: tensors to the last bit, rules as they print."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, relprop.results.ledger.Ledger | relprop.Explanation | InnerRelevance):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "rule"):
        return (one.path, one.operation, str(one.rule)) == (other.path, other.operation, other.rule)
    return one == other


def stored(explanation, tmp_path):
    explanation.save(tmp_path / "a.safetensors")
    return relprop.load_explanation(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"per_operation": True},
        {"rules": [(First(), relprop.rules.ZBox(0, 1)), ("*", relprop.rules.Gamma(0.25))]},
        {"rules": relprop.rules.Epsilon(1e-2)},
    ],
    ids=["default", "books of operations", "composite", "rule"],
)
def test_everything_comes_back(tmp_path, arguments):
    explanation = explained(**arguments)
    again = stored(explanation, tmp_path)
    assert same(explanation, again)
    assert not same(explanation, dataclasses.replace(again, inputs={"input": again.relevance + 1e-6}))
    assert str(again.ledger) == str(explanation.ledger)
    assert [str(rule) for rule in again.rules] == [str(rule) for rule in explanation.rules]
    assert repr(again) == repr(explanation)
    assert torch.equal(torch.from_numpy(again.plot().pixels), torch.from_numpy(explanation.plot().pixels))


def test_what_was_loaded_can_be_saved_again(tmp_path):
    again = stored(explained(), tmp_path)
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert same(relprop.Explanation.load(tmp_path / "b.safetensors").relevance, again.relevance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_of_numbers_are_kept(tmp_path, dtype):
    explanation = explained()
    converted = dataclasses.replace(explanation, inputs={"input": explanation.relevance.to(dtype)})
    assert stored(converted, tmp_path).relevance.dtype == dtype


def test_several_inputs_and_outputs_of_other_forms_come_back(tmp_path):
    linear = nn.Linear(6, 2).eval()
    nn.init.constant_(linear.bias, 2)

    def model(a, b):
        scores = linear(torch.cat([a, b], 1))
        return {"scores": scores, "more": [scores.sum(1), (1, None, "text", True, 0.5, float("inf"))]}

    explanation = relprop.explain(
        model, torch.rand(2, 3), torch.rand(2, 3), target=lambda output: output["scores"][:, 1]
    )
    again = stored(explanation, tmp_path)
    assert same(again.inputs, explanation.inputs)
    assert len(again.inputs) == 2
    assert same(again.output, explanation.output)
    # A function comes back as its name.
    assert again.target.endswith("test_several_inputs_and_outputs_of_other_forms_come_back.<locals>.<lambda>")


@pytest.mark.parametrize(
    "value",
    [
        relprop.targets.Contrastive(3),
        relprop.targets.LogOdds((1, 2, 3)),
        relprop.targets.RunnerUp(),
        relprop.targets.At(-1, relprop.targets.Contrastive(2)),
        relprop.targets.Part("out", 3),
        relprop.targets.Part(1, relprop.targets.Part("logits", relprop.targets.RunnerUp())),
    ],
    ids=str,
)
def test_targets_come_back(tmp_path, value):
    assert stored(dataclasses.replace(explained(), target=value), tmp_path).target == value


def test_weights_of_a_target_come_back(tmp_path):
    target = relprop.targets.Weighted(torch.rand(5))
    again = stored(dataclasses.replace(explained(), target=target), tmp_path).target
    assert isinstance(again, relprop.targets.Weighted)
    assert torch.equal(again.weights, target.weights)


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, False], [False, True]])])
def test_a_region_comes_back(tmp_path, mask):
    again = stored(dataclasses.replace(explained(), target=relprop.targets.Region(2, mask)), tmp_path).target
    assert isinstance(again, relprop.targets.Region)
    assert again.index == 2
    assert again.mask is None if mask is None else torch.equal(again.mask, mask)


def test_every_target_of_the_package_can_be_stored():
    targets = {getattr(relprop.targets, name) for name in relprop.targets.__all__}
    made = {t for t in targets if dataclasses.is_dataclass(t) and not inspect.isabstract(t)}
    assert len(made) > 8
    assert made <= set(relprop.results.store._RECORDS.values())


def test_tensors_that_share_memory_or_are_views_come_back(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    output = {"all": shared, "turned": shared.T, "one": torch.ones(()).expand(4), "part": shared[1]}
    assert same(stored(dataclasses.replace(explained(), output=output), tmp_path).output, output)


def test_names_that_would_collide_do_not(tmp_path):
    output = {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1), 0: torch.ones(2), "0": torch.zeros(2)}
    assert same(stored(dataclasses.replace(explained(), output=output), tmp_path).output, output)


def test_collections_come_back_as_plain_ones(tmp_path):
    class Strange:
        def __repr__(self):
            return "<strange>"

    output = OrderedDict(a=torch.Size([1, 2]), b=Strange())
    again = stored(dataclasses.replace(explained(), output=output), tmp_path).output
    assert again == {"a": (1, 2), "b": "<strange>"}
    assert type(again) is dict


def test_relevance_of_modules_and_weights_comes_back(tmp_path):
    calls = {"layer1.0": (torch.rand(3, 4), (torch.rand(3), torch.rand(2, 2))), "layer2": (torch.rand(1),)}
    explanation = dataclasses.replace(
        explained(), inner=InnerRelevance(calls), parameters={"0.weight": torch.rand(4, 3, 3, 3)}
    )
    again = stored(explanation, tmp_path)
    assert same(explanation, again)
    assert torch.equal(again.inner["layer2"], calls["layer2"][0])


def test_the_header_tells_what_is_explained(tmp_path):
    explanation = explained()
    explanation.save(tmp_path / "a.safetensors", model="my network")
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        book = json.loads(file.metadata()["explanation"])
    about = book["about"]
    assert book["relprop"] == relprop.__version__
    assert about == explanation.described("my network")
    assert about["Model"] == "my network"
    assert about["Target"] == "2, 0, 1"
    assert book["format"] == 2
    assert book["kind"] == "Explanation"


def test_of_many_samples_some_are_described():
    explanation = explained()
    books = relprop.results.ledger.Ledger(100, seed=torch.ones(100), inputs=torch.ones(100))
    many = dataclasses.replace(explanation, score=torch.arange(100.0), target=torch.arange(100), ledger=books)
    assert many.described()["Score"].endswith("62, 63, ... (100 in all)")
    assert many.described(samples=[99, 2])["Score"] == "99, 2"


def test_a_picture_and_everything_go_by_the_suffix(tmp_path):
    explanation = explained()
    explanation.save(tmp_path / "a.PNG", torch.rand(3, 3, 8, 8), columns=1)
    assert made_by_relprop(tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as picture:
        assert picture.height > 2 * picture.width
    for name in ("a.pt", "a"):
        with pytest.raises(
            InputError,
            match=rf"save\('.*{name}'\): give a name that ends in .png, .svg or .pdf, for a picture, in .h",
        ):
            explanation.save(tmp_path / name)
    with pytest.raises(
        InputError, match=r"a picture and drawing options are for pictures and pages only. Leave them out"
    ):
        explanation.save(tmp_path / "a.safetensors", percentile=99)
    assert os.listdir(tmp_path) == ["a.PNG"]


def test_tensors_that_cannot_be_stored_are_refused(tmp_path):
    odd = dataclasses.replace(explained(), output=torch.eye(3).to_sparse())
    with pytest.raises(
        InputError,
        match=r"safetensors files cannot hold tensors such as output \(torch.float32, torch.sparse_coo\).",
    ):
        odd.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# Files of others


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(
        FileError, match=r"cannot read .*a.safetensors: No such file or directory. Check the name"
    ):
        relprop.load_explanation(tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=r"cannot read .*: Is a directory"):
        relprop.load_explanation(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1], ids=str)
def test_a_file_that_is_cut_off_is_an_error(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    explained().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(
        FileError, match=r"a.safetensors is truncated, damaged or not a safetensors file: .*again"
    ):
        relprop.load_explanation(path)


class Trap:
    """Pickled, it makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_not_unpickled(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    with pytest.raises(FileError, match="not a safetensors file"):
        relprop.load_explanation(path)
    torch.save({"relevance": torch.ones(1)}, path)
    with pytest.raises(FileError, match="not a safetensors file"):
        relprop.load_explanation(path)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_weights_are_no_explanation(tmp_path):
    path = tmp_path / "weights.safetensors"
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file(network().state_dict(), path, metadata)
        with pytest.raises(
            FileError, match=r"is a safetensors file, but holds no explanation. Weights of models"
        ):
            relprop.load_explanation(path)


def rewritten(tmp_path, change):
    """Store an explanation, with its header changed."""
    path = tmp_path / "a.safetensors"
    explained().save(path)
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata()
    book = json.loads(header["explanation"])
    tensors = safetensors.torch.load_file(path)
    header["explanation"] = change(book, tensors) or json.dumps(book)
    safetensors.torch.save_file(tensors, path, header)
    return path


def changed(*keys, to):
    def change(book, tensors):
        part = book
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to

    return change


def nested(depth):
    return '{"format": 1, "fields": {"output": ' + '{"list": [' * depth + "]}" * depth + "}}"


@pytest.mark.parametrize(
    "change",
    [
        lambda book, tensors: "{",
        lambda book, tensors: "[]",
        lambda book, tensors: "{}",
        lambda book, tensors: nested(20_000),
        lambda book, tensors: book["fields"].pop("inputs") and None,
        lambda book, tensors: tensors.pop("inputs.input") is None or None,
        changed("format", to="x"),
        changed("fields", to=[]),
        changed("fields", "more", to=1),
        changed("fields", "inputs", to="text"),
        changed("fields", "inputs", to={"mapping": [["input", {"tensor": "nowhere"}]]}),
        changed("fields", "inputs", to={"mapping": [["input", {"tensor": ["a"]}]]}),
        changed("fields", "score", to=None),
        changed("fields", "ledger", to={"tuple": []}),
        changed("fields", "ledger", to={"Ledger": {"words": 1}}),
        changed("fields", "ledger", to={"Ledger": []}),
        changed("fields", "rules", to={"tuple": [1]}),
        changed("fields", "rules", to={"list": []}),
        changed("fields", "target", to={"Weighted": {"weights": 1}}),
        changed("fields", "output", to={"mapping": [[{"list": []}, 1]]}),
        changed("fields", "output", to={"mapping": 1}),
        changed("fields", "output", to={"float": "one"}),
        changed("fields", "output", to={"os.mkdir": {"path": "executed"}}),
        changed("fields", "output", to={"Explanation": {}}),
        changed("fields", "output", to={"tensor": "inputs.input", "list": []}),
        changed("fields", "output", to={}),
    ],
)
def test_a_header_that_somebody_changed_is_an_error(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    path = rewritten(tmp_path, change)
    with pytest.raises(
        FileError, match=r"a.safetensors holds a damaged explanation \(.*\). Save the explanation"
    ):
        relprop.load_explanation(path)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_an_unchanged_header_is_no_error(tmp_path):
    assert same(explained(), relprop.load_explanation(rewritten(tmp_path, lambda book, tensors: None)))


def test_a_file_of_a_later_version_is_an_error(tmp_path):
    path = rewritten(tmp_path, changed("format", to=3))
    with pytest.raises(
        FileError,
        match=r"written by relprop .*, in format 3; this version reads format 2\. Install a newer",
    ):
        relprop.load_explanation(path)


def test_what_was_there_stays_when_it_cannot_be_stored(tmp_path):
    path = tmp_path / "a.safetensors"
    explained().save(path)
    before = path.read_bytes()
    with pytest.raises(InputError):
        dataclasses.replace(explained(), output=torch.eye(3).to_sparse()).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]
