"""Linear operations: where the rules of a composite apply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.keeping import Kept
from relprop.linear_maps import Convolution, Dense, LinearMap
from relprop.linear_operations import Incoming, LinearOperation, Rule, divide
from relprop.provenance import Applied, Origin, Tag, empty_slot, merge_tags

Numbers = int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LinearOrigin(Origin):
    """A linear operation and the rule for it, for a bias that is added afterwards to re-root on."""

    weight: Tensor
    kept_weight: Kept
    kept_bias: Kept | None
    map: LinearMap
    rule: Rule
    path: str
    operation: str


@dataclass(frozen=True, kw_only=True)
class ZeroPadding(Origin):
    """Zeros put around an operand, for a convolution to take as its own padding: zeros are no inputs."""

    pads: tuple[int, ...]


def linear(run: Interception, call: Call) -> Any:
    """F.linear(x, weight, bias)."""

    def arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        return input, weight, bias

    x, weight, bias = arguments(*call.args, **call.kwargs)
    return _start(run, call, "dense", x, weight, bias, Dense())


def matmul(run: Interception, call: Call) -> Any:
    """Product x @ weight with a constant matrix."""

    def arguments(input: Tensor, other: Tensor | None = None, mat2: Tensor | None = None) -> Any:
        return input, other if mat2 is None else mat2

    x, weight = arguments(*call.args, **call.kwargs)
    return _start(run, call, "dense", x, weight, None, Dense(transposed=True))


def addmm(run: Interception, call: Call) -> Any:
    """Sum bias + x @ weight with a constant matrix."""

    def arguments(input: Tensor, mat1: Tensor, mat2: Tensor, beta: float = 1, alpha: float = 1) -> Any:
        return input, mat1, mat2, beta, alpha

    bias, x, weight, beta, alpha = arguments(*call.args, **call.kwargs)
    if (beta, alpha) != (1, 1) or bias.dim() != 1 or run.relevant(bias):
        run.gap("addmm", "only a constant bias of shape (out,) and alpha = beta = 1 are covered")
        return plain(run, call, [t for t in (bias, x, weight) if run.relevant(t)])
    return _start(run, call, "dense", x, weight, bias, Dense(transposed=True))


def convolution(dimensions: int) -> Entry:
    """conv1d, conv2d, conv3d."""

    def arguments(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Numbers = 1,
        padding: Numbers | str = 0,
        dilation: Numbers = 1,
        groups: int = 1,
    ) -> Any:
        return input, weight, bias, stride, padding, dilation, groups

    def entry(run: Interception, call: Call) -> Any:
        x, weight, bias, stride, padding, dilation, groups = arguments(*call.args, **call.kwargs)
        kernel, dilation = tuple(weight.shape[2:]), _tuple(dilation, dimensions)
        pads: tuple[int, ...] = ()
        if padding == "same":
            totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            padding = tuple(total // 2 for total in totals)
            if any(total % 2 for total in totals):
                # torch pads one more at the end; F.pad counts dimensions from the last.
                pads = tuple(pad for total in reversed(totals) for pad in (0, total % 2))
        padding = 0 if padding == "valid" else padding
        before = run.tag(x).origin
        if (
            isinstance(before, ZeroPadding)
            and before.intact
            and len(before.pads) <= 2 * dimensions
            and not pads
        ):
            x, pads = before.x, before.pads
        map_ = Convolution(
            stride=_tuple(stride, dimensions),
            padding=_tuple(padding, dimensions),
            dilation=dilation,
            transposed=False,
            output_padding=(0,) * dimensions,
            groups=groups,
            kernel=kernel,
            pads=pads,
        )
        return _start(run, call, "convolution", x, weight, bias, map_)

    return entry


def transposed_convolution(dimensions: int) -> Entry:
    """conv_transpose1d, conv_transpose2d, conv_transpose3d."""

    def arguments(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Numbers = 1,
        padding: Numbers = 0,
        output_padding: Numbers = 0,
        groups: int = 1,
        dilation: Numbers = 1,
    ) -> Any:
        return input, weight, bias, stride, padding, output_padding, groups, dilation

    def entry(run: Interception, call: Call) -> Any:
        x, weight, bias, stride, padding, output_padding, groups, dilation = arguments(
            *call.args, **call.kwargs
        )
        map_ = Convolution(
            stride=_tuple(stride, dimensions),
            padding=_tuple(padding, dimensions),
            dilation=_tuple(dilation, dimensions),
            transposed=True,
            output_padding=_tuple(output_padding, dimensions),
            groups=groups,
            kernel=tuple(weight.shape[2:]),
        )
        return _start(run, call, "convolution", x, weight, bias, map_)

    return entry


def add_bias(run: Interception, call: Call, origin: LinearOrigin, constant: Tensor) -> Tensor | None:
    """Let a constant that was added to a linear operation's output be its bias.

    Returns None where the constant is no bias: where it differs between positions or samples.
    """
    out = origin.map.outputs(origin.weight)
    flat = constant.reshape(-1).expand(out) if constant.numel() == 1 else constant.reshape(-1)
    if flat.shape != (out,) or not bool(flat.isfinite().all()):
        return None
    shape = origin.map.align_bias(flat).shape
    if constant.numel() > 1 and constant.shape[constant.dim() - len(shape) :] != shape:
        return None
    value = call.value()
    if value.dim() != origin.x.dim():  # a constant of more dimensions adds one to the result
        return None
    bias = flat.detach().clone() if origin.kept_bias is None else origin.kept_bias.value + flat.detach()
    return _attach(run, replace(origin, kept_bias=run.keep(bias)), value)


def _start(
    run: Interception, call: Call, kind: str, x: Tensor, weight: Tensor, bias: Tensor | None, map_: LinearMap
) -> Any:
    """Let the composite choose a rule for a linear operation, and give its output the rule's backward."""
    operands = [t for t in (x, weight, bias) if t is not None and run.relevant(t)]
    site = run.site(call, kind, run.tag(x).depth)
    rule, acceptable = None, True
    if len(operands) > 1 or not run.relevant(x):
        problem = (
            "the weight depends on the input, or stands first; only input times constant weight is covered"
        )
    elif kind == "dense" and weight.dim() != 2:
        problem = f"a weight of shape {tuple(weight.shape)} is not covered, only a matrix"
    elif x.dim() < 2 or (kind == "convolution" and x.dim() != weight.dim()):
        problem = f"an input of shape {tuple(x.shape)} has no dimension for samples; add one in front"
    else:
        rule, acceptable = run.choose(site), False
        problem = "no entry of the composite matches; end it with ('*', Epsilon()) or the like"
    if rule is None:
        run.gap(call.name, problem, acceptable)
        return plain(run, call, operands)
    run.applied.append(Applied(site.path, call.name, rule))
    weight = call.parameter(weight)
    origin = LinearOrigin(
        x=x,
        version=x._version,
        weight=weight,
        kept_weight=run.keep(weight),
        kept_bias=None if bias is None else run.keep(bias),
        map=map_,
        rule=rule,
        path=site.path,
        operation=call.name,
    )
    return _attach(run, origin, call.value())


