"""Modified weights (|w|, w⁺, w², ...) are computed once and kept as long as the weight lives, unchanged.

The cache knows a weight by weak reference, never by `id()` or address alone, and a change of it by
autograd's version counter. Writing through `weight.data` or `weight.numpy()` counts no version; a sample of
the values catches such writes, short of one that leaves all the sampled elements as they were (to edit single
weights, use `torch.no_grad()` instead).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_SAMPLED = 1024

Made = TypeVar("Made")


@dataclass
class _Entry:
    state: tuple[int, int]
    sample: Tensor
    modified: dict[str, tuple[Hashable, Any]] = field(default_factory=dict)


_cache: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def modified(weight: Tensor, purpose: str, make: Callable[[Tensor], Made], key: Hashable = None) -> Made:
    """Return `make(weight)`, from the cache where the weight is still the same.

    Args:
        weight: as the model holds it (a detached alias would be forgotten with the alias).
        purpose: what `make` computes; one result is kept for each purpose.
        make: function of the detached weight.
        key: what else the result depends on, such as a shape; a result for another key is replaced.
    """
    if weight.is_inference():  # counts no versions: whether it is still the same cannot be known
        return make(weight)
    entry = _entry(weight)
    known = entry.modified.get(purpose)
    if known is not None and known[0] == key:
        before: Made = known[1]
        return before
    result = make(weight.detach())
    entry.modified[purpose] = (key, result)
    return result


def _entry(weight: Tensor) -> _Entry:
    state = (weight._version, weight.data_ptr())
    sample = _sample(weight)
    entry: _Entry | None = _cache.get(weight)  # type: ignore[no-untyped-call]
    if entry is None or entry.state != state or not _same(entry.sample, sample):
        entry = _cache[weight] = _Entry(state, sample.clone())
    return entry


def _sample(weight: Tensor) -> Tensor:
    values, count = weight.detach(), weight.numel()
    step = count // _SAMPLED | 1  # odd, so that it walks through columns
    whole = count * weight.element_size() == weight.untyped_storage().nbytes()
    # In the order of memory where that has no gaps, so that no layout needs a copy.
    return values.as_strided((-(-count // step),), (step,), 0) if whole else values.reshape(-1)[::step]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def absolute(weight: Tensor) -> Tensor:
    """|w|."""
    return modified(weight, "absolute", torch.abs)


def positive(weight: Tensor) -> Tensor:
    """w⁺ = max(0, w)."""
    return modified(weight, "positive", lambda w: w.clamp(min=0))


def negative(weight: Tensor) -> Tensor:
    """w⁻ = min(0, w)."""
    return modified(weight, "negative", lambda w: w.clamp(max=0))


def square(weight: Tensor) -> Tensor:
    """w², relative to the largest, so that it neither over- nor underflows."""
    return modified(
        weight, "square", lambda w: (w / w.abs().amax().clamp(min=torch.finfo(w.dtype).tiny)) ** 2
    )


def favoured(weight: Tensor, gamma: float) -> Tensor:
    """w + γ·w⁺."""
    return modified(weight, "favoured", lambda w: w + gamma * w.clamp(min=0), key=gamma)
