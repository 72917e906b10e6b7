"""Inputs in dictionaries, lists, tuples, dataclasses and other objects, and NumPy arrays."""

import copy
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.errors import InputError
from small_transformers import drawn

SAMPLES = 3


class Mixed(nn.Module):
    """A model of two tensors, which it takes out of its argument."""

    def __init__(self, take: Callable[[Any], tuple[Tensor, Tensor]] = lambda given: given) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(2, 5), nn.Linear(4, 5), nn.Linear(5, 3)
        self.take = take

    def forward(self, given: Any) -> Tensor:
        a, b = self.take(given)
        return self.out(torch.relu(self.a(a) + self.b(b)))


@dataclass(frozen=True)
class Observation:
    image: Tensor
    state: Tensor
    note: str = "a note"


class Graph:
    """An object that has its tensors in a store of its own, as batches of graphs have."""

    def __init__(self, **tensors: Tensor) -> None:
        self._store = UserDict(tensors)
        self._sizes = {"x": torch.arange(3)}
        self.itself = self

    def __getattr__(self, name: str) -> Any:
        if name == "_store":
            raise AttributeError(name)
        return self._store[name]


Pair = namedtuple("Pair", ["left", "right"])


def by_key(given: Any) -> tuple[Tensor, Tensor]:
    return given["image"], given["state"]


def by_attribute(given: Any) -> tuple[Tensor, Tensor]:
    return given.image, given.state


CONTAINERS: dict[str, tuple[Callable[..., Any], Callable[[Any], tuple[Tensor, Tensor]], list[str]]] = {
    "dict": (lambda a, b: {"image": a, "state": b}, by_key, ["given.image", "given.state"]),
    "ordered": (
        lambda a, b: OrderedDict(image=a, state=b, other=None),
        by_key,
        ["given.image", "given.state"],
    ),
    "user dict": (lambda a, b: UserDict(image=a, state=b), by_key, ["given.image", "given.state"]),
    "read only": (
        lambda a, b: MappingProxyType({"image": a, "state": b}),
        by_key,
        ["given.image", "given.state"],
    ),
    "keys": (
        lambda a, b: {"left eye": a, 3: b},
        lambda given: (given["left eye"], given[3]),
        ["given['left eye']", "given[3]"],
    ),
    "list": (lambda a, b: [a, b], tuple, ["given[0]", "given[1]"]),
    "tuple": (lambda a, b: (a, "text", b), lambda given: (given[0], given[2]), ["given[0]", "given[2]"]),
    "named tuple": (Pair, tuple, ["given.left", "given.right"]),
    "nested": (
        lambda a, b: {"views": [a], "more": {"state": (b, None)}},
        lambda given: (given["views"][0], given["more"]["state"][0]),
        ["given.views[0]", "given.more.state[0]"],
    ),
    "dataclass": (Observation, by_attribute, ["given.image", "given.state"]),
    "object": (
        lambda a, b: SimpleNamespace(image=a, state=b, path="a path"),
        by_attribute,
        ["given.image", "given.state"],
    ),
    "store": (lambda a, b: Graph(image=a, state=b), by_attribute, ["given.image", "given.state"]),
}


def tensors() -> tuple[Tensor, Tensor]:
    return torch.randn(SAMPLES, 2, **DOUBLE), torch.randn(SAMPLES, 4, **DOUBLE)