def _attach(run: Interception, origin: LinearOrigin, value: Tensor) -> Tensor:
    """Give a linear operation's value the backward of its rule."""
    x, rule = origin.x, origin.rule
    tag, slot = run.tag(x), run.slot(x)
    # The closure must not hold `origin`, whose x holds the graph.
    map_, weight, kept_w, kept_b = origin.map, origin.weight, origin.kept_weight, origin.kept_bias
    path, operation = origin.path, origin.operation
    kept_x, kept_z = run.keep(x), run.keep(value)

    def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[Tensor | None, ...]:
        w = kept_w.or_value(weight)
        # All of it in the weight's type: under autocast inputs and outputs have other ones.
        x, z = kept_x.value.to(w.dtype), kept_z.value.to(w.dtype)
        c = None if c is None else c.to(w.dtype)
        direct = None if direct is None else direct.to(w.dtype)
        b = None if kept_b is None else kept_b.value.to(w.dtype)
        try:
            with torch.autocast(x.device.type, enabled=False):
                exact = z
                if kept_z.value.dtype != w.dtype:
                    # Rounded outputs would turn differences with them into contributions.
                    exact = map_.apply(x, w.detach())
                    exact = exact if b is None else exact + map_.align_bias(b)
                op = LinearOperation(map_, x, exact, w, b, tag.nonnegative)
                propagated = rule(op, Incoming(c, direct, z))
        except Exception as error:
            error.add_note(f"The rule was for {operation} in module {path or '(root)'!r}.")
            raise
        for sink, amount in propagated.absorbed.items():
            run.ledger.add(sink, amount, path, operation)
        if slot is not None:
            return propagated.coefficient, propagated.direct
        if propagated.direct is None:
            return (propagated.coefficient,)
        # Without a slot, relevance on zeros has no place to go.
        run.ledger.add("zero input", propagated.direct * (x == 0), path, operation)
        on_x = divide(propagated.direct, x)
        return (on_x if propagated.coefficient is None else propagated.coefficient + on_x,)

    roots = [x] if slot is None else [x, slot]
    if run.slots == "all":
        output, out_slot = attach([value, empty_slot(value)], roots, backward)
        run.set_tag(output, Tag(tag.depth + 1, slot=out_slot, origin=origin))
    else:
        (output,) = attach([value], roots, backward)
        run.set_tag(output, Tag(tag.depth + 1, origin=origin))
    return output


def plain(run: Interception, call: Call, operands: Sequence[Tensor]) -> Any:
    """Go on with the plain gradient, behind a gap."""
    result = run.native(call)
    run.set_tag(result, merge_tags([run.tag(t) for t in operands]))
    return result


def _tuple(value: Numbers, dimensions: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


TABLE: Mapping[str, Entry] = {
    "linear": linear,
    "matmul": matmul,
    "addmm": addmm,
    **{f"conv{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": transposed_convolution(n) for n in (1, 2, 3)},
}
