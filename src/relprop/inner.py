"""Relevance of inner values, by the path of the module that returned them: kept, masked, or started from.

A module's output is replaced by the same value with a backward of our own, which notes what relevance
arrives, and lets on of it what a condition lets pass.
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import map_tensors, tensors_in
from relprop.errors import InputError
from relprop.intercept import Interception
from relprop.linear_operations import Incoming
from relprop.provenance import Origin, Watch

T = TypeVar("T", bound=Origin)

Condition = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor]
"""Which part of an inner value's relevance goes on.

Channels (dimension 1) by number; a mask that broadcasts to the value; or a function from the relevance to it.
"""

Start = str | tuple[str, int]
"""A module's path and, where it was called several times, the number of the call, from 0."""


@dataclass
class _Value:
    """One tensor that a module returned: its shape, and what arrived there in the present backward."""

    like: Tensor
    relevance: Tensor | None = None


@dataclass
class InnerValues:
    """What a run does at the outputs of modules.

    Attributes:
        record: globs on the paths whose relevance is kept.
        conditions: by path or glob, which part of relevance goes on.
        start: where relevance starts, instead of the model's output.
    """

    record: Collection[str] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    start: Start | None = None
    _paths: dict[str, None] = field(default_factory=dict)
    _calls: dict[str, list[Any]] = field(default_factory=dict)
    _outputs: list[Any] = field(default_factory=list)

    def after_module(self, run: Interception, path: str, output: Any) -> Any:
        """Return what takes the place of a module's output."""
        self._paths[path] = None
        if path == self._start_path:
            self._outputs.append(output)
        recorded = any(fnmatchcase(path, glob) for glob in self.record)
        conditions = [key for key in self.conditions if fnmatchcase(path, key)]
        if not recorded and not conditions:
            return output
        values: list[_Value] = []

        def replaced(tensor: Tensor) -> Tensor:
            if not run.relevant(tensor):
                return tensor
            values.append(_Value(tensor.detach()[:0]))
            return self._attach(run, path, tensor, conditions, values[-1])

        output = map_tensors(replaced, output)
        if recorded:
            self._calls.setdefault(path, []).append(values)
        return output

    def _attach(
        self, run: Interception, path: str, tensor: Tensor, conditions: list[str], value: _Value
    ) -> Tensor:
        masks = [_mask(key, self.conditions[key], tensor) for key in conditions]
        kept, tag = run.keep(tensor), run.tag(tensor)
        value.like = tensor.new_empty(()).expand(tensor.shape)

        def watch(c: Tensor | None, direct: Tensor | None, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
            for make in masks:
                R = Incoming(c, direct, z).relevance
                mask = make(R)
                run.ledger.add("condition", R * (1 - mask), path, "condition")
                c = None if c is None else c * mask
                direct = None if direct is None else direct * mask
            R = Incoming(c, direct, z).relevance
            value.relevance = R if value.relevance is None else value.relevance + R
            return c, direct

        output, slot = attach_with_slot(
            tensor.detach().clone(),
            tensor,
            run.slot(tensor),
            lambda c, direct: watch(c, direct, kept.value),
        )
        # A later operation that attaches to what lies before this value watches in its place.
        origin, pointwise = _watched(tag.origin, watch), _watched(tag.pointwise, watch)
        run.set_tag(output, replace(tag, slot=slot, origin=origin, pointwise=pointwise))
        return output

    def started(self) -> Any:
        """The inner value that relevance starts from."""
        assert self.start is not None
        call = None if isinstance(self.start, str) else self.start[1]
        if call is None and len(self._outputs) > 1:
            raise InputError(
                f"start={self.start!r}: that module was called {len(self._outputs)} times; say which call, "
                f"as in "
                f"start=({self.start!r}, 0)."
            )
        if call is not None and not -len(self._outputs) <= call < len(self._outputs):
            raise InputError(f"start={self.start!r}: that module was called {len(self._outputs)} times.")
        return self._outputs[call or 0]

    def require_matches(self) -> None:
        """Refuse paths that match no module.

        Raises:
            InputError: one does; near matches are offered.
        """
        places = [("record", glob) for glob in self.record]
        places += [("conditions", key) for key in self.conditions]
        places += [] if self._start_path is None else [("start", self._start_path)]
        for argument, place in places:
            if not any(fnmatchcase(path, place) for path in self._paths):
                near = difflib.get_close_matches(place, self._paths, n=3, cutoff=0.3)
                offer = f"near it are {', '.join(map(repr, near))}" if near else "the model calls no modules"
                raise InputError(f"{argument}={place!r} matches no module that ran; {offer}.")

    def begin(self) -> None:
        """Forget the relevance of an earlier backward."""
        for calls in self._calls.values():
            for values in calls:
                for value in values:
                    value.relevance = None

    def relevance(self) -> dict[str, list[Tensor | tuple[Tensor, ...]]]:
        """Relevance by path: for each call of the module that of its output; zero where none arrived."""
        return {
            path: [_alone([_arrived(value) for value in values]) for values in calls]
            for path, calls in self._calls.items()
        }

    @property
    def _start_path(self) -> str | None:
        return self.start[0] if isinstance(self.start, tuple) else self.start


def _watched(origin: T | None, watch: Watch) -> T | None:
    return None if origin is None else replace(origin, watches=(*origin.watches, watch))


def _arrived(value: _Value) -> Tensor:
    return torch.zeros_like(value.like) if value.relevance is None else value.relevance


def _alone(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def _mask(path: str, condition: Condition, value: Tensor) -> Callable[[Tensor], Tensor]:
    """Check a condition against the value that it is for, and return the mask as a function of relevance."""
    place, shape = f"conditions[{path!r}]", tuple(value.shape)
    if callable(condition) and not isinstance(condition, Tensor):
        function = condition
        return lambda R: _broadcast(place, torch.as_tensor(function(R)), R)
    if isinstance(condition, Tensor):
        mask = _broadcast(place, condition, value)
        return lambda R: mask
    if isinstance(condition, str) or (isinstance(condition, Sequence) and len(condition) == 0):
        raise InputError(
            f"{place}={condition!r}: give channel numbers, a mask, or a function that makes one."
        )
    channels = torch.as_tensor(condition, device=value.device).reshape(-1)
    if channels.is_floating_point() or channels.dtype == torch.bool or value.dim() < 2:
        raise InputError(
            f"{place}={condition!r}: give channel numbers, a mask, or a function that makes one."
        )
    wrong = [int(i) for i in channels if not 0 <= i < shape[1]]
    if wrong:
        raise InputError(
            f"{place}: channel {', '.join(map(str, wrong))} is out of range; the module's output has shape "
            f"{shape}, channels 0 to {shape[1] - 1}."
        )
    one = torch.zeros(shape[1], dtype=value.dtype, device=value.device).index_fill(0, channels, 1)
    aligned = one.reshape(-1, *[1] * (value.dim() - 2))
    return lambda R: aligned


def _broadcast(place: str, mask: Tensor, value: Tensor) -> Tensor:
    try:
        return mask.detach().to(value).expand(value.shape)
    except RuntimeError:
        raise InputError(
            f"{place}: a mask of shape {tuple(mask.shape)} does not broadcast to the module's output of "
            f"shape "
            f"{tuple(value.shape)}."
        ) from None


def outputs_of(value: Any) -> Any:
    """An inner value as scores for a class target: summed over positions, (samples, channels)."""
    tensors = list(tensors_in(value))
    if len(tensors) == 1 and tensors[0].dim() > 2:
        return tensors[0].flatten(2).sum(2)
    return value
