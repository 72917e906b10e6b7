"""Runs of a model that make the same calls as a run before.

`follow` runs the model with its own Python, and compares each call with the one of before. If all are equal,
the model has computed the same function of its inputs, whatever it looked at to decide so.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, isnan
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from relprop.calls.call import signature
from relprop.calls.nested import tensors_in
from relprop.runs.recording import Differs, Recorded, Several, Step
from relprop.runs.storages import copied
from relprop.runs.watching import Number, Passed, Watching, as_explained, numbers_in

_FEW = 64
"""Tensors that the model makes anew of numbers in Python are compared if they have at most so many values."""


@dataclass(frozen=True)
class Route:
    """The calls that a run has to make.

    Attributes:
        steps: the calls.
        passed: for each call, and for the end, which modules have begun and ended since the call before.
        modules: the modules of the model.
        output: what the model returns.
        kept: where a value is kept, by its number in the run.
        rescued: which kept values a call overwrites, by the number of the call.
        elsewhere: for calls that overwrite a whole tensor, which shares its memory with no other one, the
            same operation as a function, by the number of the call. The overwritten tensor gets the memory of
            the result, and nothing has to be copied.
    """

    steps: Sequence[Step]
    passed: Sequence[list[Any]]
    modules: Collection[nn.Module]
    output: Any
    kept: Mapping[int, int]
    rescued: Mapping[int, Sequence[int]]
    elsewhere: Mapping[int, Callable[..., Any]]

    @staticmethod
    def of(recorded: Recorded, kept: Sequence[int]) -> "Route":
        """Return the route of a run, on which values are kept, by their numbers."""
        last: dict[int, int] = {}
        for i, (step, results) in enumerate(zip(recorded.steps, recorded.results, strict=True)):
            taken = [n for n in step.numbers if n is not None]
            taken += numbers_in([[value for _, value in step.others], step.kwargs, recorded.passed[i]])
            last |= dict.fromkeys((*taken, *results), i)
        for number in numbers_in([recorded.passed[-1], recorded.output]):
            last.pop(number, None)
        ended: dict[int, list[int]] = {}
        for number, i in last.items():
            if number >= recorded.inputs:
                ended.setdefault(i, []).append(number)
        steps = [step._replace(ended=tuple(ended.get(i, ()))) for i, step in enumerate(recorded.steps)]
        made = {number: i for i, results in enumerate(recorded.results) for number in results}
        rescued: dict[int, list[int]] = {}
        for place, number in enumerate(kept):
            storage = recorded.values[number].place
            later = range(made[number] + 1, len(steps))
            over = next((i for i in later if storage in recorded.written[i]), None)
            if over is not None:
                rescued.setdefault(over, []).append(place)
        places = {number: place for place, number in enumerate(kept)}
        elsewhere = {i: run for i in rescued if (run := _out_of_place(recorded, i)) is not None}
        told = recorded.passed, recorded.modules, recorded.output
        return Route(steps, *told, places, rescued, elsewhere)


def follow(route: Route, run: Callable[[], Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run a model, and return the values that are kept, which are as many as the route says.

    Args:
        route: the calls that the model has to make.
        run: runs the model.
        inputs: the tensors that it is given.

    Raises:
        Differs: the model has made other calls. What these have written is taken back.
    """
    following = _Following(route, inputs)
    output = as_explained(following, following.passed, run)
    following.hold_new()
    if following.differs or following.at != len(route.steps):
        raise Differs
    if following.passed.take() != route.passed[-1] or following.passed.told(output) != route.output:
        raise Differs
    # Functions with a gradient of their own, which torch calls above this level, let results require it.
    return [t.detach() if t.requires_grad else t for t in following.kept]


