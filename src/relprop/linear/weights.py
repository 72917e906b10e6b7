"""A cache of modified weights (|w|, w⁺, w², ...), kept as long as the weight exists and is unchanged.

The cache finds a weight by weak reference, never by `id()` or address alone. It refers to a parameter by the
storage of its values, because torch swaps no parameter that has a weak reference (`torch.utils.swap_tensors`,
which `module.double()` and `load_state_dict` call if they are told to). It refers to any other tensor itself:
`weight.data`, made anew for each call, has a version counter of its own each time.

The cache detects a change by autograd's version counter. Writing through `weight.data` or `weight.numpy()`
does not raise the version. A sample of the values detects such writes, unless no sampled element changed. To
edit single weights, use `torch.no_grad()` instead.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls.nested import tensors_in
from relprop.calls.traced import is_recorded

_SAMPLED = 1024

Made = TypeVar("Made")


@dataclass
class _Entry:
    state: tuple[int, int]
    sample: Tensor
    modified: dict[str, tuple[Hashable, Any]] = field(default_factory=dict)


_of_tensors: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

_Layout = tuple[Hashable, ...]
_of_parameters: WeakKeyDictionary[UntypedStorage, dict[_Layout, _Entry]] = WeakKeyDictionary()
"""By storage, and by offset, shape, strides and dtype: several parameters may have one storage."""


def modified(weight: Tensor, purpose: str, make: Callable[[Tensor], Made], key: Hashable = None) -> Made:
    """Return `make(weight)`, from the cache if the weight is unchanged.

    Args:
        weight: the tensor that the model holds. The results for a detached alias would be dropped with the
            alias.
        purpose: what `make` computes; one result is kept for each purpose.
        make: function of the detached weight.
        key: what else the result depends on, such as a shape. A result for another key is replaced.
    """
    # A tensor of inference mode has no version counter, so a change could not be detected.
    if weight.is_inference() or weight.layout != torch.strided:
        return make(weight)
    if is_recorded():  # what is made may depend on the length of a text, as a mean's 1 / n that is folded
        return make(weight.detach())
    entry = _entry(weight)
    known = entry.modified.get(purpose)
    if known is not None and known[0] == key:
        before: Made = known[1]
        return before
    result = make(weight.detach())
    if isinstance(result, Tensor) and same_storage(result, weight):
        return result  # which would keep the weight
    if any([type(t) is not Tensor for t in tensors_in(result)]):
        return result  # as a mode around the explanation makes it, which may be over the next time
    entry.modified[purpose] = (key, result)
    return result


def _entry(weight: Tensor) -> _Entry:
    state = (weight._version, weight.data_ptr())
    sample = _sample(weight)
    entry: _Entry | None
    if not isinstance(weight, nn.Parameter):
        entry = _of_tensors.get(weight)  # type: ignore[no-untyped-call]
        if entry is None or entry.state != state or not _same(entry.sample, sample):
            entry = _of_tensors[weight] = _Entry(state, sample.clone())
        return entry
    layout = (weight.storage_offset(), weight.shape, weight.stride(), weight.dtype)
    entries = _of_parameters.setdefault(weight.untyped_storage(), {})
    entry = entries.get(layout)
    if entry is None or entry.state != state or not _same(entry.sample, sample):
        entry = entries[layout] = _Entry(state, sample.clone())
    return entry


def same_storage(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share their storage."""
    return a.layout == torch.strided and a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _sample(weight: Tensor) -> Tensor:
    values, count = weight.detach(), weight.numel()
    step = count // _SAMPLED | 1  # odd, so that the sample does not stay in a few columns
    whole = count * weight.element_size() == weight.untyped_storage().nbytes()
    # A tensor that fills its storage is sampled in the order of memory: no layout needs a copy then.
    return values.as_strided((-(-count // step),), (step,), 0) if whole else values.reshape(-1)[::step]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def absolute(weight: Tensor, factor: float = 1.0) -> Tensor:
    """|w|, times a factor."""
    if factor == 1:
        return modified(weight, "absolute", torch.abs)
    return modified(weight, "absolute times a factor", lambda w: w.abs() * factor, key=factor)


def positive(weight: Tensor) -> Tensor:
    """w⁺ = max(0, w)."""
    return modified(weight, "positive", lambda w: w.clamp(min=0))


def negative(weight: Tensor) -> Tensor:
    """w⁻ = min(0, w)."""
    return modified(weight, "negative", lambda w: w.clamp(max=0))


def square(weight: Tensor) -> Tensor:
    """w² relative to the largest w², which avoids overflow and underflow."""
    return modified(
        weight, "square", lambda w: (w / w.abs().amax().clamp(min=torch.finfo(w.dtype).tiny)) ** 2
    )


def favoured(weight: Tensor, gamma: float) -> Tensor:
    """w + γ·w⁺."""
    return modified(weight, "favoured", lambda w: w + gamma * w.clamp(min=0), key=gamma)
