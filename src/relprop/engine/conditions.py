"""Which part of an inner value's relevance is passed on: channels, masks, or functions that make masks."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError

Condition = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor]
"""Which part of an inner value's relevance is passed on.

Channels (dimension 1, or the last of sequences of vectors) by number, or as a tensor of integers; a mask that
broadcasts to the value; or a function from the relevance to such a mask.
"""


def channel_dimension(module: nn.Module, value: Tensor) -> int:
    """Return the channel dimension of a module's output: 1, or the last if it is a sequence of vectors.

    It is the last dimension if a layer such as a dense layer, a layer norm or an embedding has a parameter of
    its size, and no convolution or batch norm has a parameter of the size of dimension 1.
    """
    if value.dim() < 3:
        return 1
    of_vectors = of_maps = False
    for part in module.modules():
        sizes = {size for p in part.parameters(recurse=False) for size in p.shape}
        if isinstance(part, (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase)):
            of_maps = of_maps or value.shape[1] in sizes
        else:
            of_vectors = of_vectors or value.shape[-1] in sizes
    return value.dim() - 1 if of_vectors and not of_maps else 1


def mask_of(name: str, condition: Condition, value: Tensor, dimension: int) -> Callable[[Tensor], Tensor]:
    """Check a condition against its inner value, and return the mask as a function of relevance.

    Raises:
        InputError: the condition does not fit the value.
    """
    place, shape = f"conditions[{name}]", tuple(value.shape)
    refused = InputError(
        f"{place}={condition!r}: give channel numbers, a mask, or a function that returns a mask."
    )
    if hasattr(condition, "__array__") and not isinstance(condition, Tensor):  # of NumPy
        condition = torch.as_tensor(condition)
    if callable(condition) and not isinstance(condition, Tensor):
        function = condition
        return lambda R: _broadcast(place, _made_mask(place, function(R.clone()), R), R)
    if isinstance(condition, Tensor) and (condition.dtype == torch.bool or condition.is_floating_point()):
        mask = _broadcast(place, _require_numbers(place, condition), value)
        return lambda R: mask
    try:
        channels = torch.as_tensor(condition, device=value.device)
    except (TypeError, ValueError, RuntimeError):
        raise refused from None
    if channels.is_floating_point() or channels.dtype == torch.bool or channels.is_complex():
        raise refused
    if channels.dim() > 1 or channels.numel() == 0:
        raise refused
    if value.dim() < 2:
        raise InputError(
            f"{place}: the module's output has shape {shape}, which has no channels; give a mask."
        )
    channels = channels.reshape(-1)
    count = shape[dimension]
    wrong = [int(i) for i in channels if not 0 <= i < count]
    if wrong:
        raise InputError(
            f"{place}: channel {', '.join(map(str, wrong))} is out of range; the module's output has shape "
            f"{shape}, channels 0 to {count - 1}."
        )
    one = torch.zeros(count, dtype=value.dtype, device=value.device).index_fill(0, channels, 1)
    aligned = one.reshape(-1, *[1] * (value.dim() - 1 - dimension))
    return lambda R: aligned


def _made_mask(place: str, mask: Any, R: Tensor) -> Tensor:
    """Return the mask that a function made, as a tensor.

    Raises:
        InputError: it is no mask.
    """
    try:
        return _require_numbers(place, torch.as_tensor(mask, device=R.device))
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{place}: the function returned {mask!r}. It must return a mask that broadcasts to relevance of "
            f"shape {tuple(R.shape)}, such as R > 0."
        ) from None


def _require_numbers(place: str, mask: Tensor) -> Tensor:
    if mask.is_complex() or not bool(mask.isfinite().all()):
        raise InputError(
            f"{place}: the mask has elements that are no finite real numbers. Give the share of relevance "
            "that goes on, 0 to 1, or true and false."
        )
    return mask


def _broadcast(place: str, mask: Tensor, value: Tensor) -> Tensor:
    try:
        return mask.detach().to(value).expand(value.shape)
    except RuntimeError:
        raise InputError(
            f"{place}: a mask of shape {tuple(mask.shape)} does not broadcast to the module's output of "
            f"shape {tuple(value.shape)}. Channels can be given by their numbers."
        ) from None
