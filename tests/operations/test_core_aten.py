"""Every operation of torch's core aten set is crossed, a constant, or refused with a reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

import relprop
from relprop.calls.names import documented_name
from relprop.errors import CoverageError, ModelError
from relprop.operations import TABLE
from relprop.operations.arithmetic import step
from relprop.operations.reshaping import compared
from relprop.rules import Epsilon


def _core() -> dict[str, list[OpOverload]]:
    """All overloads that torch calls core, by the name that they have in common, in place or not."""
    found: dict[str, list[OpOverload]] = {}
    every = {str(schema.name) for schema in torch._C._jit_get_all_schemas()}  # dir() has the used ones only
    for name in sorted(name.removeprefix("aten::") for name in every if name.startswith("aten::")):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads() if isinstance(packet, OpOverloadPacket) else ():
            if torch.Tag.core in getattr(packet, overload).tags:
                found.setdefault(name.removesuffix("_"), []).append(getattr(packet, overload))
    return found


CORE = _core()

CONSTANT = {
    # comparisons and logic
    *("eq", "ne", "lt", "le", "gt", "ge", "isinf", "isnan", "any"),
    *("logical_and", "logical_or", "logical_xor", "logical_not"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"),
    # positions, sizes, numbers for Python
    *("argmax", "argmin", "nonzero", "_local_scalar_dense"),
    *("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "sym_is_contiguous"),
    # new tensors, random or not
    *("arange", "empty", "empty_strided", "full", "full_like", "scalar_tensor", "rand", "randn", "randperm"),
    # steps, whose gradient is zero
    *(name for name, entry in TABLE.items() if entry is step and name in CORE),
    "div.Tensor_mode",
    "div.Scalar_mode",
}
"""What has a result without relevance: an operation, or one overload of it."""

_OWN_GRADIENT = "a model that computes a gradient of its own would compute relevance coefficients here"
_EXPONENT = "the exponent depends on the input"

REFUSED = {
    **{name: _OWN_GRADIENT for name in CORE if name.endswith("_backward")},
    "atan2": "an angle is no sum of parts that are due to its two sides",
    "pow.Scalar": _EXPONENT,
    "resize": "where it is larger than before, it has no values",
}
"""What is a gap, and why: an operation, or one overload of it."""

ABSORBED = {"fill": "constant", "reciprocal": "statistic", "rsqrt": "statistic"}
"""Entries that put all relevance into a sink."""

N = 2
ROW = torch.tensor([0, 2])
MASK = (torch.arange(16).reshape(4, 4) % 3 == 0).expand(N, 3, 4, 4)
OTHER = torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(1)).double() + 0.2
WEIGHT = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(2)).double()
SCALE, SHIFT, *STATISTICS = OTHER[0, :, 0].T.contiguous()
GRID = torch.rand(N, 2, 2, 2, generator=torch.Generator().manual_seed(3)).double()
INDEX = torch.zeros(N, 3, 2, 4, dtype=torch.long)
PAIR = [2, 2]


def video(x: Tensor) -> Tensor:
    return x.reshape(N, 3, 4, 2, 2)


def rows(x: Tensor) -> Tensor:
    return x.reshape(N, 48)


def spectrum(x: Tensor) -> Tensor:
    return torch.complex(x, x.flip(-1))


def flat(x: Tensor) -> Tensor:
    return x.reshape(N, 3, 16)


ARGUMENTS: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
    "_adaptive_avg_pool2d": lambda x: (x, PAIR),
    "adaptive_avg_pool1d": lambda x: (flat(x), [2]),
    "avg_pool1d": lambda x: (flat(x), [2]),
    "resize": lambda x: (x, [N, 3, 4, 2]),
    "_adaptive_avg_pool3d": lambda x: (video(x), [2, 1, 2]),
    "_adaptive_avg_pool2d_backward": lambda x: (x[:, :, :2, :2], OTHER),
    "_cdist_forward": lambda x: (flat(x), flat(OTHER), 2.0, None),
    "_embedding_bag": lambda x: (x[0, 0], torch.tensor([0, 1, 3]), torch.tensor([0, 2])),
    "_fft_c2r": lambda x: (spectrum(x), [3], 0, 6),
    "_fft_r2c": lambda x: (x, [3], 0, True),
    "_local_scalar_dense": lambda x: (x.sum(),),
    "_log_softmax": lambda x: (x, 1, False),
    "_native_batch_norm_legit": lambda x: (x, SCALE, None, *STATISTICS, False, 0.1, 1e-5),
    "_native_batch_norm_legit.no_stats": lambda x: (x[:1], SCALE, None, True, 0.1, 1e-5),
    "_native_batch_norm_legit_no_training": lambda x: (x, SCALE, None, *STATISTICS, 0.1, 1e-5),
    "_pdist_forward": lambda x: (rows(x),),
    "_softmax": lambda x: (x, 1, False),
    "acosh": lambda x: (x.abs() + 1,),
    "addmm": lambda x: (OTHER[:, 0, 0], flat(x)[:, 0, :4], OTHER[0, 0]),
    "any.dim": lambda x: (x, 1),
    "as_strided": lambda x: (x, [N, 6, 4], [48, 8, 1]),
    "avg_pool2d": lambda x: (x, PAIR),
    "avg_pool3d": lambda x: (video(x), [2, 2, 1]),
    "avg_pool2d_backward": lambda x: (x[:, :, :2, :2], OTHER, PAIR, PAIR, [0, 0], False, True, None),
    **{
        f"{name}.{overload}": lambda x, other=other: (x > 0, other)
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
        for overload, other in (("Tensor", MASK), ("Scalar", True))
    },
    "bitwise_not": lambda x: (x > 0,),
    "bmm": lambda x: (flat(x), flat(OTHER).mT),
    "cat": lambda x: ([x, OTHER, x], 1),
    "clamp": lambda x: (x, -0.3, 0.4),
    "clamp.Tensor": lambda x: (x, -OTHER, OTHER),
    "col2im": lambda x: (x.reshape(N, 12, 4), [3, 3], PAIR, [1, 1], [0, 0], [1, 1]),
    "constant_pad_nd": lambda x: (x, [1, 1], 0.5),
    "convolution": lambda x: (x, WEIGHT, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "convolution_backward": lambda x: (
        *(x, OTHER, WEIGHT, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]),
    ),
    "copy": lambda x: (OTHER, x),
    "cumsum": lambda x: (x, 1),
    "div.Tensor_mode": lambda x: (x, OTHER, {"rounding_mode": "floor"}),
    "div.Scalar_mode": lambda x: (x, 0.1, {"rounding_mode": "floor"}),
    "embedding": lambda x: (x[0, 0], ROW),
    "embedding_dense_backward": lambda x: (x[0, 0, :2], ROW, 5, -1, False),
    "expand": lambda x: (x[:, :1], [N, 5, 4, 4]),
    "flip": lambda x: (x, [1]),
    "gather": lambda x: (x, 2, INDEX),
    "grid_sampler_2d": lambda x: (x, GRID, 0, 0, False),
    "index": lambda x: (x, [None, ROW]),
    "index_put": lambda x: (x, [None, ROW], OTHER[:, :2]),
    "index_select": lambda x: (x, 1, ROW),
    **dict.fromkeys(("log", "log2", "log10"), lambda x: (x.exp() + 1,)),
    "masked_scatter": lambda x: (x, MASK, OTHER),
    "max.dim": lambda x: (x, 1),
    "max_pool2d_with_indices": lambda x: (x, PAIR),
    "max_pool2d_with_indices_backward": lambda x: (
        *(x[:, :, :2, :2], OTHER, PAIR, PAIR, [0, 0], [1, 1], False, torch.zeros(N, 3, 2, 2).long()),
    ),
    "max_pool3d_with_indices": lambda x: (video(x), [2, 2, 1]),
    "mean.dim": lambda x: (x, [1]),
    "min.dim": lambda x: (x, 1),
    "mm": lambda x: (rows(x), rows(OTHER).mT),
    "native_dropout": lambda x: (x, 0.5, False),
    "native_group_norm": lambda x: (x, SCALE, SHIFT, N, 3, 16, 1, 1e-5),
    "native_group_norm_backward": lambda x: (
        *(x, OTHER, OTHER[:, :1, 0, 0], OTHER[:, :1, 0, 0], None, N, 3, 16, 1, [True, False, False]),
    ),
    "native_layer_norm": lambda x: (x, [4], OTHER[0, 0, 0], OTHER[0, 0, 1], 1e-5),
    "native_layer_norm_backward": lambda x: (
        *(x, OTHER, [4], OTHER[..., :1], OTHER[..., :1], None, None, [True, False, False]),
    ),
    "permute": lambda x: (x, [0, 2, 3, 1]),
    "pow.Scalar": lambda x: (2.0, x),
    "pow.Tensor_Tensor": lambda x: (x.abs(), OTHER),
    "prod.dim_int": lambda x: (x, 1),
    "reciprocal": lambda x: (x + 2,),
    "reflection_pad1d": lambda x: (flat(x), [1, 1]),
    "reflection_pad2d": lambda x: (x, [1, 1, 1, 1]),
    "reflection_pad3d": lambda x: (video(x), [1, 1, 1, 1, 1, 1]),
    **dict.fromkeys(("fmod.Scalar", "remainder.Scalar"), lambda x: (x, 0.3)),
    "repeat": lambda x: (x, [1, 2, 1, 1]),
    "replication_pad2d": lambda x: (x, [1, 1, 1, 1]),
    "replication_pad3d": lambda x: (video(x), [1, 1, 1, 1, 1, 1]),
    "rsqrt": lambda x: (x + 2,),
    "scatter.value": lambda x: (x, 2, INDEX, 3.0),
    "scatter.src": lambda x: (x, 2, INDEX, OTHER),
    "scatter_add": lambda x: (x, 2, INDEX, OTHER[:, :, :2]),
    "scatter_reduce": lambda x: (x, 2, INDEX, OTHER, "mean"),
    "select": lambda x: (x, 1, 0),
    "select_scatter": lambda x: (x, OTHER[:, 0], 1, 0),
    "slice": lambda x: (x, 1, 0, 2),
    "slice_scatter": lambda x: (x, OTHER[:, :2], 1, 0, 2),
    "sort": lambda x: (x, 1),
    "split_with_sizes": lambda x: (x, [1, 2], 1),
    "sqrt": lambda x: (x.abs(),),
    "squeeze.dim": lambda x: (x[:, :1], 1),
    "squeeze.dims": lambda x: (x[:, :1], [1]),
    "sum.dim_IntList": lambda x: (x, [1]),
    "topk": lambda x: (x, 2, 1),
    "unsqueeze": lambda x: (x, 1),
    "upsample_bilinear2d.vec": lambda x: (x, [5, 6], False, None),
    "upsample_nearest2d.vec": lambda x: (x, [5, 6], None),
    "var.dim": lambda x: (x, [1]),
    "var.correction": lambda x: (x, [1]),
    "view": lambda x: (x, [N, 48]),
    "where": lambda x: (MASK, x, OTHER),
    "fill.Scalar": lambda x: (x, 2.0),
    "full_like": lambda x: (x, 2.0),
}


def arguments(operation: OpOverload, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Small ones: those above, or x and other values for further tensors, as the schema has them."""
    name, overload = name_of(operation), operation._overloadname
    made = ARGUMENTS.get(f"{name}.{overload}", ARGUMENTS.get(name))
    if made is not None:
        args = made(x)
        return (args[:-1], args[-1]) if isinstance(args[-1], dict) else (args, {})
    args, rest = (), [x]
    for a in operation._schema.arguments:
        if a.has_default_value() or a.kwarg_only:
            break
        args += ((rest.pop() if rest else OTHER) if str(a.type) == "Tensor" else 2.0,)
    return args, {}


