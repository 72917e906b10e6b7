"""Integers that are passed on as they are although an embedding looks them up: a warning names them."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from small_transformers import drawn

IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])
X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), **DOUBLE)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def of(self, ids: Any, x: Tensor) -> Tensor:
        return self.head((self.words(torch.as_tensor(ids)).mean(1) + self.body(x)).relu())


@dataclass
class Record:
    ids: Any


class Thing:
    def __init__(self, ids: Any) -> None:
        self.ids = ids


def explained(take: Callable[[Any], Any], given: Any) -> tuple[relprop.Explanation, list[str]]:
    """The explanation of words beside numbers, and what was said about inputs."""
    torch.manual_seed(1)
    model = drawn(Words())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        e = relprop.explain(lambda given, x: model.of(take(given), x), given, X, target=1, rules="epsilon")
    return e, [str(w.message) for w in said if "depends on input" in str(w.message)]


def itself(given: Any) -> Any:
    return given


def of_key(given: Any) -> Any:
    return given["ids"]


def of_attribute(given: Any) -> Any:
    return given.ids


def first(given: Any) -> Any:
    return given[0]


@pytest.mark.parametrize(
    ("take", "given", "name"),
    [
        (of_key, {"ids": IDS}, "given.ids"),
        (of_key, {"ids": IDS.short()}, "given.ids"),
        (lambda d: d["a"][0], {"a": [IDS.int()]}, "given.a[0]"),
        (of_attribute, Record(IDS), "given.ids"),
    ],
)
def test_tensors_in_dictionaries_and_dataclasses_are_ids(take: Any, given: Any, name: str) -> None:
    e, said = explained(lambda g: take(g).long(), given)
    expected, _ = explained(itself, IDS)
    assert list(e.inputs) == [name, "x"]
    assert said == []
    torch.testing.assert_close(e.inputs[name], expected.inputs["given"], rtol=1e-12, atol=0)


ARRAY = "it is a NumPy array; give a tensor: torch.as_tensor({})"
BESIDE = "it is in a list or an object beside other inputs; give it by itself"


@pytest.mark.parametrize(
    ("take", "given", "name", "reason"),
    [
        (first, [IDS], "given[0]", BESIDE),
        (lambda g: g[0][:, 1:], (IDS,), "given[0]", BESIDE),
        (of_attribute, Thing(IDS), "given.ids", BESIDE),
        (itself, IDS.numpy(), "given", ARRAY),
        (lambda g: torch.tensor(g), IDS.numpy(), "given", ARRAY),
        (lambda g: torch.as_tensor(g)[:, 1:], IDS.numpy(), "given", ARRAY),
        (of_key, {"ids": IDS.numpy().astype(np.int32)}, "given.ids", ARRAY),
        (of_attribute, Record(IDS.numpy()), "given.ids", ARRAY),
    ],
)
def test_what_is_passed_on_is_told(take: Any, given: Any, name: str, reason: str) -> None:
    e, said = explained(take, given)
    assert list(e.inputs) == ["x"]
    assert len(said) == 1
    where = re.escape(reason.format(name))
    assert re.fullmatch(
        rf"the score depends on input {re.escape(repr(name))}, which is not explained\. What it contributes "
        r"is in the ledger under 'parameters' or 'constant', or counts as that of other inputs\. It was not "
        rf"followed to an embedding: embedding in module '\(root\)' at .*: {where}\. If it shall not be "
        r"explained, bind it in a function: explain\(lambda x: model\(x, given=given\), x\)\.",
        said[0],
    )
    assert e.ledger.gap.max() < 1e-9


def test_what_the_warning_advises() -> None:
    expected, _ = explained(itself, IDS)
    e, said = explained(itself, torch.as_tensor(IDS.numpy()))
    assert said == []
    assert e.inputs["given"].equal(expected.inputs["given"])


@pytest.mark.parametrize(
    ("take", "given"),
    [
        (lambda g: IDS, {"ids": np.arange(6).reshape(2, 3)}),
        (lambda g: IDS * int(g[0][0, 0] > 0), [IDS + 3]),
        (of_key, {"ids": IDS, "position_ids": IDS.numpy()}),
        (of_key, {"ids": IDS, "names": np.array(["a", "b"])}),
    ],
)
def test_integers_that_nothing_looks_up_need_no_word(take: Any, given: Any) -> None:
    assert explained(take, given)[1] == []
