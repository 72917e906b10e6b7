"""Relevance of module outputs, by module path: recorded, masked, or the start of the propagation.

A module's output is replaced by the same value with another backward. This backward records the relevance
that arrives, and passes on the part that the conditions select.
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from relprop.calls.nested import map_tensors, tensors_in
from relprop.engine.known import Origin, Watch, empty_slot
from relprop.engine.observer import Observer
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, inner_of, is_relevant
from relprop.errors import InputError
from relprop.linear.operation import Incoming

T = TypeVar("T", bound=Origin)

Condition = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor]
"""Which part of an inner value's relevance is passed on.

Channels (dimension 1, or the last of sequences of vectors) by number, or as a tensor of integers; a mask that
broadcasts to the value; or a function from the relevance to such a mask.
"""

Start = str | tuple[str, int]
"""A module path. If the module is called several times, the path and the number of the call, from 0."""


@dataclass
class _Value:
    """One tensor that a module returned.

    Attributes:
        like: a tensor of the same shape and type.
        relevance: the relevance that arrived in the present backward, or None.
    """

    like: Tensor
    relevance: Tensor | None = None


@dataclass
class _Call:
    """One call of a module.

    Attributes:
        late: whether the module ran in the backward, as parts of a checkpointed model do a second time.
        values: the tensors that the module returned.
    """

    late: bool
    values: list[_Value] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        """Whether the call is reported: any call of the forward, or a late call where relevance arrived."""
        return not self.late or any(value.relevance is not None for value in self.values)


class InnerValues(Observer):
    """Records and masks relevance at the outputs of modules.

    Args:
        run: the run, as entries see it.
        record: globs; relevance is recorded at modules whose paths match.
        conditions: by path or glob, which part of the relevance is passed on.
        start: where relevance starts, instead of at the model's output.
    """

    def __init__(
        self, run: Run, record: Collection[str], conditions: Mapping[str, Condition], start: Start | None
    ) -> None:
        self.run = run
        self.record = record
        self.conditions = conditions
        self.start = start
        self._paths: dict[str, None] = {}
        self._calls: dict[str, list[_Call]] = {}
        self._outputs: list[tuple[Any, list[int]]] = []
        self._forward_is_over = False

    @property
    def wanted(self) -> bool:
        """Whether anything is to be recorded, masked or started from."""
        return bool(self.record or self.conditions) or self.start is not None

    def after_module(self, path: str, module: nn.Module, output: Any) -> Any:
        if not torch.is_grad_enabled():
            return output
        run = self.run
        self._paths[path] = None
        recorded = any(fnmatchcase(path, glob) for glob in self.record)
        conditions = [key for key in self.conditions if fnmatchcase(path, key)]
        if recorded or conditions:
            call = _Call(self._forward_is_over)
            output = map_tensors(
                lambda t: self._attach(run, path, module, t, conditions, call) if is_relevant(t) else t,
                output,
            )
            if conditions and not call.values:
                raise InputError(
                    f"conditions[{conditions[0]!r}]: the module returned {_kind(output)}, in which nothing "
                    "depends on the explained inputs."
                )
            if recorded:
                self._calls.setdefault(path, []).append(call)
        if path == self._start_path and not self._forward_is_over:
            # Another wrapper tensor, because the model may overwrite the output in place.
            dimensions = [channel_dimension(module, t) for t in tensors_in(output)]
            copied = map_tensors(lambda t: _copy(run, t) if is_relevant(t) else t, output)
            self._outputs.append((copied, dimensions))
        return output

    def _attach(
        self, run: Run, path: str, module: nn.Module, seen: Seen, conditions: list[str], call: "_Call"
    ) -> Tensor:
        value = inner_of(seen).detach()
        channels = channel_dimension(module, value)
        masks = [_mask(key, self.conditions[key], value, channels) for key in conditions]
        kept, tag = run.keep(value), seen.tag
        noted = _Value(empty_slot(value))
        call.values.append(noted)

        def watch(c: Tensor | None, direct: Tensor | None, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
            for make in masks:
                R = Incoming(c, direct, z).relevance
                mask = make(R)
                run.ledger.add("condition", R * (1 - mask), path, "condition", tag.step)
                c = None if c is None else c * mask
                direct = None if direct is None else direct * mask
            R = Incoming(c, direct, z).relevance
            noted.relevance = R if noted.relevance is None else noted.relevance + R
            return c, direct

        def back(incoming: Incoming) -> list[Outgoing]:
            return [watch(incoming.c, incoming.direct, kept.value)]

        # A later operation that attaches to an earlier tensor bypasses this value, and calls `watch` itself.
        origin, pointwise = _watched(tag.origin, watch), _watched(tag.pointwise, watch)
        output = run.cross(value, [seen], back, replace(tag, origin=origin, pointwise=pointwise))
        output.replaces(seen)
        return output

    def started(self) -> tuple[Any, list[int]]:
        """Return the inner value that relevance starts from, and the channel dimension of each tensor in it.

        Raises:
            InputError: the module was called several times and no call is chosen, or there is no such call.
        """
        assert self.start is not None
        call, times = None if isinstance(self.start, str) else self.start[1], len(self._outputs)
        if call is None and times > 1:
            raise InputError(
                f"start={self.start!r}: that module was called {times} times; say which call, as in "
                f"start=({self.start!r}, 0)."
            )
        if call is not None and not -times <= call < times:
            raise InputError(
                f"start={self.start!r}: that module was called {times} times; the calls count from 0."
            )
        return self._outputs[call or 0]

    def release(self) -> None:
        self._outputs.clear()  # values that relevance could start from

    def end_forward(self) -> None:
        self._forward_is_over = True
        places = [("record", glob) for glob in self.record]
        places += [("conditions", key) for key in self.conditions]
        places += [] if self._start_path is None else [("start", self._start_path)]
        for argument, place in places:
            found = place in self._paths
            if not found and (argument == "start" or not any(fnmatchcase(p, place) for p in self._paths)):
                paths = [path for path in self._paths if path]
                near = difflib.get_close_matches(place, paths, n=3, cutoff=0.3)
                offer = (
                    "near it are " if near else "the paths are " if paths else "the model calls no modules"
                )
                offer += ", ".join(map(repr, near or paths[:4])) + (
                    ", ..." if len(paths) > 4 and not near else ""
                )
                raise InputError(f"{argument}={place!r} matches no module that ran; {offer}.")

    def begin(self) -> None:
        for call in chain.from_iterable(self._calls.values()):
            for value in call.values:
                value.relevance = None

    def relevance(self) -> dict[str, list[Tensor | tuple[Tensor, ...]]]:
        """Return, by path, the relevance of the output of each call of the module; zero if none arrived."""
        return {
            path: [_alone([_arrived(value) for value in call.values]) for call in calls if call.counts]
            for path, calls in self._calls.items()
        }

    @property
    def _start_path(self) -> str | None:
        return self.start[0] if isinstance(self.start, tuple) else self.start


def _watched(origin: T | None, watch: Watch) -> T | None:
    return None if origin is None else replace(origin, watches=(watch, *origin.watches))


def _copy(run: Run, seen: Seen) -> Tensor:
    return run.seen(seen.recorded, replace(seen.tag, origin=None, pointwise=None))


def _arrived(value: _Value) -> Tensor:
    return torch.zeros_like(value.like) if value.relevance is None else value.relevance


def _kind(value: Any) -> str:
    return "a constant tensor" if isinstance(value, Tensor) else type(value).__name__


def _alone(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


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


def _mask(path: str, condition: Condition, value: Tensor, dimension: int) -> Callable[[Tensor], Tensor]:
    """Check a condition against its inner value, and return the mask as a function of relevance.

    Raises:
        InputError: the condition does not fit the value.
    """
    place, shape = f"conditions[{path!r}]", tuple(value.shape)
    refused = InputError(
        f"{place}={condition!r}: give channel numbers, a mask, or a function that makes one."
    )
    if callable(condition) and not isinstance(condition, Tensor):
        function = condition
        return lambda R: _broadcast(place, torch.as_tensor(function(R)), R)
    if isinstance(condition, Tensor) and (condition.dtype == torch.bool or condition.is_floating_point()):
        mask = _broadcast(place, condition, value)
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


def _broadcast(place: str, mask: Tensor, value: Tensor) -> Tensor:
    try:
        return mask.detach().to(value).expand(value.shape)
    except RuntimeError:
        raise InputError(
            f"{place}: a mask of shape {tuple(mask.shape)} does not broadcast to the module's output of "
            f"shape {tuple(value.shape)}."
        ) from None


def outputs_of(value: Any, dimensions: Sequence[int]) -> Any:
    """Return an inner value as scores for a class target, (samples, channels).

    Args:
        value: a tensor, or several. A single tensor is summed over positions; several are returned unchanged.
        dimensions: channel dimension of each tensor.
    """
    tensors = list(tensors_in(value))
    if len(tensors) == 1 and tensors[0].dim() > 2:
        return tensors[0].movedim(dimensions[0], 1).flatten(2).sum(2)
    return value