def name_of(operation: OpOverload) -> str:
    return operation._schema.name.removeprefix("aten::").removesuffix("_")


def takes_floats(operation: OpOverload) -> bool:
    """Whether it has a tensor for an argument, and does more than ask for its size."""
    return (
        any("Tensor" in str(a.type) for a in operation._schema.arguments) and "sym_" not in operation.name()
    )


def as_model(operation: OpOverload, *, in_place: bool = False) -> Callable[[Tensor], Tensor]:
    """The first result of an operation, for each sample where it has any."""

    def model(x: Tensor) -> Tensor:
        args, kwargs = arguments(operation, x)
        if in_place:
            args = (args[0].clone(), *args[1:])
        result = operation(*args, **kwargs)
        if isinstance(result, (tuple, list)):
            result = result[-1 if isinstance(result, list) else 0]
        if not isinstance(result, Tensor):
            return torch.full((N, 1), float(result)).double()
        result = result.abs() if result.is_complex() else result.double()
        return result.reshape(N, -1) if result.numel() % N == 0 else result.sum().expand(N, 1)

    return model


def weighed(y: Tensor) -> Tensor:
    return (y * torch.linspace(1, 2, y.shape[1]).double()).sum(1)


def explained(operation: OpOverload, *, in_place: bool = False) -> relprop.Explanation:
    torch.manual_seed(0)
    x = torch.rand(N, 3, 4, 4, dtype=torch.float64) * 1.8 - 0.9
    model = as_model(operation, in_place=in_place)
    plain = model(x)
    e = relprop.explain(model, x, target=weighed, rules=Epsilon(0))
    assert torch.equal(e.output, plain)
    return e


