"""Normalisation: statistics in a denominator are constants; what remains is linear.

Batch norm in evaluation is scale·x + shift with constants for each channel. Behind a linear operation it is
folded into it, and a linear operation right behind it takes it in. Where it stands alone it has the gradient,
and the shift absorbs its part, unless a composite names a rule for it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear.maps import Scaling
from relprop.linear.numerics import times
from relprop.operations.exact import Exact
from relprop.operations.folding import fold
from relprop.operations.ruled import Affine, LinearOrigin, attach_rule
from relprop.provenance import Applied, Tag, merge_tags

NORMALISATION = "normalisation"
"""Kind of these sites, for composites."""


def batch_norm(run: Interception, call: Call) -> Any:
    """F.batch_norm with running statistics."""

    def arguments(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
        cudnn_enabled: bool = False,
    ) -> Any:
        return input, running_mean, running_var, weight, bias, training, eps

    x, mean, variance, weight, bias, training, eps = arguments(*call.args, **call.kwargs)
    if training or mean is None or variance is None:
        run.gap(
            call.name,
            "it normalises by statistics of the batch, which mixes the samples; call model.eval(), or give "
            "it running statistics",
        )
        return Exact()(run, call)
    scale = (variance.detach() + eps).rsqrt()
    shift = -mean.detach() * scale
    if weight is not None:
        scale, shift = scale * weight.detach(), shift * weight.detach()
    if bias is not None:
        shift = shift + bias.detach()
    return _affine(run, call, x, scale, shift)


def _affine(run: Interception, call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale·x + shift, one of each for each channel."""
    tag = run.tag(x)
    if isinstance(tag.origin, LinearOrigin) and tag.origin.intact:
        folded = fold(run, call, tag.origin, scale=_per_channel(scale, x), shift=_per_channel(shift, x))
        if folded is not None:
            return folded
    output = _alone(run, call, x, scale, shift)
    tag = run.tag(output)
    if tag.origin is not None:
        return output  # by a rule of its own
    origin = Affine(x=x, version=x._version, scale=scale, shift=shift)
    run.set_tag(output, Tag(tag.depth, tag.nonnegative, tag.slot, origin))
    return output


