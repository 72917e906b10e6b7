"""Operations that are explained as other operations that compute the same: in every sum and every share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import assert_same, same_relevance
from networks import DOUBLE, linear
from relprop.errors import CoverageError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

N, C = 3, 6
BOUND, OTHER = (
    torch.tensor([0.3, -0.5, 1.0, 0.0, 0.2, -1.0], **DOUBLE),
    torch.linspace(-2, 2, N * C, **DOUBLE),
)
OTHER = OTHER.view(N, C)
CUBE = torch.randn(5, C, C, generator=torch.Generator().manual_seed(2), **DOUBLE)
ADJACENT = torch.tensor([[1.0, 0.0, 0.5], [-0.7, 0.2, 0.0], [0.0, 0.0, 2.0]], **DOUBLE)
WEIGHT = CUBE[0] * (CUBE[1] > 0)

RULES = [Epsilon(0.1), ZPlus(), Gamma(0.3), AlphaBeta(2, 1), Flat(), "attnlrp", "cp-lrp"]


def clamped_one_by_one(h: Tensor) -> Tensor:
    return torch.stack([h[:, i].clamp(min=float(BOUND[i])) for i in range(C)], 1)


def softplus_of_a_ratio(h: Tensor) -> Tensor:
    two = torch.tensor(2.0, **DOUBLE).log()
    return torch.logaddexp2(h / two, torch.zeros(C, **DOUBLE)) * two


GROUP = torch.tensor([0, 0, 1, 1, 1, 1])
WRITTEN = torch.tensor([0, 2, 1, 0, 2, 1])


def softmax_by(total: Callable[[Tensor], Tensor], shift: bool = False) -> Callable[[Tensor], Tensor]:
    """The softmax of each group of columns, given how exponentials are added, and spread to the columns."""

    def softmax(h: Tensor) -> Tensor:
        scores = h
        if shift:
            largest = h.new_full((N, 2), -torch.inf).index_reduce(1, GROUP, h, "amax")
            scores = h - largest[:, GROUP]
        raised = torch.exp(scores)
        return raised / total(raised)

    return softmax


PAIRS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "softmax of groups": (
        lambda h: torch.cat([h[:, :2].softmax(1), h[:, 2:].softmax(1)], 1),
        softmax_by(lambda e: e.new_zeros(N, 2).index_add(1, GROUP, e)[:, GROUP]),
        softmax_by(lambda e: (e.new_zeros(N, 2).index_add(1, GROUP, e) + 1e-16)[:, GROUP], shift=True),
        softmax_by(
            lambda e: e.new_zeros(N, 2).scatter_add_(1, GROUP.expand(N, C), e).gather(1, GROUP.expand(N, C))
        ),
        softmax_by(
            lambda e: (
                e.new_zeros(N, 2)
                .scatter_reduce(1, GROUP.expand(N, C), e, "sum")
                .index_select(1, GROUP)
                .clamp(min=1e-9)
            )
        ),
        softmax_by(
            lambda e: torch.segment_reduce(e, "sum", lengths=torch.tensor([[2, 4]] * N), axis=1)[:, GROUP]
        ),
        softmax_by(
            lambda e: e.new_zeros(N, 2).index_put((torch.arange(N)[:, None], GROUP), e, accumulate=True)[
                :, GROUP
            ]
        ),
    ),
    "a power for each element": (
        lambda h: h.relu() ** (BOUND.abs() + 0.5),
        lambda h: torch.stack([h[:, i].relu() ** (float(BOUND[i].abs()) + 0.5) for i in range(C)], 1),
        lambda h: h.relu().pow(nn.Parameter(BOUND.abs() + 0.5)),
    ),
    "a power for each row of one column": (
        lambda h: h[:, :1].abs() ** (BOUND.abs() + 0.5),
        lambda h: torch.stack([h[:, 0].abs() ** (float(b.abs()) + 0.5) for b in BOUND], 1),
    ),
    "columns that are written twice": (
        lambda h: torch.stack([h[:, 3], h[:, 5], h[:, 4], OTHER[:, 3]], 1),
        lambda h: OTHER[:, :4].index_copy(1, WRITTEN, h),
        lambda h: OTHER[:, :4].scatter(1, WRITTEN.expand(N, C), h),
        lambda h: torch.index_put(OTHER[:, :4].T, (WRITTEN,), h.T).T,
        lambda h: torch.index_put(OTHER[:, :4], (torch.arange(N)[:, None], WRITTEN), h),
        lambda h: OTHER[:, :4].put(torch.arange(N)[:, None] * 4 + WRITTEN, h),
    ),
    "log_softmax": (
        lambda h: h.log_softmax(-1),
        lambda h: h - h.logsumexp(-1, keepdim=True),
        lambda h: h.softmax(-1).log(),
        lambda h: torch.log(h.exp() / h.exp().sum(-1, keepdim=True)),
    ),
    "logsumexp": (
        lambda h: h + h.logsumexp(1, keepdim=True),
        lambda h: h + h.exp().sum(1, keepdim=True).log(),
        lambda h: h + h.exp().sum(1).log()[:, None],
        lambda h: (
            h + ((h - h.amax(1, keepdim=True)).exp().sum(1, keepdim=True).log() + h.amax(1, keepdim=True))
        ),
    ),
    "logcumsumexp": (
        lambda h: h.logcumsumexp(1),
        lambda h: torch.stack([h[:, : i + 1].logsumexp(1) for i in range(C)], 1),
    ),
    "logaddexp": (
        lambda h: torch.logaddexp(h, h.flip(1)),
        lambda h: torch.stack([h, h.flip(1)]).logsumexp(0),
        lambda h: torch.logaddexp2(h / two(), h.flip(1) / two()) * two(),
    ),
    "logaddexp with a constant": (
        F.softplus,
        lambda h: torch.logaddexp(h, torch.zeros(C, **DOUBLE)),
        lambda h: torch.logaddexp(torch.zeros((), **DOUBLE), h),
        softplus_of_a_ratio,
        lambda h: torch.log(1 + h.exp()),
    ),
    "logit": (lambda h: h, lambda h: torch.logit(h.sigmoid()), lambda h: h.sigmoid().logit(1e-9)),
    "logit with a floor": (
        lambda h: h.logit(0.1),
        lambda h: (h.clamp(0.1, 0.9) / (1 - h.clamp(0.1, 0.9))).log(),
    ),
    "xlogy": (lambda h: torch.xlogy(h, h.exp() + 1), lambda h: h * torch.log(h.exp() + 1)),
    "xlog1py": (lambda h: torch.special.xlog1py(h, h.exp()), lambda h: h * torch.log1p(h.exp())),
    "entropy": (
        lambda h: torch.special.entr(h.sigmoid()),
        lambda h: -h.sigmoid() * h.sigmoid().log(),
    ),
    "signs": (lambda h: h / h.abs(), lambda h: h / h.abs().detach(), lambda h: h * (h * h).rsqrt()),
    "clamp between tensors": (
        clamped_one_by_one,
        lambda h: h.clamp(min=BOUND),
        lambda h: h.clamp_min(BOUND),
        lambda h: torch.maximum(h, BOUND),
        lambda h: torch.max(BOUND, h),
        lambda h: -torch.fmin(-h, -BOUND),
        lambda h: h.clamp(BOUND, torch.full((C,), torch.inf, **DOUBLE)),
    ),
    "clamp between numbers in tensors": (
        lambda h: h.clamp(-0.5, 0.5),
        lambda h: h.clamp(torch.full((C,), -0.5, **DOUBLE), torch.full((C,), 0.5, **DOUBLE)),
    ),
    "clamp by what depends on the input": (
        lambda h: h.clamp(min=h.flip(1)),
        lambda h: torch.maximum(h, h.flip(1)),
    ),
    "clamp of a constant": (
        lambda h: OTHER.clamp(h, h.abs() + 1),
        lambda h: torch.minimum(torch.maximum(OTHER, h), h.abs() + 1),
    ),
    "threshold": (lambda h: F.threshold(h, 0.1, 2.0), lambda h: torch.where(h > 0.1, h, 2.0)),
    "frac": (lambda h: h.frac(), lambda h: h - h.trunc()),
    "fmod": (lambda h: h.fmod(0.3), lambda h: h - (h / 0.3).trunc() * 0.3),
    "remainder": (lambda h: h % OTHER, lambda h: h - torch.div(h, OTHER, rounding_mode="floor") * OTHER),
    "copysign": (lambda h: h.copysign(OTHER), lambda h: h.abs() * OTHER.sign()),
    "degrees": (torch.rad2deg, lambda h: h * (180 / torch.pi)),
    "fake quantisation": (
        lambda h: torch.fake_quantize_per_tensor_affine(h, 0.125, 2, -8, 7),
        lambda h: (
            (((h * 8 + 2).round().clamp(-8, 7) - 2) / 8 - h.clamp(-1.25, 0.625)).detach()
            + h.clamp(-1.25, 0.625)
        ),
    ),
    "polar": (
        lambda h: torch.view_as_real(torch.polar(h.abs(), h.flip(1))).flatten(1),
        lambda h: torch.stack([h.abs() * h.flip(1).cos(), h.abs() * h.flip(1).sin()], 2).flatten(1),
    ),
    "renorm": (
        lambda h: h.renorm(2, 1, 0.5),
        lambda h: h * (0.5 / (h.norm(dim=0, keepdim=True).detach() + 1e-7)).clamp(max=1),
    ),
    "statistics together": (
        lambda h: torch.cat([h.var(1, keepdim=True), h.mean(1, keepdim=True)], 1),
        lambda h: torch.cat(torch.var_mean(h, 1, keepdim=True), 1),
        lambda h: torch.cat(torch.var_mean(h, 1, correction=1, keepdim=True), 1),
    ),
    "blocks": (
        lambda h: torch.stack([torch.block_diag(t[None], BOUND[None]) for t in h]),
        lambda h: torch.stack([torch.cat([F.pad(t[None], (0, C)), F.pad(BOUND[None], (C, 0))]) for t in h]),
    ),
    "put": (
        lambda h: h.put(torch.tensor([1, 4]), torch.ones(2, **DOUBLE)),
        lambda h: h.flatten().index_put((torch.tensor([1, 4]),), torch.ones(2, **DOUBLE)).view(N, C),
    ),
    "means of segments": (
        lambda h: torch.segment_reduce(h, "mean", lengths=torch.tensor([[2, 4]] * N), axis=1),
        lambda h: torch.stack([h[:, :2].mean(1), h[:, 2:].mean(1)], 1),
        lambda h: h.new_zeros(N, 2).scatter_reduce(
            1, torch.tensor([[0, 0, 1, 1, 1, 1]] * N), h, "mean", include_self=False
        ),
    ),
    "maxima of segments": (
        lambda h: torch.segment_reduce(h, "max", lengths=torch.tensor([[2, 4]] * N), axis=1),
        lambda h: torch.stack([h[:, :2].amax(1), h[:, 2:].amax(1)], 1),
        lambda h: h.new_zeros(N, 2).index_reduce(
            1, torch.tensor([0, 0, 1, 1, 1, 1]), h, "amax", include_self=False
        ),
    ),
    "maxima of segments, each of two equal elements": (
        lambda h: torch.segment_reduce(twice(h), "max", lengths=torch.tensor([4, 8])).T,
        lambda h: torch.segment_reduce(twice(h), "max", offsets=torch.tensor([0, 4, 12])).T,
        lambda h: torch.stack([twice(h)[:4].amax(0), twice(h)[4:].amax(0)]).T,
        lambda h: torch.stack([h[:, :2].amax(1), h[:, 2:].amax(1)], 1),
    ),
    "minima of segments": (
        lambda h: torch.segment_reduce(twice(h), "min", lengths=torch.tensor([4, 8])).T,
        lambda h: -torch.segment_reduce(-twice(h), "max", lengths=torch.tensor([4, 8])).T,
    ),
    "bilinear": (
        lambda h: F.bilinear(h, h.flip(1), CUBE, BOUND[:5]),
        lambda h: F.linear((h[:, :, None] * h.flip(1)[:, None]).flatten(1), CUBE.flatten(1), BOUND[:5]),
        lambda h: torch.ops.aten._trilinear(h, CUBE, h.flip(1), [1, 3], [0], [1, 2], [2, 3]) + BOUND[:5],
    ),
    "bilinear with a constant": (
        lambda h: F.bilinear(OTHER, h, CUBE),
        lambda h: F.linear((OTHER[:, :, None] * h[:, None]).flatten(1), CUBE.flatten(1)),
    ),
    "pairwise distance": (
        lambda h: torch.stack([F.pairwise_distance(h, h.roll(i, 1)) for i in (1, 2)], 1),
        lambda h: torch.stack([torch.linalg.vector_norm(h - h.roll(i, 1) + 1e-6, 2, -1) for i in (1, 2)], 1),
    ),
    "cosine similarity": (
        lambda h: F.cosine_similarity(h, h.roll(1, 1))[:, None],
        lambda h: (F.normalize(h) * F.normalize(h.roll(1, 1))).sum(1, keepdim=True),
        lambda h: torch.einsum("nc,nc->n", h / h.norm(dim=1)[:, None], F.normalize(h.roll(1, 1)))[:, None],
    ),
    "distances": (
        lambda h: torch.cdist(h, OTHER[:2]),
        lambda h: torch.cdist(h[:, None], OTHER[None, :2].expand(N, -1, -1))[:, 0],
        lambda h: (h[:, None] - OTHER[None, :2]).norm(dim=-1),
    ),
    "a trilinear form": (
        lambda h: torch.ops.aten._trilinear(h, WEIGHT, h.flip(1), [2], [0], [1], [2]),
        lambda h: torch.einsum("ni,ij,nj->ni", h, WEIGHT, h.flip(1)),
    ),
    "a weight that depends on the input": (
        lambda h: F.linear(h, h @ h.T @ h),
        lambda h: h @ (h @ h.T @ h).T,
    ),
    "a bias that depends on the input": (
        lambda h: F.linear(h, CUBE[0], h[0]),
        lambda h: F.linear(h, CUBE[0]) + h[0],
    ),
    "a convolution whose weight depends on the input": (
        lambda h: F.conv1d(h.reshape(1, N * C, 1), outer(h), groups=N).view(N, C),
        lambda h: torch.bmm(h[:, None], outer(h).view(N, C, C).mT)[:, 0],
        lambda h: torch.ops.aten.convolution(
            h.reshape(1, N * C, 1), outer(h), None, [1], [0], [1], False, [0], N
        ).view(N, C),
    ),
    "a convolution whose bias depends on the input": (
        lambda h: F.conv1d(h[:, :, None], CUBE[0][:, :, None], h[0])[..., 0],
        lambda h: F.conv1d(h[:, :, None], CUBE[0][:, :, None])[..., 0] + h[0],
    ),
}
"""A function of (N, C), and other ways to compute it."""


def two() -> Tensor:
    return torch.tensor(2.0, **DOUBLE).log()


def twice(h: Tensor) -> Tensor:
    """Each element of a sample twice, one after the other, with the samples last."""
    return h.T.repeat_interleave(2, 0)


def outer(h: Tensor) -> Tensor:
    """A matrix (C, C) of each sample, as the weight of a convolution in N groups."""
    return (h[:, :, None] * h.flip(1)[:, None]).reshape(N * C, C, 1)


def wrapped(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function between two layers, which are the same in every call."""
    torch.manual_seed(1)
    first, x = linear(5, C), torch.zeros(N, C, **DOUBLE)
    last = linear(function(x.abs() + 1).reshape(N, -1).shape[1], 3)
    return lambda x: last(function(first(x)).reshape(N, -1))