def reason_for(operation: OpOverload) -> str | None:
    name = name_of(operation)
    return REFUSED.get(f"{name}.{operation._overloadname}", REFUSED.get(name))


def is_constant(operation: OpOverload) -> bool:
    return bool({name_of(operation), f"{name_of(operation)}.{operation._overloadname}"} & CONSTANT)


def in_place(operation: OpOverload) -> OpOverload | None:
    """The operation that does the same in place, on a tensor that the arguments here have first."""
    if str(operation._schema.arguments[0].type) != "Tensor":
        return None
    packet = getattr(torch.ops.aten, f"{name_of(operation)}_", None)
    return getattr(packet, operation._overloadname, None)


def both(operations: list[OpOverload]) -> list[Any]:
    """Operations, each with the one that works in place if there is one."""
    pairs = [(o, False) for o in operations] + [(w, True) for o in operations if (w := in_place(o))]
    return [pytest.param(*pair, id=str(pair[0])) for pair in pairs]


CALLED = [o for overloads in CORE.values() for o in overloads if takes_floats(o) and o._overloadname != "out"]

CROSSED = [o for o in CALLED if not is_constant(o) and reason_for(o) is None]


def test_every_core_operation_is_exactly_one_of_three() -> None:
    covered = {name for name, entry in TABLE.items() if entry not in (step, compared)}
    of_whole, constant = ({name for name in kind if "." not in name} for kind in (REFUSED, CONSTANT))
    found = {name: [name in kind for kind in (covered, constant, of_whole)] for name in CORE}
    assert {name: kinds for name, kinds in found.items() if sum(kinds) != 1} == {}
    overloads = {f"{name}.{o._overloadname}" for name in CORE for o in CORE[name]}
    assert constant | of_whole <= {*CORE}, "torch calls it core no more"
    assert ({*REFUSED} - of_whole) | ({*CONSTANT} - constant) <= overloads


@pytest.mark.parametrize("operation", CROSSED, ids=str)
def test_relevance_crosses_an_entry(operation: OpOverload) -> None:
    e, sink, written = explained(operation), ABSORBED.get(name_of(operation)), in_place(operation)
    assert e.ledger.gap.max() < 1e-8
    assert e.relevance.isfinite().all()
    assert bool(e.relevance.any()) == (sink is None)
    assert sink is None or bool(e.ledger.absorbed[sink].all())
    if written is not None:
        torch.testing.assert_close(explained(written, in_place=True).relevance, e.relevance)


@pytest.mark.parametrize(("operation", "writes"), both([o for o in CALLED if is_constant(o)]))
def test_no_relevance_comes_through_a_constant(operation: OpOverload, writes: bool) -> None:
    with pytest.raises(ModelError, match="does not depend on the input"):
        explained(operation, in_place=writes)


@pytest.mark.parametrize(("operation", "writes"), both([o for o in CALLED if reason_for(o) is not None]))
def test_what_is_refused_is_named(operation: OpOverload, writes: bool) -> None:
    with pytest.raises(CoverageError, match=f"- {documented_name(name_of(operation))} in module"):
        explained(operation, in_place=writes)