def _alone(run: Interception, call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    tag, name, path = run.tag(x), call.name, run.modules.path
    site = run.site(call, NORMALISATION, tag.depth)
    rule, value = run.choose(site), call.value()
    shape = (-1, *[1] * (x.dim() - 2))
    aligned_scale, aligned_shift = scale.reshape(shape), shift.reshape(shape)
    if rule is not None:
        run.applied.append(Applied(path, name, rule))
        origin = LinearOrigin(
            x=x,
            version=x._version,
            weight=scale,
            kept_weight=run.keep_constant(scale),
            kept_bias=run.keep_constant(aligned_shift),
            map=Scaling(),
            rule=rule,
            path=path,
            operation=name,
            own_weight=scale,
        )
        return attach_rule(run, origin, value, counts=0)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        if c is None:
            return None, direct
        run.ledger.add("shift", times(c, aligned_shift), path, name)
        return c * aligned_scale, direct

    output, out_slot = attach_with_slot(value, x, run.slot(x), backward)
    run.set_tag(output, merge_tags([tag], slot=out_slot))
    return output


def layer_norm(run: Interception, call: Call) -> Any:
    """F.layer_norm over the last dimensions."""

    def arguments(
        input: Tensor,
        normalized_shape: Any,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enable: bool = False,
    ) -> Any:
        return input, len(tuple(normalized_shape)), weight, bias, eps

    x, last, weight, bias, eps = arguments(*call.args, **call.kwargs)
    shape = (*x.shape[: x.dim() - last], -1)
    return _standardised(run, call, x, shape, weight, bias, eps)


def rms_norm(run: Interception, call: Call) -> Any:
    """F.rms_norm over the last dimensions."""

    def arguments(
        input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
    ) -> Any:
        eps = torch.finfo(input.dtype).eps if eps is None else eps
        return input, len(tuple(normalized_shape)), weight, eps

    x, last, weight, eps = arguments(*call.args, **call.kwargs)
    shape = (*x.shape[: x.dim() - last], -1)
    return _standardised(run, call, x, shape, weight, None, eps, centred=False)


def group_norm(run: Interception, call: Call) -> Any:
    """F.group_norm: each sample's groups of channels."""

    def arguments(
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = False,
    ) -> Any:
        return input, num_groups, weight, bias, eps

    x, groups, weight, bias, eps = arguments(*call.args, **call.kwargs)
    shape = (x.shape[0], groups, -1)
    return _standardised(run, call, x, shape, _per_channel(weight, x), _per_channel(bias, x), eps)


def instance_norm(run: Interception, call: Call) -> Any:
    """F.instance_norm: each sample's channels, by their own statistics or by running ones."""

    def arguments(
        input: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
        cudnn_enabled: bool = False,
    ) -> Any:
        return input, running_mean, running_var, weight, bias, use_input_stats, eps

    x, mean, variance, weight, bias, of_input, eps = arguments(*call.args, **call.kwargs)
    if not of_input:
        return batch_norm(
            run, Call(call.name, F.batch_norm, (x, mean, variance, weight, bias, False, 0.0, eps), {}, False)
        )
    shape = (*x.shape[:2], -1)
    return _standardised(run, call, x, shape, _per_channel(weight, x), _per_channel(bias, x), eps)


def _per_channel(values: Tensor | None, x: Tensor) -> Tensor | None:
    """One value a channel, (C,), shaped for broadcasting against x of shape (N, C, ...)."""
    return None if values is None else values.reshape(-1, *[1] * (x.dim() - 2))


def _standardised(
    run: Interception,
    call: Call,
    x: Tensor,
    shape: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    centred: bool = True,
) -> Tensor:
    """(x - mean)/√(variance + ε)·weight + bias, over the last dimension of x in the given shape."""
    tag, name, path = run.tag(x), call.name, run.modules.path
    value, kept_x = call.value(), run.keep(x)
    kept_weight, kept_bias = (None if v is None else run.keep_constant(v) for v in (weight, bias))

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        if c is None:
            return None, direct
        if kept_bias is not None:
            run.ledger.add("shift", times(c, kept_bias.value), path, name)
        groups = kept_x.value.reshape(shape)
        groups = groups - groups.mean(-1, keepdim=True) if centred else groups
        deviation = (groups.square().mean(-1, keepdim=True) + eps).sqrt()
        on_groups = (c if kept_weight is None else c * kept_weight.value).reshape(shape) / deviation
        if centred:
            on_groups = on_groups - on_groups.mean(-1, keepdim=True)
        return on_groups.reshape(c.shape), direct

    output, out_slot = attach_with_slot(value, x, run.slot(x), backward)
    run.set_tag(output, merge_tags([tag], slot=out_slot))
    return output


def local_response_norm(run: Interception, call: Call) -> Any:
    """F.local_response_norm: x/(k + α·mean of x² over neighbouring channels)^β."""

    def arguments(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
        return input, size, alpha, beta, k

    x, size, alpha, beta, k = arguments(*call.args, **call.kwargs)

    def denominator(x: Tensor) -> Tensor:
        over_channels = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
        padded = F.pad(over_channels, (0, 0, size // 2, (size - 1) // 2))
        mean: Tensor = F.avg_pool2d(padded, (size, 1), stride=1).reshape(x.shape)
        raised: Tensor = (k + alpha * mean) ** beta
        return raised

    return _over_constant(run, call, x, denominator)


def normalize(run: Interception, call: Call) -> Any:
    """F.normalize: x/‖x‖."""

    def arguments(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
        return input, p, dim, eps

    x, p, dim, eps = arguments(*call.args, **call.kwargs)
    return _over_constant(run, call, x, lambda x: x.norm(p, dim, keepdim=True).clamp_min(eps))


def _over_constant(
    run: Interception, call: Call, x: Tensor, denominator: Callable[[Tensor], Tensor]
) -> Tensor:
    """x over a positive statistic of its own, which counts as a constant."""
    tag, kept = run.tag(x), run.keep(x)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        return None if c is None else c / denominator(kept.value), direct

    output, slot = attach_with_slot(call.value(), x, run.slot(x), backward)
    run.set_tag(output, merge_tags([tag], nonnegative=tag.nonnegative, slot=slot))
    return output


TABLE: Mapping[str, Entry] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "local_response_norm": local_response_norm,
    "normalize": normalize,
}
