"""Operations that language models bring: products of activations, experts, gates, activations, norms."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, Experts, close
from relprop.errors import CoverageError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, SignalTakesAll, Uniform, WSquare, ZPlus

N, T, D = 2, 4, 6

Function = Callable[..., Tensor]

PRODUCT_RULES: dict[str, Any] = {"attnlrp": "attnlrp", "cp-lrp": "cp-lrp", "none": Epsilon(0)}
each_rule = pytest.mark.parametrize("rules", PRODUCT_RULES.values(), ids=PRODUCT_RULES)

LINEAR_RULES = [Epsilon(0.1), Gamma(0.25), ZPlus(), AlphaBeta(2, 1), WSquare(), Flat()]


def draw(*shape: int, seed: int | None = None) -> Tensor:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, **DOUBLE)


def explained(function: Function, *inputs: Tensor, rules: Any) -> tuple[list[Tensor], relprop.Explanation]:
    """Relevance c·z of the output, of weights c of both signs that are always the same."""

    def target(z: Tensor) -> Tensor:
        return (z * draw(*z.shape, seed=7).to(z)).flatten(1).sum(1)

    e = relprop.explain(function, *inputs, target=target, rules=rules)
    return list(e.inputs.values()), e


def of_output(z: Tensor) -> Tensor:
    """The relevance that `explained` starts from."""
    return z * draw(*z.shape, seed=7).to(z)


def assert_same(function: Function, other: Function, *inputs: Tensor, rules: Any) -> relprop.Explanation:
    relevance, e = explained(function, *inputs, rules=rules)
    expected, of_other = explained(other, *inputs, rules=rules)
    torch.testing.assert_close(e.output, function(*inputs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e.output, of_other.output, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(relevance, expected, strict=True):
        close(found, wanted)
    assert e.ledger.gap.max() < 1e-12
    return e


# ---- products of activations ----

# a product, and letters of its factors, of itself and of its terms before they are summed
PRODUCTS: dict[str, tuple[Function, list[tuple[int, ...]], str]] = {
    "matmul": (torch.matmul, [(N, 3, 4), (N, 4, 5)], "nij,njk->nik|nijk"),
    "operator": (lambda a, b: a @ b, [(N, 3, 4), (N, 4, 5)], "nij,njk->nik|nijk"),
    "operator, reversed": (lambda a, b: b.__rmatmul__(a), [(N, 3, 4), (N, 4, 5)], "nij,njk->nik|nijk"),
    "bmm": (torch.bmm, [(N, 3, 4), (N, 4, 5)], "nij,njk->nik|nijk"),
    "of heads": (torch.matmul, [(N, 2, 3, 4), (N, 2, 4, 5)], "nhij,nhjk->nhik|nhijk"),
    "baddbmm": (
        lambda a, b: torch.baddbmm(a.new_zeros(()), a, b, beta=0),
        [(N, 3, 4), (N, 4, 5)],
        "nij,njk->nik|nijk",
    ),
    "einsum": (lambda a, b: torch.einsum("nij,nkj->nik", a, b), [(N, 3, 4), (N, 5, 4)], "nij,nkj->nik|nijk"),
    "einsum with dots": (
        lambda a, b: torch.einsum("...ij,...jk->...ik", a, b),
        [(N, 2, 3, 4), (N, 2, 4, 5)],
        "nhij,nhjk->nhik|nhijk",
    ),
    "einsum, sums apart": (
        lambda a, b: torch.einsum("nijl,nkj->nik", a, b),
        [(N, 3, 4, 2), (N, 5, 4)],
        "nijl,nkj->nik|nijkl",
    ),
    "einsum of a list": (
        lambda a, b: torch.einsum("nij,njk->nik", [a, b]),
        [(N, 3, 4), (N, 4, 5)],
        "nij,njk->nik|nijk",
    ),
    "einsum of three": (
        lambda a, b, c: torch.einsum("nij,njk,nk->ni", a, b, c),
        [(N, 3, 4), (N, 4, 5), (N, 5)],
        "nij,njk,nk->ni|nijk",
    ),
    "einsum of three, elementwise": (
        lambda a, b, c: torch.einsum("ni,ni,ni->ni", a, b, c),
        [(N, 5)] * 3,
        "ni,ni,ni->ni|ni",
    ),
    "einsum of two, elementwise": (
        lambda a, b: torch.einsum("nij,nij->nij", a, b),
        [(N, 3, 4)] * 2,
        "nij,nij->nij|nij",
    ),
}


@each_rule
@pytest.mark.parametrize("name", PRODUCTS)
def test_factors_share_each_term_of_a_product_alike(name: str, rules: Any) -> None:
    function, shapes, every = PRODUCTS[name]
    factors = [draw(*shape) for shape in shapes]
    relevance, e = explained(function, *factors, rules=rules)
    letters, kept, of_terms = every.replace("->", "|").split("|")
    terms = torch.einsum(f"{letters}->{of_terms}", *factors)
    z = function(*factors)
    # R of each term in proportion to it, then 1/n of it to each of n factors.
    R_terms = torch.einsum(f"{of_terms},{kept}->{of_terms}", terms, of_output(z) / z) / len(factors)
    for found, part in zip(relevance, letters.split(","), strict=True):
        close(found, torch.einsum(f"{of_terms}->{part}", R_terms))
    assert e.ledger.gap.max() < 1e-12
    assert [a.rule for a in e.rules] == [Uniform()]


@each_rule
@pytest.mark.parametrize(
    ("beta", "alpha"), [(1, 1), (1, 0.3), (2, 1), (-0.5, 0.7), (0, 1.5)], ids=lambda v: f"{v:g}"
)
def test_baddbmm_is_what_its_parts_are(alpha: float, beta: float, rules: Any) -> None:
    x, a, b = draw(N, 3, 5), draw(N, 3, 4), draw(N, 4, 5)

    def parts(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return beta * x + alpha * (a @ b)

    assert_same(lambda x, a, b: torch.baddbmm(x, a, b, beta=beta, alpha=alpha), parts, x, a, b, rules=rules)
    assert_same(lambda x, a, b: x.baddbmm(a, b, beta=beta, alpha=alpha), parts, x, a, b, rules=rules)
    e = assert_same(
        lambda a, b: torch.baddbmm(x, a, b, beta=beta, alpha=alpha),
        lambda a, b: parts(x, a, b),
        a,
        b,
        rules=rules,
    )
    absorbed = e.ledger.absorbed.get("constant", torch.zeros(N, **DOUBLE))
    close(absorbed, (of_output(e.output) / e.output * beta * x).flatten(1).sum(1))


def test_what_baddbmm_does_not_add_may_be_anything() -> None:
    a, b = draw(N, 3, 4), draw(N, 4, 5)
    nothing = torch.full((N, 3, 5), torch.nan, **DOUBLE)
    assert_same(
        lambda a, b: torch.baddbmm(nothing, a, b, beta=0, alpha=2),
        lambda a, b: a @ b * 2,
        a,
        b,
        rules="attnlrp",
    )


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_a_constant_before_the_operator_is_a_weight(first: bool, rule: Any) -> None:
    w, x = draw(5, 4, seed=3), draw(N, 4, 3)

    def function(x: Tensor) -> Tensor:
        return x.__rmatmul__(w) if first else w @ x

    assert_same(function, lambda x: F.linear(x.mT, w).mT, x, rules=rule)


# ---- experts ----

ENDS = torch.tensor([3, 3, 7, 8], dtype=torch.int32)


def by_group(x: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    limits = [0, *ends.tolist()]
    return torch.cat([x[i:j] @ w[g] for g, (i, j) in enumerate(pairwise(limits))])


@pytest.mark.parametrize("rule", [*LINEAR_RULES, Epsilon(0)], ids=str)
@pytest.mark.parametrize("spelling", ["F", "torch"])
@pytest.mark.parametrize("strided", [True, False])
def test_rows_of_each_group_are_as_by_its_own_layer(strided: bool, spelling: str, rule: Any) -> None:
    """In single precision, for there is none in double."""
    function = F.grouped_mm if spelling == "F" else torch._grouped_mm
    w = draw(4, 8, 4, seed=3).float()
    w = w.mT.contiguous().mT if strided else w
    x = draw(8, 8).float()
    relevance, e = explained(lambda x: function(x, w, offs=ENDS), x, rules=rule)
    expected, _ = explained(lambda x: by_group(x, w.double(), ENDS), x.double(), rules=rule)
    torch.testing.assert_close(e.output, function(x, w, offs=ENDS))
    difference = (relevance[0] - expected[0]).abs().max()
    assert difference < 1e-5 * expected[0].abs().max()
    assert e.ledger.gap.max() < 1e-5
    assert [(a.operation.strip("_"), a.rule) for a in e.rules] == [("grouped_mm", rule)]


def test_a_group_that_is_only_a_part_is_a_gap() -> None:
    x, w = draw(2, 8, 8).float(), draw(2, 8, 4).float()
    message = (
        r"grouped_mm in module .*: only rows \(rows, in\) times weights \(groups, in, out\) without bias"
    )
    with pytest.raises(CoverageError, match=message):
        relprop.explain(lambda x: F.grouped_mm(x, w), x, target=lambda z: z.sum((1, 2)), rules="attnlrp")


def experts(*, grouped: bool) -> Experts:
    torch.manual_seed(5)
    return Experts(grouped=grouped).eval()


@each_rule
def test_experts_by_groups_are_as_one_by_one(rules: Any) -> None:
    x = draw(N, 6, 8).float()
    (R,), e = explained(experts(grouped=True), x, rules=rules)
    (expected,), _ = explained(experts(grouped=False), x, rules=rules)
    torch.testing.assert_close(R, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert e.ledger.total.sum().item() == pytest.approx(e.score.sum().item(), abs=1e-4)


# ---- gated feed-forward layers ----


def weights_of_gates() -> tuple[Tensor, ...]:
    return tuple(draw(i, o, seed=seed) for seed, (i, o) in enumerate([(9, D), (9, D), (5, 9)], 20))


GATE, UP, DOWN = weights_of_gates()

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "silu written out": lambda x: x * torch.sigmoid(x),
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu written out": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "gelu by erf": lambda x: x * 0.5 * (1.0 + torch.erf(x / 2**0.5)),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "squared relu": lambda x: F.relu(x).square(),
    "relu to the second power": lambda x: torch.pow(F.relu(x), 2),
    "relu times relu": lambda x: F.relu(x) * F.relu(x),
    "relu, squared": lambda x: F.relu(x) ** 2,
    "soft cap": lambda x: 3.0 * torch.tanh(x / 3.0),
    "soft cap in three calls": lambda x: torch.tanh(x / 3.0) * 3.0,
    "mish": F.mish,
    "tanh": torch.tanh,
}
GATES = [name for name in ACTIVATIONS if name not in ("soft cap", "soft cap in three calls", "tanh")]


@each_rule
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_written_out_pass_relevance_on(name: str, rules: Any) -> None:
    """The identity rule, whatever the rule for products is: none of these is one."""
    f, x, layer = ACTIVATIONS[name], draw(N, T, D), nn.Linear(D, 5).double()
    (R,), e = explained(f, x, rules=rules)
    close(R, of_output(f(x)))
    assert e.ledger.gap.max() < 1e-12
    assert not e.rules
    (behind,), e = explained(lambda x: f(layer(x)), x, rules=rules)
    z = layer(x).detach()
    contributions = x[..., None] * layer.weight.T.detach()
    close(behind, (contributions / z[..., None, :] * of_output(f(z))[..., None, :]).sum(-1))
    assert e.ledger.gap.max() < 1e-12


GATED: dict[str, Callable[[Activation, Tensor], Tensor]] = {
    "gate first": lambda f, x: f(F.linear(x, GATE)) * F.linear(x, UP),
    "gate last": lambda f, x: F.linear(x, UP) * f(F.linear(x, GATE)),
    "in one": lambda f, x: (lambda both: f(both[0]) * both[1])(
        F.linear(x, torch.cat([GATE, UP])).chunk(2, -1)
    ),
    "torch.mul": lambda f, x: torch.mul(f(x @ GATE.T), x @ UP.T),
    "einsum": lambda f, x: torch.einsum("ntd,ntd->ntd", f(F.linear(x, GATE)), F.linear(x, UP)),
    "views": lambda f, x: (f(F.linear(x, GATE)).view(N * T, -1) * F.linear(x, UP).view(N * T, -1)).view(
        N, T, -1
    ),
    "transposed": lambda f, x: (f(F.linear(x, GATE)).mT * F.linear(x, UP).mT).mT,
}


@each_rule
@pytest.mark.parametrize("spelling", GATED)
@pytest.mark.parametrize("name", GATES)
def test_gated_layers_share_between_gate_and_signal(name: str, spelling: str, rules: Any) -> None:
    f, x = ACTIVATIONS[name], draw(N, T, D)
    (R,), e = explained(lambda x: F.linear(GATED[spelling](f, x), DOWN), x, rules=rules)
    gate, up = x @ GATE.T, x @ UP.T
    inner = f(gate) * up
    R_inner = share(inner, DOWN, of_output(inner @ DOWN.T))
    if rules == "cp-lrp":  # where what an activation function made is a gate
        close(R, share(x, UP, R_inner))
    else:
        close(R, share(x, GATE, R_inner / 2) + share(x, UP, R_inner / 2))
    assert e.ledger.gap.max() < 1e-12
    products = [a.rule for a in e.rules if a.operation in ("mul", "einsum")]
    assert products == [SignalTakesAll(activations=True) if rules == "cp-lrp" else Uniform()]


def share(x: Tensor, w: Tensor, R: Tensor) -> Tensor:
    """LRP-0 of a linear layer without bias; w is (out, in)."""
    contributions = x[..., :, None] * w.T
    z = contributions.sum(-2, keepdim=True)
    return (contributions * torch.where(R == 0, 0, R / z.squeeze(-2))[..., None, :]).sum(-1)


@each_rule
def test_glu_is_a_signal_and_its_gate(rules: Any) -> None:
    x, both = draw(N, T, D), torch.cat([UP, GATE])

    def by_hand(x: Tensor) -> Tensor:
        signal, gate = F.linear(x, both).chunk(2, -1)
        return signal * torch.sigmoid(gate)

    assert_same(lambda x: F.glu(F.linear(x, both)), by_hand, x, rules=rules)


# ---- norms ----

SCALE, SHIFT = draw(D, seed=30), draw(D, seed=31)


def root_mean_square(x: Tensor) -> Tensor:
    return (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()


# a normalisation, and the same over a constant statistic of s
NORMS: dict[str, tuple[Function, Function]] = {
    "rms_norm": (
        lambda x: F.rms_norm(x, (D,), SCALE, 1e-3),
        lambda x, s: x / root_mean_square(s) * SCALE,
    ),
    "llama": (
        lambda x: SCALE * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)).to(x.dtype),
        lambda x, s: x / root_mean_square(s) * SCALE,
    ),
    "llama in single precision": (
        lambda x: (
            SCALE * (lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-3))(x.to(torch.float64))
        ),
        lambda x, s: x / root_mean_square(s) * SCALE,
    ),
    "gemma": (
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3) * (1.0 + SCALE),
        lambda x, s: x / root_mean_square(s) * (1 + SCALE),
    ),
    "gemma by pow": (
        lambda x: (x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-3, -0.5)) * (1.0 + SCALE.double()),
        lambda x, s: x / root_mean_square(s) * (1 + SCALE),
    ),
    "square and mean": (
        lambda x: x / torch.sqrt(torch.mean(torch.square(x), dim=-1, keepdim=True) + 1e-3) * SCALE,
        lambda x, s: x / root_mean_square(s) * SCALE,
    ),
    "product with itself": (
        lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-3),
        lambda x, s: x / root_mean_square(s),
    ),
    "over its norm": (
        lambda x: x / x.norm(2, dim=-1, keepdim=True) * D**0.5 * SCALE,
        lambda x, s: x / s.norm(2, dim=-1, keepdim=True) * D**0.5 * SCALE,
    ),
    "over its clamped norm": (
        lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6),
        lambda x, s: x / s.norm(dim=-1, keepdim=True),
    ),
    "normalize": (
        lambda x: F.normalize(x, dim=-1) * SCALE,
        lambda x, s: x / s.norm(dim=-1, keepdim=True) * SCALE,
    ),
    "over its deviation": (
        lambda x: SCALE * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1) + SHIFT,
        lambda x, s: SCALE * (x - x.mean(-1, keepdim=True)) / (s.std(-1, keepdim=True) + 0.1) + SHIFT,
    ),
    "layer_norm": (
        lambda x: F.layer_norm(x, (D,), SCALE, SHIFT, 1e-3),
        lambda x, s: (
            (x - x.mean(-1, keepdim=True)) / (s.var(-1, False, keepdim=True) + 1e-3).sqrt() * SCALE + SHIFT
        ),
    ),
    "T5 and by variance": (
        lambda x: (lambda v: SCALE * (x * torch.rsqrt(v + 1e-3)))(
            x.to(x.dtype).pow(2).mean(-1, keepdim=True)
        ),
        lambda x, s: x / root_mean_square(s) * SCALE,
    ),
    "over the sum of its parts": (
        lambda x: x.abs() / x.abs().sum(-1, keepdim=True),
        lambda x, s: x.abs() / s.abs().sum(-1, keepdim=True),
    ),
}


@each_rule
@pytest.mark.parametrize("name", NORMS)
def test_whatever_the_rule_for_products_statistics_are_constants(name: str, rules: Any) -> None:
    norm, frozen = NORMS[name]
    x = draw(N, T, D)
    (R,), e = explained(lambda x: F.linear(norm(x), DOWN[:, :D]), x, rules=rules)
    leaf = x.clone().requires_grad_()
    output = F.linear(frozen(leaf, x), DOWN[:, :D])
    (gradient,) = torch.autograd.grad((output * of_output(output) / output).sum(), leaf)
    torch.testing.assert_close(e.output, output.detach(), rtol=1e-12, atol=1e-12)
    close(R, gradient * x)
    assert e.ledger.gap.max() < 1e-12


@each_rule
@pytest.mark.parametrize("name", [name for name in NORMS if name != "over the sum of its parts"])
def test_norms_of_queries_and_keys(name: str, rules: Any) -> None:
    """Attention of normalised queries and keys: fused and written out, whichever the norm."""
    norm, frozen = NORMS[name]
    q, k, v = (draw(N, 2, T, D) for _ in range(3))

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(norm(q), norm(k), v)

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (norm(q) @ norm(k).mT * D**-0.5).softmax(-1) @ v

    def constant(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        of_q, of_k = frozen(q, q.detach()), frozen(k, k.detach())
        return F.scaled_dot_product_attention(of_q, of_k, v)

    e = assert_same(fused, written, q, k, v, rules=rules)
    relevance, _ = explained(fused, q, k, v, rules=rules)
    expected, _ = explained(constant, q, k, v, rules=rules)
    for found, wanted in zip(relevance, expected, strict=True):
        close(found, wanted)
    assert bool(relevance[0].any()) == (rules == "attnlrp")
    assert not e.ledger.mixed


@each_rule
@pytest.mark.parametrize("before", ["softmax", "sigmoid"])
def test_weights_of_the_best_experts_over_their_sum(before: str, rules: Any) -> None:
    """The sum is a statistic: what comes to the weights is shared as if it were constant."""
    x, experts = draw(N, 5), draw(N, 5, 3)

    def model(x: Tensor, experts: Tensor) -> Tensor:
        weights, chosen = getattr(torch, before)(x, *([-1] if before == "softmax" else [])).topk(2, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        best = experts.gather(1, chosen[..., None].expand(-1, -1, 3))
        return (weights[..., None] * best).sum(1)

    def constant(x: Tensor, experts: Tensor) -> Tensor:
        weights, chosen = getattr(torch, before)(x, *([-1] if before == "softmax" else [])).topk(2, -1)
        weights = weights * (1 / weights.detach().sum(-1, keepdim=True))
        best = experts.gather(1, chosen[..., None].expand(-1, -1, 3))
        return (weights[..., None] * best).sum(1)

    e = assert_same(model, constant, x, experts, rules=rules)
    half = 0.5 if rules == "attnlrp" else 1.0
    close(e.inputs["experts"].flatten(1).sum(1), half * e.score)


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=str)
@pytest.mark.parametrize("picked", [lambda w, ids: w[ids], lambda w, ids: w.index_select(0, ids)])
def test_weights_that_samples_pick_are_weights(picked: Any, rule: Any) -> None:
    weights = nn.Parameter(torch.randn(3, 5, 4, dtype=torch.float64))

    def together(x: Tensor) -> Tensor:
        ids = x[:, :3].argmax(1)
        return torch.bmm(picked(weights, ids), x.unsqueeze(-1)).squeeze(-1)

    def one_by_one(x: Tensor) -> Tensor:
        return torch.cat([F.linear(row[None], weights[int(row[:3].argmax())]) for row in x])

    x = torch.rand(6, 4, dtype=torch.float64)
    found, expected = (relprop.explain(m, x, target=2, rules=rule) for m in (together, one_by_one))
    torch.testing.assert_close(found.relevance, expected.relevance)
    assert [applied.rule for applied in found.rules] == [rule]
