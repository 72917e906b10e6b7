"""What has to be the same to the last bit: two explanations, or the weights of two models."""

from collections.abc import Mapping

import torch
from torch import Tensor

import relprop


def same(a: relprop.Explanation, b: relprop.Explanation) -> None:
    assert torch.equal(a.relevance, b.relevance)
    assert str(a.ledger) == str(b.ledger)
    assert a.rules == b.rules
    assert a.inner.keys() == b.inner.keys()
    for path, calls in a.inner.calls.items():
        for one, other in zip(calls, b.inner.calls[path], strict=True):
            assert isinstance(one, Tensor) == isinstance(other, Tensor)
            for R, S in zip(
                [one] if isinstance(one, Tensor) else one,
                [other] if isinstance(other, Tensor) else other,
                strict=True,
            ):
                assert torch.equal(R, S)
    for name in a.parameters:
        assert torch.equal(a.parameters[name], b.parameters[name])


def same_values(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Tell whether two models have the same names of weights and the same values."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
