"""Relevance of module outputs, by module path: recorded, masked, or the start of the propagation.

A module's output is replaced by the same value with another backward. This backward records the relevance
that arrives, and passes on the part that the conditions select.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from relprop.calls.nested import map_tensors, tensors_in
from relprop.calls.site import original
from relprop.engine.conditions import Condition, channel_dimension, mask_of
from relprop.engine.known import Origin, Watch, empty_slot
from relprop.engine.observer import Observer
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, inner_of, is_relevant
from relprop.errors import InputError
from relprop.linear.operation import Incoming

T = TypeVar("T", bound=Origin)

Selector = str | nn.Module
"""Modules by path or glob, or a module itself."""

Start = Selector | tuple[Selector, int]
"""A module and, where it was called several times, the number of the call, from 0."""


@dataclass
class _Value:
    """One tensor that a module returned.

    Attributes:
        like: a tensor of the same shape and type.
        samples: which dimension the samples are, or None.
        relevance: the relevance that arrived in the present backward, or None.
    """

    like: Tensor
    samples: int | None
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
        run: what entries may use.
        record: modules whose relevance is kept.
        conditions: by module, which part of relevance goes on.
        start: where relevance starts, instead of the model's output.
    """

    def __init__(
        self,
        run: Run,
        record: Collection[Selector],
        conditions: Mapping[Selector, Condition] | None,
        start: Start | None,
    ) -> None:
        conditions = _checked(record, conditions, start)
        self.run = run
        self.record = record
        self.conditions = conditions
        self.start = start
        self._ran: dict[tuple[str, nn.Module], None] = {}
        self._calls: dict[str, list[_Call]] = {}
        self._outputs: list[tuple[Any, list[int]]] = []
        self._forward_is_over = False
        self.applied_before = 0

    @property
    def wanted(self) -> bool:
        """Whether anything is to be recorded, masked or started from."""
        return bool(self.record or self.conditions) or self.start is not None

    def after_module(self, path: str, module: nn.Module, output: Any) -> Any:
        # The wrapper of torch.compile has the path of the module in it, whose output was seen already.
        if not torch.is_grad_enabled() or original(module) is not module:
            return output
        run = self.run
        self._ran[path, module] = None
        recorded = any([_selects(selector, path, module) for selector in self.record])
        conditions = [key for key in self.conditions if _selects(key, path, module)]
        if recorded or conditions:
            call = _Call(self._forward_is_over)
            output = map_tensors(
                lambda t: self._attach(run, path, module, t, conditions, call) if is_relevant(t) else t,
                output,
            )
            if conditions and not call.values:
                raise InputError(
                    f"conditions[{_named(conditions[0])}]: the module returned {_kind(output)}, and nothing "
                    "in it depends on the explained inputs. Name another module."
                )
            if recorded:
                self._calls.setdefault(path, []).append(call)
        start = self._start_module
        if isinstance(start, str):
            of_start = path == start
        else:
            of_start = start is not None and _selects(start, path, module)
        if of_start and not self._forward_is_over:
            # A copy, because the model may overwrite its own.
            dimensions = [channel_dimension(module, t) for t in tensors_in(output)]
            copied = map_tensors(lambda t: _copy(run, t) if is_relevant(t) else t, output)
            self._outputs.append((copied, dimensions))
            self.applied_before = len(run.applied)
        return output

    def _attach(
        self, run: Run, path: str, module: nn.Module, seen: Seen, conditions: list[Selector], call: "_Call"
    ) -> Tensor:
        value = inner_of(seen).detach()
        channels = channel_dimension(module, value)
        masks = [mask_of(_named(key), self.conditions[key], value, channels) for key in conditions]
        kept, tag = run.keep(value), seen.tag
        noted = _Value(empty_slot(value), _dimension_of_samples(value, run.ledger.samples, tag.step))
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
        module, times = self._start_module, len(self._outputs)
        call = self.start[1] if isinstance(self.start, tuple) else None
        assert module is not None
        if call is None and times > 1:
            raise InputError(
                f"start={_named(module)}: the module was called {times} times. Give the number of a call, as "
                f"in start=({_named(module)}, 0)."
            )
        if call is not None and not -times <= call < times:
            raise InputError(
                f"start=({_named(module)}, {call}): the module was called {times} times. Give a number from "
                f"0 to {times - 1}."
            )
        return self._outputs[call or 0]

    def release(self) -> None:
        self._outputs.clear()  # values that relevance could start from

    def end_forward(self) -> None:
        self._forward_is_over = True
        asked = [("record", selector) for selector in self.record]
        asked += [("conditions", selector) for selector in self.conditions]
        start = self._start_module
        asked += [] if start is None else [("start", start)]
        paths = [path for path, _ in self._ran]
        for argument, selector in asked:
            if argument == "start" and isinstance(selector, str):
                found = selector in paths
            else:
                found = any(_selects(selector, *ran) for ran in self._ran)
            if not found:
                glob = isinstance(selector, str) and argument == "start" and any(c in selector for c in "*?[")
                hint = " start= takes the path of one module, and no glob." if glob else ""
                near = f"{_near(selector, paths)}.{hint}"
                raise InputError(f"{argument}={_named(selector)} matches no module that ran; {near}")

    def begin(self) -> None:
        for call in chain.from_iterable(self._calls.values()):
            for value in call.values:
                value.relevance = None

    def relevance(self) -> dict[str, tuple[Tensor | tuple[Tensor, ...], ...]]:
        """Return, by path, the relevance of the output of each call of the module; zero if none arrived."""
        return {
            path: tuple(_alone([_arrived(value) for value in call.values]) for call in calls if call.counts)
            for path, calls in self._calls.items()
        }

    def samples(self) -> dict[str, tuple[tuple[int | None, ...], ...]]:
        """Return, likewise, which dimension of each tensor the samples are."""
        return {
            path: tuple(tuple(value.samples for value in call.values) for call in calls if call.counts)
            for path, calls in self._calls.items()
        }

    def paths(self) -> "WeakKeyDictionary[nn.Module, str]":
        """The path of each recorded module."""
        return WeakKeyDictionary({module: path for path, module in self._ran if path in self._calls})

    @property
    def _start_module(self) -> Selector | None:
        return self.start[0] if isinstance(self.start, tuple) else self.start


