"""Normalisation: statistics in the denominator count as constants, so that the operation is linear.

Batch norm in evaluation is scale·x + shift, with constants for each channel. Directly after or before a
linear operation, it is folded into that operation. Elsewhere it has its plain gradient and the shift absorbs
its part, unless a composite names a rule for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.names import aten_names
from relprop.calls.nested import map_tensors
from relprop.calls.site import Kind
from relprop.crossing.exact import Exact, as_function
from relprop.crossing.folding import affine, fold
from relprop.crossing.ruled import LinearOrigin, attach_rule, linear_origin
from relprop.engine.interception import Entry
from relprop.engine.keep import Kept
from relprop.engine.known import Normalised, Tag, role_of
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, value_of
from relprop.linear.maps import Scaling
from relprop.linear.numerics import times
from relprop.linear.operation import Incoming


def batch_norm(run: Run, call: Call, x: Seen, weight: Any, bias: Any, *_options: Any) -> Any:
    """Batch norm with running statistics, by any of torch's kernels."""
    mean, variance = call.argument("running_mean"), call.argument("running_var")
    eps = call.argument("eps", call.argument("epsilon"))
    training = call.argument("training", call.argument("use_input_stats", False))
    training = training or call.operation == "_batch_norm_with_update"
    if training and mean is None and x.shape[0] == 1:  # how torch writes an instance norm
        weight, bias = (_per_channel(v, x) for v in (weight, bias))
        return _standardised(run, call, x, (*x.shape[:2], -1), weight, bias, eps)
    if training or mean is None or variance is None:
        run.gap(
            call.name,
            "it normalises by statistics of the batch, which mixes the samples; call model.eval(), or give "
            "it running statistics",
        )
        return Exact()(run, call)
    mean, variance, weight, bias = (value_of(v) for v in (mean, variance, weight, bias))
    scale = (variance.detach() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach()
    none = torch.zeros_like(scale) if bias is None else bias.detach()
    return _affine(run, call, x, scale, torch.addcmul(none, mean.detach(), scale, value=-1))


def _affine(run: Run, call: Call, x: Seen, scale: Tensor, shift: Tensor) -> Any:
    """scale·x + shift, with one scale and one shift for each channel."""
    result = run.value(call)
    value: Tensor = result if isinstance(result, Tensor) else result[0]
    linear, output = linear_origin(x), None
    if linear is not None:
        output = fold(run, linear, lambda: value, scale=_per_channel(scale, x), shift=_per_channel(shift, x))
    if output is None:
        output = _alone(run, call, x, value, scale, shift)
    return _first_of(run, result, output)


def _first_of(run: Run, result: Any, output: Seen) -> Any:
    """Return a call's output together with the other results of its kernel, as constants."""
    if isinstance(result, Tensor):
        return output
    return (output, *map_tensors(lambda t: run.seen(t, None), list(result[1:])))


def _alone(run: Run, call: Call, x: Seen, value: Tensor, scale: Tensor, shift: Tensor) -> Seen:
    tag, name, path = x.tag, call.name, run.modules.path
    rule = run.choose(run.site(call, Kind.NORMALISATION, tag.behind))
    shape = (-1, *[1] * (x.dim() - 2))
    aligned_scale, aligned_shift = scale.reshape(shape), shift.reshape(shape)
    if rule is not None:
        run.apply(call, rule)
        origin = LinearOrigin(
            recorded=x.recorded,
            tag=tag,
            weight=scale,
            kept_weight=run.keep_constant(scale),
            kept_bias=run.keep_constant(aligned_shift),
            map=Scaling(),
            rule=rule,
            path=path,
            operation=name,
            own_weight=scale,
            behind=tag.behind,
        )
        return attach_rule(run, origin, value, counts=False)

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        if c is None:
            return [(None, direct)]
        run.ledger.add("shift", times(c, aligned_shift), path, name)
        return [(c * aligned_scale, direct)]

    later = affine(x, ("scale", aligned_scale), ("shift", aligned_shift))
    return run.cross(value, [x], back, Tag(tag.behind, origin=later, role=role_of(tag)))


def layer_norm(
    run: Run, call: Call, x: Seen, size: Sequence[int], weight: Any, bias: Any, eps: float, *_: Any
) -> Any:
    """Layer norm over the last dimensions."""
    shape = (*x.shape[: x.dim() - len(size)], -1)
    return _standardised(run, call, x, shape, weight, bias, eps)


def rms_norm(run: Run, call: Call, x: Seen, size: Sequence[int], weight: Any, eps: float | None) -> Any:
    """RMS norm over the last dimensions."""
    shape = (*x.shape[: x.dim() - len(size)], -1)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _standardised(run, call, x, shape, weight, None, eps, centred=False)


def group_norm(
    run: Run, call: Call, x: Seen, groups: int, weight: Any, bias: Any, eps: float, *_: Any
) -> Any:
    """Group norm: each sample's groups of channels."""
    weight, bias = (_per_channel(v, x) for v in (weight, bias))
    return _standardised(run, call, x, (x.shape[0], groups, -1), weight, bias, eps)


def native_group_norm(
    run: Run,
    call: Call,
    x: Seen,
    weight: Any,
    bias: Any,
    _n: int,
    _c: int,
    _size: int,
    groups: int,
    eps: float,
) -> Any:
    """The kernel of group norm."""
    return group_norm(run, call, x, groups, weight, bias, eps)


def instance_norm(
    run: Run,
    call: Call,
    x: Seen,
    weight: Any,
    bias: Any,
    _mean: Any,
    _variance: Any,
    of_input: bool,
    _momentum: float,
    eps: float,
    *_: Any,
) -> Any:
    """Instance norm: each sample's channels, by their own statistics or by running ones."""
    if not of_input:
        return batch_norm(run, call, x, weight, bias)
    weight, bias = (_per_channel(v, x) for v in (weight, bias))
    return _standardised(run, call, x, (*x.shape[:2], -1), weight, bias, eps)


def _per_channel(values: Any, x: Tensor) -> Any:
    """One value a channel, (C,), shaped for broadcasting against x of shape (N, C, ...)."""
    return None if values is None else value_of(values).detach().reshape(-1, *[1] * (x.dim() - 2))


def _standardised(
    run: Run,
    call: Call,
    x: Seen,
    shape: tuple[int, ...],
    weight: Any,
    bias: Any,
    eps: float,
    centred: bool = True,
) -> Any:
    """(x - mean)/√(variance + ε)·weight + bias, over the last dimension of x in the given shape."""
    # The backward must not hold the tag: its origin has the operands of what made x.
    tag, step, name, path = x.tag, x.tag.step, call.name, run.modules.path
    result, kept_x = run.value(call), run.keep(x.recorded)
    kept_weight, kept_bias = (None if v is None else run.keep_constant(value_of(v)) for v in (weight, bias))

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        if c is None:
            return [(None, direct)]
        if kept_bias is not None:
            bias = kept_bias.value
            # Summed over a row at once, which saves two passes. A step is counted in elements of whole rows.
            by_row = bias.dim() == 1 and c.dim() > 1 and step is None and c.dtype == bias.dtype
            shift = c @ bias if by_row else times(c, bias)
            run.ledger.add("shift", shift, path, name, step)
        groups = kept_x.value.reshape(shape)
        groups = groups - groups.mean(-1, keepdim=True) if centred else groups
        deviation = (groups.square().mean(-1, keepdim=True) + eps).sqrt()
        on_groups = (c if kept_weight is None else c * kept_weight.value).reshape(shape) / deviation
        if centred:
            on_groups = on_groups - on_groups.mean(-1, keepdim=True)
        return [(on_groups.reshape(c.shape), direct)]

    standardise = as_function(run, call)

    def again() -> Kept:
        output = standardise([kept_x.value])
        return Kept(output if isinstance(output, Tensor) else output[0])

    value = result if isinstance(result, Tensor) else result[0]
    origin = Normalised(recorded=x.recorded, tag=tag)
    known = Tag(tag.behind.after(plain=False), origin=origin, role=role_of(tag), step=step, again=again)
    return _first_of(run, result, run.cross(value, [x], back, known))


TABLE: Mapping[str, Entry] = {
    **dict.fromkeys(aten_names("batch_norm"), batch_norm),
    **dict.fromkeys(aten_names("layer_norm"), layer_norm),
    **dict.fromkeys(aten_names("rms_norm"), rms_norm),
    "group_norm": group_norm,
    "native_group_norm": native_group_norm,
    "instance_norm": instance_norm,
}