class _Following(Watching):  # type: ignore[no-untyped-call]
    """Runs calls as long as they are those of a route.

    Attributes:
        at: the number of calls that were made.
        differs: whether a call was another one.
        passed: which modules begin and end.
        kept: the values that are kept.
    """

    def __init__(self, route: Route, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.at = 0
        self.differs = False
        self.kept: list[Any] = [None] * len(route.kept)
        self._route = route
        self._steps = route.steps
        self._values: list[Tensor | None] = list(inputs)
        self._known = known = {id(t): i for i, t in enumerate(inputs)}
        self._new: tuple[ref[Tensor], int] | None = None
        self.passed = Passed(lambda tensor: known.get(id(tensor)), route.modules)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.differs or not self._fits(func, args, kwargs):
            self.differs = True
            return self.unwatched(func, args, kwargs or {})
        at, known = self.at, self._known
        _, run, _, _, _, is_new, has_more, ended = self._steps[at]
        route = self._route
        if at in route.rescued:
            result = self._without_loss(at, run, args, kwargs or {})
        elif kwargs:
            result = run(*args, **kwargs)
        else:
            result = run(*args)
        self.at = at + 1
        values, kept = self._values, route.kept
        for tensor in (result,) if type(result) is Tensor else tensors_in(result):
            number = len(values)
            known[id(tensor)] = number
            if is_new:
                values.append(None)
                self._new = ref(tensor), id(tensor)
                continue
            values.append(tensor)
            if number in kept:
                self.kept[kept[number]] = tensor
        for number in ended:
            # Its place in memory may be that of another tensor soon.
            if known.get(id(values[number])) == number:
                del known[id(values[number])]
            values[number] = None
        return result[0] if has_more else result

    def _fits(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether a call is the next one of the route."""
        at = self.at
        if at == len(self._steps):
            return False
        self.hold_new()
        operation, _, numbers, others, named, _, _, _ = self._steps[at]
        if self.passed.take() != self._route.passed[at]:
            return False
        known = self._known
        if func is not operation or [known.get(id(a)) for a in args] != numbers:
            return False
        for i, expected in others:
            a = args[i]
            if a is not expected and not self._same(a, expected):
                return False
        return not (kwargs or named) or self._same(kwargs or {}, named)

    def hold_new(self) -> None:
        """Hold a tensor that the call before has made of no others.

        Torch's function for this call has returned by now. Had somebody held its result meanwhile, it would
        have detached it, which is another call.
        """
        if self._new is None:
            return
        (reference, address), self._new = self._new, None
        tensor, number = reference(), self._known[address]
        if tensor is None:
            del self._known[address]
        else:
            self._values[number] = tensor
            if number in self._route.kept:
                self.kept[self._route.kept[number]] = tensor

    def _without_loss(self, at: int, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a call that overwrites kept values, and keep these."""
        elsewhere, places = self._route.elsewhere.get(at), self._route.rescued[at]
        if elsewhere is None:
            for place in places:
                self.kept[place] = copied(self.kept[place])
            return run(*args, **kwargs)
        for place in places:
            self.kept[place] = self.kept[place].detach()  # the overwritten tensor itself gets other memory
        made, overwritten = elsewhere(*args, **kwargs), args[0]
        if made.stride() == overwritten.stride() and made.dtype == overwritten.dtype:
            return overwritten.set_(made)
        for place in places:
            self.kept[place] = copied(self.kept[place])
        return overwritten.copy_(made)

    def _same(self, value: Any, expected: Any) -> bool:
        """Whether an argument is what it was in the run before."""
        kind = type(expected)
        if kind is Number:
            return bool(self._known.get(id(value)) == expected)
        if kind is Several:
            several = isinstance(value, (list, tuple)) and len(value) == len(expected)
            return several and all(map(self._same, value, expected))
        if kind is list:  # of numbers of one type, which the schema of the operation says
            return bool(list(value) == expected)
        if kind is dict:
            alike = value.keys() == expected.keys()
            return bool(alike and all([self._same(value[name], expected[name]) for name in expected]))
        if isinstance(value, Tensor):
            is_other = id(value) not in self._known
            fresh = self._steps[self.at].operation is LIFT and is_other and same_numbers(value, expected)
            return fresh or (is_other and value is expected)
        if kind is float and type(value) is float:
            equal = value == expected and copysign(1, value) == copysign(1, expected)
            return equal or (isnan(value) and isnan(expected))
        return type(value) is kind and bool(value == expected)


def _out_of_place(recorded: Recorded, call: int) -> Callable[..., Any] | None:
    """Return an operation that gives the result of a call that overwrites a tensor, as another tensor.

    None if the call is no such one, or if another tensor shares the memory.
    """
    step = recorded.steps[call]
    known = signature(step.operation)
    number = step.numbers[0] if step.numbers else None
    if number is None or not known.writes or known.writes_others or not known.is_functional:
        return None
    overwritten = recorded.values[number]
    alone = all([v.tensor == overwritten.tensor for v in recorded.values if v.place == overwritten.place])
    return known.operation if alone and overwritten.is_whole else None


LIFT = torch.ops.aten.lift_fresh.default
"""What torch calls on each tensor that a program makes of numbers."""


def same_numbers(one: Any, other: Any) -> bool:
    """Whether two tensors are made of the same few numbers, bit by bit."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return False
    alike = type(one) is type(other) and one.dtype == other.dtype and one.device == other.device
    if not alike or one.stride() != other.stride() or one.shape != other.shape or one.numel() > _FEW:
        return False
    with torch.no_grad():
        bits = [t.reshape(-1).contiguous().view(torch.uint8) for t in (one, other)]
    return torch.equal(*bits)