@pytest.mark.parametrize("rules", ["epsilon-plus-flat", "epsilon", "gradient-times-input"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_tensors_in_a_container_are_explained_in_place(kind: str, rules: str) -> None:
    make, take, names = CONTAINERS[kind]
    model, (a, b) = drawn(Mixed()), tensors()
    expected = relprop.explain(lambda a, b: model((a, b)), a, b, target=1, rules=rules)
    model.take = take
    given = make(a, b)
    before = [a.clone(), b.clone()]
    e = relprop.explain(model, given, target=1, rules=rules)
    assert list(e.inputs) == names
    for name, R in zip(names, expected.inputs.values(), strict=True):
        torch.testing.assert_close(e.inputs[name], R, rtol=0, atol=0)
    assert e.ledger.samples == SAMPLES
    # The caller's own object is as it was.
    for mine, tensor, value in zip(take(given), (a, b), before, strict=True):
        assert mine is tensor
        assert type(mine) is Tensor
        assert not mine.requires_grad
        assert torch.equal(mine, value)


def test_the_model_gets_the_kind_of_container_that_the_caller_has() -> None:
    a, b = tensors()
    for kind, (make, take, _) in CONTAINERS.items():
        given, seen = make(a, b), []

        def model(given: Any, seen: list[Any] = seen, take: Any = take) -> Tensor:
            seen.append(given)
            return torch.cat(take(given), 1)

        relprop.explain(model, given, target=0)
        assert type(seen[0]) is type(given), kind
        assert seen[0] is not given


def test_a_model_may_change_the_container_that_it_gets() -> None:
    def model(given: dict[str, Any]) -> Tensor:
        given["image"] = given["image"] * 2
        return given.pop("image") + given["more"].pop()

    a, b = torch.rand(SAMPLES, 2), torch.rand(SAMPLES, 2)
    given = {"image": a, "more": [b]}
    relprop.explain(model, given, target=0)
    assert given["image"] is a
    assert given["more"][0] is b


def test_dictionaries_are_explained_beside_other_inputs_and_tuples_are_not() -> None:
    def model(x: Tensor, more: dict[str, Tensor], state: tuple[Tensor, Tensor]) -> Tensor:
        return x + more["y"] + state[0] * state[1]

    x, y = torch.rand(SAMPLES, 2), torch.rand(SAMPLES, 2)
    e = relprop.explain(model, x, more={"y": y, "mask": torch.ones(3, dtype=torch.bool)}, state=(x, y))
    assert list(e.inputs) == ["x", "more.y"]


def test_masks_in_dictionaries_are_passed_on() -> None:
    def model(x: Tensor, attention_mask: dict[str, Tensor]) -> Tensor:
        return x + attention_mask["full"]

    e = relprop.explain(model, torch.rand(2, 3), attention_mask={"full": torch.zeros(2, 3)})
    assert list(e.inputs) == ["x"]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        mask = features["attention_mask"][..., None]
        return self.out((self.table(features["input_ids"]) * mask).sum(1))


def test_tokens_in_a_dictionary_are_explained_by_the_rules_for_tokens() -> None:
    ids, mask = torch.randint(20, (2, 5)), torch.ones(2, 5, dtype=torch.int64)
    model = drawn(Encoder())
    e = relprop.explain(model, {"input_ids": ids, "attention_mask": mask}, target=0)
    assert list(e.inputs) == ["features.input_ids"]
    assert e.preset == "cp-lrp"
    expected = relprop.explain(
        lambda input_ids: model({"input_ids": input_ids, "attention_mask": mask}), ids, target=0
    )
    assert torch.equal(e.relevance, expected.relevance)
    assert relprop.coverage(model, {"input_ids": ids, "attention_mask": mask}).complete


def test_what_a_tokenizer_returns_is_to_be_spread() -> None:
    table = nn.Embedding(20, 6)

    def model(input_ids: Tensor) -> Tensor:
        return table(input_ids).sum(1)

    tokens = {"input_ids": torch.randint(20, (2, 5))}
    with pytest.raises(InputError, match=r"Spread what a tokenizer returns: explain\(model, \*\*tokens\)"):
        relprop.explain(model, tokens)
    assert relprop.explain(model, **tokens).relevance.shape == (2, 5)  # as the message says


# ---- results ----


def test_names_in_containers_are_stored_and_indexed(tmp_path: Any) -> None:
    a, b = tensors()
    e = relprop.explain(drawn(Mixed(by_key)), {"image": a, "state": b})
    e.save(tmp_path / "e.safetensors")
    again = relprop.load_explanation(tmp_path / "e.safetensors")
    assert torch.equal(again.inputs["given.state"], e.inputs["given.state"])
    assert torch.equal(e[1].inputs["given.image"], e.inputs["given.image"][1:2])
    both = relprop.Explanation.concatenate([e[:1], e[1:]])
    assert torch.equal(both.inputs["given.state"], e.inputs["given.state"])


class Key:
    """A key of which several are written alike."""

    def __repr__(self) -> str:
        return "key"


def test_keys_that_are_written_alike_have_names_of_their_own() -> None:
    one, other = Key(), Key()
    given = {one: torch.rand(2, 3), other: torch.rand(2, 3)}
    e = relprop.explain(lambda d: d[one] + 2 * d[other], given, target=0)
    assert list(e.inputs) == ["d[key]", "d[key]'"]
    assert torch.allclose(e.inputs["d[key]'"][:, 0], 2 * given[other][:, 0])


def test_what_several_stores_share_is_named_with_its_store() -> None:
    class Stores:
        def __init__(self) -> None:
            self._nodes, self._edges = {"x": torch.rand(2, 3)}, {"x": torch.rand(2, 3)}

    e = relprop.explain(lambda data: data._nodes["x"] + data._edges["x"], Stores(), target=0)
    assert list(e.inputs) == ["data.x", "data._edges.x"]


def test_a_container_that_comes_twice_is_opened_once() -> None:
    obs = {"x": torch.rand(2, 3)}
    e = relprop.explain(lambda xs: xs[0]["x"] + xs[1]["x"], [obs, obs], target=0)
    assert list(e.inputs) == ["xs[0].x"]
    assert torch.allclose(e.relevance.sum(1), 2 * obs["x"][:, 0])


# ---- arrays ----


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ">f8"])
def test_arrays_are_explained_as_tensors(dtype: str) -> None:
    array = np.random.default_rng(0).normal(size=(2, 4)).astype(dtype)[:, ::-1]
    array.flags.writeable = False
    before, weight = array.copy(), torch.rand(4, 3)

    def model(x: Tensor) -> Tensor:
        return x @ weight.to(x.dtype)

    x = torch.from_numpy(array.astype(np.dtype(dtype).newbyteorder("=")).copy())
    e = relprop.explain(model, array, target=0)
    assert torch.equal(e.relevance, relprop.explain(model, x, target=0).relevance)
    assert e.relevance.dtype == x.dtype
    assert np.array_equal(array, before)


