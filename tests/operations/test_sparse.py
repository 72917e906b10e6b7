"""Sparse matrices whose elements depend on the input are explained as the same dense matrices."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from networks import DOUBLE, linear
from relprop.errors import CoverageError

N, C = 3, 6
EDGES = torch.tensor([[0, 0, 1, 2, 2, 2], [1, 2, 0, 0, 1, 1]])  # sorted by their ends, one of them twice
ROWS = torch.tensor([0, 2, 3, 6])


def coo(weights: Tensor, edges: Tensor = EDGES) -> Tensor:
    return torch.sparse_coo_tensor(edges, weights, (N, N), check_invariants=False)


class OwnProduct(torch.autograd.Function):
    """A product with a sparse matrix that has a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, h: Tensor) -> Tensor:
        matrix = coo(weights)
        ctx.save_for_backward(matrix, h)
        return torch.matmul(matrix, h)


WEIGHED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "coo": lambda w, h: coo(w) @ h,
    "coalesced": lambda w, h: torch.sparse.mm(coo(w).coalesce(), h),
    "csr": lambda w, h: torch.sparse_csr_tensor(ROWS, EDGES[1], w, (N, N)) @ h,
    "csr without its size": lambda w, h: torch.sparse_csr_tensor(ROWS, EDGES[1], w) @ h,
    "csc": lambda w, h: torch.sparse_csc_tensor(ROWS, EDGES[1], w, (N, N)).t() @ h,
    "transposed": lambda w, h: coo(w, EDGES.flip(0)).t() @ h,
    "a vector": lambda w, h: torch.stack([coo(w) @ column for column in h.unbind(1)], 1),
    "dense": lambda w, h: coo(w).to_dense() @ h,
    "in a function": lambda w, h: OwnProduct.apply(w, h),
    "addmm": lambda w, h: torch.sparse.addmm(torch.zeros_like(h), coo(w), h),
    "of a dense one": lambda w, h: dense(w).to_sparse() @ h,
    "if it is no unique one": lambda w, h: (m if (m := coo(w)).is_coalesced() else m.coalesce()) @ h,
}


def dense(weights: Tensor) -> Tensor:
    places = (EDGES[0], EDGES[1])
    return torch.zeros(N, N, **DOUBLE).index_put(places, weights, accumulate=True)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus-flat", "cp-lrp", "attnlrp"])
def test_a_sparse_matrix_that_depends_on_the_input_is_a_dense_one(rules: str) -> None:
    layer, x, weights = linear(5, C), torch.randn(N, 5, **DOUBLE), torch.rand(6, **DOUBLE)

    def explained(product: Callable[[Tensor, Tensor], Tensor]) -> relprop.Explanation:
        e = relprop.explain(
            lambda x, w: product(2 * w, F.relu(layer(x))),
            x,
            weights,
            target=lambda y: y[:, 1].sum(),
            rules=rules,
        )
        assert e.ledger.gap.max() < 1e-12
        return e

    expected = explained(lambda w, h: dense(w) @ h)
    assert expected.inputs["w"].all()
    for product in WEIGHED.values():
        for name, R in explained(product).inputs.items():
            torch.testing.assert_close(R, expected.inputs[name], rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("rules", ["epsilon", "cp-lrp", "attnlrp"])
def test_softmax_and_sum_of_a_sparse_matrix(rules: str) -> None:
    layer, score, x = linear(5, C), linear(2 * C, 1), torch.randn(N, 5, **DOUBLE)
    edges, outside = (
        EDGES[:, :4],
        torch.tensor([[True, False, False], [False, True, True], [False, True, True]]),
    )

    def scores(h: Tensor) -> Tensor:
        return score(torch.cat([h[edges[0]], h[edges[1]]], 1))[:, 0]

    def by_sparse(x: Tensor) -> Tensor:
        h = layer(x)
        return torch.sparse.softmax(coo(scores(h), edges), 1) @ h

    def by_dense(x: Tensor) -> Tensor:
        h = layer(x)
        full = torch.zeros(N, N, **DOUBLE).index_put((edges[0], edges[1]), scores(h), accumulate=True)
        return full.masked_fill(outside, -torch.inf).softmax(1) @ h

    def by_sum(x: Tensor) -> Tensor:
        h = layer(x)
        matrix = coo(scores(h).exp(), edges)
        return (matrix @ h) / torch.sparse.sum(matrix, 1).to_dense()[:, None]

    def by_dense_sum(x: Tensor) -> Tensor:
        h = layer(x)
        matrix = torch.zeros(N, N, **DOUBLE).index_put((edges[0], edges[1]), scores(h).exp())
        return (matrix @ h) / matrix.sum(1)[:, None]

    for sparse, other in ((by_sparse, by_dense), (by_sum, by_dense_sum)):
        found, expected = (
            relprop.explain(model, x, target=lambda y: y[:, 1].sum(), rules=rules).relevance
            for model in (sparse, other)
        )
        assert expected.any()
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda m: m.coalesce().values(), "stores no elements; use the values that it is made of"),
        (lambda m: m._values(), "stores no elements"),
        (lambda m: torch.sparse.softmax(m * 2, 1).to_dense(), "what it stores is no longer known"),
        (lambda m: torch.sparse.softmax(m.t(), 1).to_dense(), "what it stores is no longer known"),
    ],
)
def test_what_a_dense_matrix_does_not_tell(read: Callable[[Tensor], Tensor], told: str) -> None:
    with pytest.raises(CoverageError, match=told):
        relprop.explain(lambda w: read(coo(w[:, 0])).sum(), torch.rand(6, 1, **DOUBLE), target=lambda y: y)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_matrix_that_is_too_large_to_be_dense_says_what_to_write() -> None:
    n, d, w, h = 20_000, 2, torch.rand(6, 1, **DOUBLE), torch.randn(20_000, 2, **DOUBLE)

    def large(w: Tensor) -> Tensor:
        return (torch.sparse_coo_tensor(EDGES, w[:, 0], (n, n), check_invariants=False) @ h)[:N]

    with pytest.raises(CoverageError, match=r"\(20000, 20000\) is too large; write") as caught:
        relprop.explain(large, w, target=lambda y: y.sum())
    line = re.search(r"as by (torch\..*)$", str(caught.value))
    assert line is not None
    names = {"torch": torch, "n": n, "d": d, "rows": EDGES[0], "columns": EDGES[1], "h": h}

    def written(w: Tensor) -> Tensor:
        return eval(
            line[1].replace("zeros(n, d)", "zeros(n, d, dtype=h.dtype)"), {**names, "values": w[:, 0]}
        )[:N]

    e = relprop.explain(written, w, target=lambda y: y.sum())
    torch.testing.assert_close(e.relevance, w * h.sum(1)[EDGES[1], None])
