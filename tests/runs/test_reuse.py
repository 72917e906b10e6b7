"""Graphs that overwrite operands that nobody needs any more: with the same bits, and nothing else."""

import cProfile
import operator
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import pytest
import torch
from torch import Tensor, fx, nn

from relprop import Explainer
from relprop.runs.graphs import respelled
from relprop.runs.reuse import reusing_memory
from relprop.runs.tracing import trace

aten = torch.ops.aten

Program = Callable[..., Sequence[Tensor]]


def overwriting(module: fx.GraphModule) -> list[str]:
    """Return the names of the operations that overwrite an operand."""
    return [
        node.target._schema.name.removeprefix("aten::")
        for node in module.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    ]


def reused(program: Program, *inputs: Tensor) -> list[str]:
    """Return what a graph of the program overwrites, after it has given the program's results twice."""
    traced, _ = trace(program, inputs)
    graph = reusing_memory(traced.graph)
    found = overwriting(graph)
    run = respelled(graph).forward
    for given in (inputs, [x.flip(0) * 0.5 for x in inputs]):
        before = [x.clone() for x in given]
        for _ in range(2):  # constants and inputs are as they were
            assert all(map(torch.equal, run(*given)[0], program(*given)))
        assert all(map(torch.equal, given, before))
    return found


X, Y = torch.randn(3, 4), torch.randn(3, 4)
DOUBLES = torch.randn(3, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("program", "found"),
    [
        # The first operation on an input has memory of its own, and the others are computed in it.
        (lambda x, y: [((x * y).erf() + y).abs()], ["erf_", "add_", "abs_"]),
        (lambda x, y: [(x * y) ** 2], ["pow_"]),
        (lambda x, y: [aten.hardshrink_backward(x / y, y, 0.5)], ["hardshrink_backward"]),
        (lambda x, y: [aten.threshold_backward(x / y, y, 0.5)], ["threshold_backward"]),
        (lambda x, y: [y * (x + 1), y + (x - 1)], ["mul_", "add_"]),  # in the memory of the second operand
        (lambda x, y: [(x + y) * (x - y)], ["mul_"]),
        (lambda x, y: [(x + y).reshape(2, 6).mul(2).reshape(12) + 1], ["mul_", "add_"]),  # by a view
        (lambda x, y: [(x @ y.T).mul(2)], ["mul_"]),
        (lambda x, y: [(x * y).double() * x], ["mul_"]),
        (lambda x, y: [(x + y).T * x.T.contiguous()], ["mul_"]),
    ],
)
def test_what_is_overwritten(program: Program, found: list[str]) -> None:
    assert reused(program, X, Y) == found


def needed_later(x: Tensor, y: Tensor) -> list[Tensor]:
    h = x * y
    return [h.erf() + h]


def needed_as_a_view(x: Tensor, y: Tensor) -> list[Tensor]:
    h = x * y
    part = h[:, :2]
    return [h.erf(), part.sum(1)]


def in_another_shape(x: Tensor, y: Tensor) -> list[Tensor]:
    q = x[:, :3] * 2
    q.t_()
    w = y[:, :3] @ y[:, :3].T
    return [(w * q).as_strided((2, 2), (4, 1), 1).clone(), w.sum(1)]


KEPT = torch.randn(3, 4)


@torch.library.custom_op("relprop_reuse::kept", mutates_args=())
def kept(x: Tensor) -> Tensor:
    """Return what is kept from call to call."""
    return KEPT


LIBRARY = torch.library.Library("relprop_reuse", "DEF")
LIBRARY.define("half(Tensor x) -> Tensor")  # which does not tell that it gives a view
LIBRARY.impl("half", lambda x: x[:, :2], "CPU")


def kept_by_others(x: Tensor, y: Tensor) -> list[Tensor]:
    return [kept(x * 2).exp()]


def seen_by_others(x: Tensor, y: Tensor) -> list[Tensor]:
    h = x * y
    half = torch.ops.relprop_reuse.half(h)
    return [h.erf(), half + 1]


def sparse(x: Tensor, y: Tensor) -> list[Tensor]:
    return [(x.to_sparse() * 2).to_dense()]


def needed_as_a_part(x: Tensor, y: Tensor) -> list[Tensor]:
    h = x * y
    part, _ = torch.unsafe_chunk(h, 2, 1)  # of which torch does not tell that it is a view
    return [h.erf(), part.sum(1)]