def _checked(record: Collection[Any], conditions: Any, start: Any) -> Mapping[Selector, Condition]:
    """Refuse what is no module and no path of one, and return the conditions.

    Raises:
        InputError: there is such a thing.
    """
    if not isinstance(conditions, Mapping | None):
        raise InputError(
            f"conditions={conditions!r}: give a dictionary from modules, or their paths, to conditions."
        )
    one = start
    if isinstance(start, tuple) and len(start) == 2 and type(start[1]) is int:
        one = start[0]
    given = [*(("record", r) for r in record), *(("conditions", c) for c in conditions or {})]
    given += [] if start is None else [("start", one)]
    for argument, selector in given:
        if not isinstance(selector, (str, nn.Module)):
            raise InputError(
                f"{argument}={selector!r}: give a module of the model, or its path"
                + (", or (module, call)." if argument == "start" else ".")
            )
    return conditions or {}


def _selects(selector: Selector, path: str, module: nn.Module) -> bool:
    if isinstance(selector, str):
        return path == selector or fnmatchcase(path, selector)  # a path may have letters of globs
    return original(selector) is module


def _named(selector: Selector) -> str:
    """How an error names a module that a user asked for."""
    return repr(selector) if isinstance(selector, str) else f"<{type(selector).__name__}>"


def _near(selector: Selector, paths: Collection[str]) -> str:
    """Which modules ran that somebody may have meant."""
    known = list(dict.fromkeys(path for path in paths if path))
    if not known:
        return "the model calls no modules"
    near = difflib.get_close_matches(selector, known, n=3, cutoff=0.3) if isinstance(selector, str) else []
    more = ", ..." if len(known) > 4 and not near else ""
    return f"{'near it are' if near else 'the paths are'} {', '.join(map(repr, near or known[:4]))}{more}"


def _watched(origin: T | None, watch: Watch) -> T | None:
    return None if origin is None else replace(origin, watches=(watch, *origin.watches))


def _copy(run: Run, seen: Seen) -> Tensor:
    return run.seen(seen.recorded, replace(seen.tag, origin=None, pointwise=None))


def _dimension_of_samples(value: Tensor, samples: int, step: int | None) -> int | None:
    """Which dimension the samples are: the first or, with a step, that whose elements are so far apart."""
    if step is None:
        return 0 if value.dim() and len(value) == samples else None
    for dimension in range(value.dim()):
        if value.shape[dimension] == samples and value.shape[dimension + 1 :].numel() == step:
            return dimension
    return None


def _arrived(value: _Value) -> Tensor:
    return torch.zeros_like(value.like) if value.relevance is None else value.relevance


def _kind(value: Any) -> str:
    return "a constant tensor" if isinstance(value, Tensor) else type(value).__name__


def _alone(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


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