def explained(function: Callable[[Tensor], Tensor], rules: Any) -> relprop.Explanation:
    x = torch.randn(N, 5, generator=torch.Generator().manual_seed(4), **DOUBLE)
    return relprop.explain(wrapped(function), x, target=1, rules=rules)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_a_function_is_explained_as_what_computes_the_same(name: str, rules: Any) -> None:
    one, *others = PAIRS[name]
    expected = explained(one, rules)
    assert expected.relevance.any()
    for other in others:
        found = explained(other, rules)
        assert_same(found, expected)
        for sink in {*found.ledger.absorbed, *expected.ledger.absorbed}:
            a, b = (e.ledger.absorbed.get(sink, torch.zeros(N, **DOUBLE)) for e in (found, expected))
            torch.testing.assert_close(a.sum(), b.sum(), rtol=1e-9, atol=1e-9)


# ---- sparse matrices ----

SPARSE = {
    "coo": lambda matrix: matrix.to_sparse(),
    "csr": lambda matrix: matrix.to_sparse_csr(),
    "csc": lambda matrix: matrix.to_sparse_csc(),
}

PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sparse.mm": torch.sparse.mm,
    "operator": lambda a, h: a @ h,
    "matmul": torch.matmul,
    "method": lambda a, h: a.mm(h),
    "sparse.addmm": lambda a, h: torch.sparse.addmm(OTHER[:, :1], a, h),
    "addmm": lambda a, h: torch.addmm(OTHER[:, :1], a, h, beta=2),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", SPARSE)
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_sparse_matrix_is_a_dense_one(product: str, layout: str) -> None:
    """For all rules but flat, for which what is not stored is not connected."""
    layer, sparse = linear(5, C), SPARSE[layout](ADJACENT)
    if "addmm" in product and layout == "csc":
        pytest.skip("torch has no such product")
    dense = {
        "sparse.addmm": lambda h: ADJACENT @ h + OTHER[:, :1],
        "addmm": lambda h: ADJACENT @ h + 2 * OTHER[:, :1],
    }.get(product, lambda h: ADJACENT @ h)
    x = torch.randn(N, 5, **DOUBLE)
    for rules in (Epsilon(0.1), ZPlus(), Gamma(0.3), AlphaBeta(2, 1), WSquare(), "attnlrp"):
        same_relevance(
            lambda x: PRODUCTS[product](sparse, layer(x)), lambda x: dense(layer(x)), x, rules, target=1
        )


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", SPARSE)
@pytest.mark.parametrize("product", [torch.sparse.mm, torch.matmul])
@pytest.mark.parametrize("rules", [Epsilon(0.1), ZPlus(), Flat(), "attnlrp", "gradient-times-input"])
def test_a_sparse_matrix_of_edges_that_the_model_gets_is_a_sum_of_messages(
    layout: str, rules: Any, product: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Without a warning of the edges, which are no ids."""
    layer, x, edges = linear(5, C), torch.randn(N, 5, **DOUBLE), torch.randint(N, (2, 9))
    weights = torch.randn(9, **DOUBLE)

    def messages(x: Tensor, edges: Tensor) -> Tensor:
        sent = weights[:, None] * layer(x)[edges[1]]
        return torch.ones(N, C, **DOUBLE).index_add(0, edges[0], sent)

    def by_matrix(x: Tensor, edges: Tensor) -> Tensor:
        matrix = torch.sparse_coo_tensor(edges, weights, (N, N), check_invariants=False).coalesce()
        made = {"coo": matrix.clone, "csr": matrix.to_sparse_csr, "csc": matrix.to_sparse_csc}[layout]()
        h = product(made, layer(x))
        return h + h.new_zeros(N, C).fill_(1.0)  # which is written while the matrix is kept

    found, expected = (
        relprop.explain(model, x, edges, target=lambda y: y[:, 1].sum(), rules=rules)
        for model in (by_matrix, messages)
    )
    torch.testing.assert_close(found.relevance, expected.relevance)
    assert found.ledger.gap.max() < 1e-12


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_a_sparse_matrix_stands_last_or_meets_a_vector() -> None:
    x, matrix = torch.randn(N, C, **DOUBLE), WEIGHT.to_sparse_csr()
    same_relevance(lambda x: x @ matrix, lambda x: x @ WEIGHT, x, ZPlus(), target=1)
    vector = WEIGHT.to_sparse() @ torch.ones(C, **DOUBLE)
    same_relevance(lambda x: x * vector, lambda x: x * (WEIGHT @ torch.ones(C, **DOUBLE)), x, target=1)


def test_flat_shares_among_the_stored_elements() -> None:
    x, adjacent = torch.rand(N, 2, **DOUBLE), ADJACENT.to_sparse()
    e = relprop.explain(lambda x: torch.sparse.mm(adjacent, x), x, target=0, rules=Flat())
    stored = (ADJACENT != 0).double()
    expected = (stored / stored.sum(1, keepdim=True)).T @ (ADJACENT @ x)[:, 0]
    torch.testing.assert_close(e.relevance, torch.stack([expected, torch.zeros(N, **DOUBLE)], 1))


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", SPARSE)
def test_a_sparse_matrix_may_be_an_argument(layout: str) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(5, 4)

        def forward(self, x: Tensor, adjacent: Tensor) -> Tensor:
            return torch.sparse.mm(adjacent, self.layer(x))

    model, x, sparse = Graph().eval(), torch.randn(N, 5, **DOUBLE), SPARSE[layout](ADJACENT)
    given = relprop.explain(model, x, sparse, target=1, rules=Epsilon(0.1))
    bound = relprop.explain(lambda x: model(x, sparse), x, target=1, rules=Epsilon(0.1))
    named = relprop.explain(model, x, target=1, rules=Epsilon(0.1), kwargs={"adjacent": sparse})
    assert list(given.inputs) == ["x"]
    for e in (given, named):
        torch.testing.assert_close(e.relevance, bound.relevance)
        assert e.rules == bound.rules


# ---- spectrograms, quantised networks, statistics ----


def test_a_masked_spectrogram_is_its_matrix() -> None:
    """stft and istft are linear: relevance is the gradient times the input."""
    window, layer = torch.hann_window(8, **DOUBLE), linear(24, 3)

    def model(x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 8, 2, window=window, return_complex=True)
        return layer(torch.istft(spectrum * MASK, 8, 2, window=window))

    x = torch.randn(2, 24, **DOUBLE)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    e = relprop.explain(model, x, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.relevance, gradient * x)
    assert e.ledger.gap.max() < 1e-12


MASK = torch.rand(5, 1, generator=torch.Generator().manual_seed(3), **DOUBLE)


def test_a_mask_of_the_spectrogram_is_a_gate() -> None:
    window, layer = torch.hann_window(8, **DOUBLE), linear(24, 3)

    def model(x: Tensor, *, detached: bool = False) -> Tensor:
        spectrum = torch.stft(x, 8, 2, window=window, return_complex=True)
        mask = torch.sigmoid(spectrum.abs())
        return layer(torch.istft(spectrum * (mask.detach() if detached else mask), 8, 2, window=window))

    same_relevance(
        model, lambda x: model(x, detached=True), torch.randn(2, 24, **DOUBLE), Epsilon(0), target=1
    )


@pytest.mark.parametrize("rules", [Epsilon(0.1), ZPlus(), "attnlrp"], ids=str)
def test_fake_quantisation_of_each_channel_is_a_clamp_and_a_constant(rules: Any) -> None:
    scale, zero = torch.tensor([0.125, 0.25, 0.5] * 2), torch.arange(-3, 3)
    layer, last = nn.Linear(5, C), nn.Linear(C, 3)

    def written(h: Tensor) -> Tensor:
        steps = (h / scale + zero).round().clamp(-8, 7)
        clamped = h.clamp((-8 - zero) * scale, (7 - zero) * scale)
        return clamped + ((steps - zero) * scale - clamped).detach()

    def kernel(h: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(h, scale, zero.int(), 1, -8, 7)

    x = 3 * torch.randn(N, 5)
    found, expected = (
        relprop.explain(lambda x, f=f: last(f(layer(x))), x, target=1, rules=rules) for f in (kernel, written)
    )
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.relevance, expected.relevance)
    assert found.ledger.absorbed["constant"].all()


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:Please use quant_min")
def test_a_network_that_is_trained_for_quantisation_is_explained() -> None:
    from torch.ao import quantization

    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).train()
    net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    prepared, x = quantization.prepare_qat(net), torch.randn(8, 5)
    prepared(x)
    prepared.eval().apply(quantization.disable_observer)
    e = relprop.explain(prepared, x, target=1, rules=Epsilon(0))
    assert torch.equal(e.output, prepared(x))
    assert e.ledger.gap.max() < 1e-5
    assert e.relevance.any(1).all()
    # Rounding is a constant, and a clamp passes all, so that what is missing to the seed is in the ledger.
    assert {*e.ledger.absorbed} <= {"bias", "constant", "pointwise", "epsilon", "no contribution"}


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:Please use quant_min")
@pytest.mark.filterwarnings("ignore:.*TypedStorage", "ignore:torch.quantize_per_tensor")
def test_a_quantised_network_is_refused_with_a_remedy() -> None:
    from torch.ao import quantization

    layers, x = [nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)], torch.randn(8, 5)
    static = nn.Sequential(quantization.QuantStub(), *layers, quantization.DeQuantStub()).eval()
    static.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(static)
    prepared(x)
    converted = quantization.convert(prepared).eval()
    with pytest.raises(
        CoverageError, match=r"quantize_per_tensor in module '0' .*explain the model before con"
    ):
        relprop.explain(converted, x, target=1, rules=Epsilon(0))


def test_a_log_of_a_statistic_is_a_statistic() -> None:
    layer, last, x = linear(5, C), linear(C, 3), torch.randn(N, 5, **DOUBLE)

    def model(x: Tensor, *, detached: bool = False, floor: float = 0.0) -> Tensor:
        h = layer(x)
        scale = torch.log((h.var(1, keepdim=True) + floor) if floor else h.var(1, keepdim=True))
        return last(h * (scale.detach() if detached else scale))

    for floor in (0.0, 0.1):
        same_relevance(
            lambda x, floor=floor: model(x, floor=floor),
            lambda x, floor=floor: model(x, floor=floor, detached=True),
            x,
            Epsilon(0.1),
            target=1,
        )


def test_a_log_variance_with_a_floor_is_a_feature() -> None:
    """R of the log is what it has beyond log(ε), and arrives at the elements as that of a variance does."""
    x = torch.randn(N, 4, 8, **DOUBLE)
    e = relprop.explain(lambda x: (x.var(2) + 0.1).log(), x, target=1, rules=Epsilon(0))
    variance = x.var(2, keepdim=True)
    expected = ((variance + 0.1).log() - BOUND.new_tensor(0.1).log()) * x * (x - x.mean(2, keepdim=True))
    expected = expected / (7 * variance)
    torch.testing.assert_close(e.relevance[:, 1], expected[:, 1])
    assert not e.relevance[:, [0, 2, 3]].any()
    torch.testing.assert_close(e.ledger.absorbed["pointwise"], BOUND.new_full((N,), 0.1).log())


def test_overlapping_windows_share_what_they_had_in_common() -> None:
    x = torch.tensor([[[1.0, 5.0, 2.0, 4.0, 3.0]]], **DOUBLE)

    def model(x: Tensor) -> Tensor:
        values, places = F.max_pool1d(x, 3, 1, return_indices=True)
        return F.max_unpool1d(values, places, 3, 1).flatten(1)

    e = relprop.explain(model, x, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.relevance, torch.tensor([[[0.0, 5.0, 0.0, 0.0, 0.0]]], **DOUBLE))


def test_the_number_of_elements_that_are_not_zero_is_a_constant() -> None:
    x = torch.randn(N, C, **DOUBLE)
    same_relevance(lambda x: x / x.norm(0, dim=1, keepdim=True), lambda x: x / C, x, Epsilon(0), target=1)