def squares(x: Tensor, y: Tensor) -> list[Tensor]:
    h = x @ y.T
    return [h * h.T]  # an element is needed at two places


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: [x * y, x + y],  # inputs
        needed_as_a_view,
        needed_as_a_part,
        kept_by_others,
        sparse,
        squares,
        lambda x, y: [(x * y)[:1].expand(3, 4) * y],  # one place for several elements
        lambda x, y: [(x * y)[:, :1] * y],  # another shape
        lambda x, y: [(x * y) * DOUBLES, (x + y) > 0],  # another type
        lambda x, y: [y - (x + 1), y / (x + 1)],  # which do not commute
        lambda x, y: [torch.add(y, x + 1, alpha=2)],
        lambda x, y: [h := x * y, h.detach() + 1],
    ],
)
def test_what_is_not(program: Program) -> None:
    assert reused(program, X, Y) == []


def test_the_last_of_several_overwrites() -> None:
    assert "erf_" not in reused(seen_by_others, X, Y)
    assert "mul_" not in reused(in_another_shape, X, Y)
    assert reused(needed_later, X, Y) == ["add_"]
    assert reused(lambda x, y: [(h := x + y) * h], X, Y) == ["mul_"]  # both operands are the same


def test_constants_stay() -> None:
    constant = torch.randn(3, 4)
    assert reused(lambda x: [constant * x, constant[:, :2].mul(x[:, :2])], X) == []


def test_what_a_program_overwrites_stays_needed() -> None:
    def program(x: Tensor) -> list[Tensor]:
        h = x + 1
        part = h[0]
        h.mul_(x)
        return [part * 2 + h.sum(0)]

    assert reused(program, X) == ["mul_", "add_"]


def drawn(seed: int, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Compute something by random operations, views of what was computed, and writes to it."""
    random = Random(seed)
    known = [x * 2 for x in inputs]
    for _ in range(25):
        x, y = random.choice(known[-5:]), random.choice(known)
        fits = y if y.shape == x.shape else y.sum()
        step = random.randrange(12)
        if step < 3:
            known.append(random.choice([operator.mul, operator.add, operator.sub])(x, fits))
        elif step < 6:
            known.append(getattr(x, random.choice(["erf", "abs", "tanh", "neg"]))())
        elif step < 8:
            known.append(random.choice([x.mT, x.reshape(-1, 2), x[: len(x) // 2], x.flatten()[None]]))
        elif step == 8:
            known.append(torch.cat([x, x * 2]) if x.numel() < 200 else x.mT)
        elif step == 9:
            known.append(aten.hardshrink_backward(x, fits.expand(x.shape), 0.1))
        elif step == 10:
            known.append(x[:, :1].expand(x.shape))
        elif 0 not in x.stride():
            x.tanh_()
    return [t.clone() for t in random.sample(known, 3)]


def test_random_programs() -> None:
    more = 0
    for seed in range(150):
        inputs = [torch.randn(4, 8), torch.randn(4, 8)]
        traced, _ = trace(partial(of_several, seed), inputs)
        graph = traced.graph
        as_it_was = len(overwriting(graph))
        more += len(overwriting(reusing_memory(graph))) - as_it_was
        run = respelled(graph).forward
        for given in (inputs, [x.flip(0) * 0.5 for x in inputs]):
            for found, expected in zip(run(*given)[0], drawn(seed, given), strict=True):
                assert torch.equal(found, expected)
                assert found.stride() == expected.stride()
    assert more > 500


def of_several(seed: int, *inputs: Tensor) -> list[Tensor]:
    return drawn(seed, inputs)


def test_explanations_overwrite_more_than_the_model() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    explainer = Explainer(model, rules="epsilon")
    compiled = explainer.compile(X, target=1)
    (kind,) = compiled._graphs._kinds.values()
    assert {"mul_", "div_", "add_"} <= set(overwriting_calls(kind.graphs[0].traced.graph))
    for x in (X, Y, X):
        assert torch.equal(compiled(x, target=1).relevance, explainer(x, target=1).relevance)


def test_the_price_does_not_grow_faster_than_the_graph() -> None:
    def steps(count: int, x: Tensor) -> list[Tensor]:
        h = x * 2
        for _ in range(count):
            h = h * 0.9 + x
        return [h]

    def calls(count: int) -> int:
        traced, _ = trace(partial(steps, count), [X])
        profile = cProfile.Profile()
        profile.runcall(reusing_memory, traced.graph)
        return sum(entry.callcount for entry in profile.getstats())

    calls(5)  # what is found once
    assert calls(400) < 4.4 * calls(100)


def overwriting_calls(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_method"]