def test_arrays_in_dictionaries_are_explained_where_there_is_no_tensor() -> None:
    a, b = tensors()
    model = drawn(Mixed(by_key))
    expected = relprop.explain(model, {"image": a, "state": b}, target=0)
    arrays = {"image": a.numpy().copy(), "state": b.numpy().copy()}
    given = copy.copy(arrays)
    e = relprop.explain(model, given, target=0)
    assert all(torch.equal(R, expected.inputs[name]) for name, R in e.inputs.items())
    assert all(given[key] is arrays[key] for key in arrays)


def test_an_array_beside_a_tensor_is_passed_on_as_it_is() -> None:
    def model(x: Tensor, scale: np.ndarray[Any, Any]) -> Tensor:
        assert isinstance(scale, np.ndarray)
        return x * float(scale.sum())

    e = relprop.explain(model, torch.rand(2, 3), np.ones(3))
    assert list(e.inputs) == ["x"]


# ---- what is not explained ----


def test_pixels_of_whole_numbers_beside_other_inputs_are_warned_of() -> None:
    def model(obs: dict[str, Tensor]) -> Tensor:
        return obs["image"].float().flatten(1)[:, :3] / 255 + obs["state"]

    image = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    obs = {"image": image, "state": torch.rand(2, 3), "mask": torch.ones(2, 1, 3, dtype=torch.uint8)}
    with pytest.warns(
        UserWarning, match=r"depends on input 'obs\.image', which is not explained.* as x\.float\(\)"
    ):
        e = relprop.explain(model, obs, target=0)
    assert list(e.inputs) == ["obs.state"]
    e = relprop.explain(model, {**obs, "image": image.float()}, target=0)  # as the message says
    assert list(e.inputs) == ["obs.image", "obs.state"]
    relprop.explain(lambda obs: obs["state"] * obs["mask"][:, 0], obs, target=0)  # without a warning
