"""Modified weights (|w|, w⁺, w², ...) are computed once and kept as long as the weight lives, unchanged.

The cache knows a weight by weak reference, never by `id()` or address alone, and a change of it by
autograd's version counter. Writing through `weight.data` counts no version; a sample of the values catches
such writes, short of one that leaves all the sampled elements as they were (editing single weights through
`.data`: use `torch.no_grad()` instead).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_SAMPLED = 1024


@dataclass
class _Entry:
    state: tuple[int, int]
    sample: Tensor
    modified: dict[str, tuple[Hashable, Tensor]] = field(default_factory=dict)


_cache: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def modified(weight: Tensor, purpose: str, make: Callable[[Tensor], Tensor], key: Hashable = None) -> Tensor:
    """Return `make(weight)`, from the cache where the weight is still the same.

    Args:
        weight: as the model holds it (a detached alias would be forgotten with the alias).
        purpose: what `make` computes; one result is kept for each purpose.
        make: function of the detached weight.
        key: what else the result depends on, such as a shape; a result for another key is replaced.
    """
    entry = _entry(weight)
    known = entry.modified.get(purpose)
    if known is not None and known[0] == key:
        return known[1]
    result = make(weight.detach())
    entry.modified[purpose] = (key, result)
    return result


def clear_cache() -> None:
    """Forget all modified weights, to free their memory."""
    _cache.clear()


def _entry(weight: Tensor) -> _Entry:
    state = (0 if weight.is_inference() else weight._version, weight.data_ptr())
    sample = _sample(weight)
    entry: _Entry | None = _cache.get(weight)  # type: ignore[no-untyped-call]
    if entry is None or entry.state != state or not _same(entry.sample, sample):
        entry = _cache[weight] = _Entry(state, sample)
    return entry


def _sample(weight: Tensor) -> Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLED)].clone()


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
    """w²."""
    return modified(weight, "square", torch.square)


def favoured(weight: Tensor, gamma: float) -> Tensor:
    """w + γ·w⁺."""
    return modified(weight, "favoured", lambda w: w + gamma * w.clamp(min=0), key=gamma)
