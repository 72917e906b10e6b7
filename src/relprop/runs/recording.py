"""What calls a model makes: `record` runs it as it is, on plain tensors, and notes each call.

A call is noted as its operation, and for each argument which of the earlier tensors it is, or its value.
The model runs at the level at which explanations see calls (`relprop.engine.levels.seeing`). So the calls are
the same as those of an explanation.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary

from relprop.calls.nested import tensors_in
from relprop.runs.kernels import kernel_of
from relprop.runs.marks import Look
from relprop.runs.spelling import spelling_of
from relprop.runs.storages import place_of, written_by
from relprop.runs.watching import Number, Passed, Watching, as_explained

aten = torch.ops.aten


class Differs(Exception):  # noqa: N818 - it is no error
    """A run does not make the calls of the run before, or these cannot be followed.

    It is raised when the run is over, and never within the model, which may have begun what it has to end.
    """


class Several(list[Any]):
    """A list with tensors, in the place of an argument."""


class Step(NamedTuple):
    """One call.

    Attributes:
        operation: the operation.
        run: runs the operation, or its kernel.
        numbers: which tensor each positional argument is, or None.
        others: place and value of the other positional arguments.
        kwargs: the arguments by name.
        is_new: whether it computes with the values of no tensor.
        has_more: whether its kernel is run, of whose results the model gets the first.
        ended: the tensors that no later call takes, and that are no results of later calls either.
    """

    operation: OpOverload
    run: Callable[..., Any]
    numbers: list[int | None]
    others: tuple[tuple[int, Any], ...]
    kwargs: dict[str, Any]
    is_new: bool
    has_more: bool
    ended: tuple[int, ...] = ()

    def leaves(self) -> Iterator[Tensor]:
        """Yield the tensors among the arguments that are neither inputs of the model nor results of calls."""
        yield from tensors_in([value for _, value in self.others])
        yield from tensors_in(self.kwargs)


class Value(NamedTuple):
    """What is known of a tensor of a run.

    Attributes:
        tensor: a number, the same for two values of one tensor that a call overwrites.
        place: where it lies.
        is_whole: whether it has all elements of its memory.
        look: some of its values, right after the call.
    """

    tensor: int
    place: int
    is_whole: bool
    look: Look


@dataclass(frozen=True)
class Recorded:
    """A run of a model.

    Attributes:
        steps: the calls.
        inputs: the number of tensors that the model is given.
        results: for each call, the numbers of the tensors in its result.
        values: the tensors by number. The inputs come first.
        written: for each call, where the tensors lie that it overwrites.
        leaves: the other tensors that are arguments.
        passed: for each call, and for the end, which modules have begun and ended since the call before, and
            what they have returned.
        modules: the modules of the model.
        output: what the model has returned.
    """

    steps: list[Step]
    inputs: int
    results: list[range]
    values: list[Value]
    written: list[frozenset[int]]
    leaves: list[Tensor]
    passed: list[list[Any]]
    modules: Collection[nn.Module]
    output: Any = None


def record(run: Callable[[], Any], inputs: Sequence[Tensor], modules: Collection[nn.Module]) -> Recorded:
    """Run a model and note its calls.

    Args:
        run: runs the model.
        inputs: the tensors that it is given.
        modules: the modules of the model.

    Raises:
        Differs: the calls cannot be followed: the model writes to its inputs or to what it keeps, or uses
            operations or tensors of other kinds.
    """
    recording = _Recording(inputs, modules)
    output = as_explained(recording, recording.passed, run)
    if recording.refused:
        raise Differs(f"the model {recording.refused}")
    recording.recorded.passed.append(recording.passed.take())
    told = recording.passed.told(output)
    if Passed.holds_others(told):
        raise Differs(f"the model returns {type(output).__name__}, and what is in it is not known")
    return replace(recording.recorded, output=told)


class _Recording(Watching):
    """Runs calls and notes them.

    Attributes:
        refused: why the calls cannot be followed, or "".
        recorded: the calls.
        passed: which modules begin and end.
    """

    def __init__(self, inputs: Sequence[Tensor], modules: Collection[nn.Module]) -> None:
        super().__init__()
        self.refused = ""
        self.recorded = Recorded([], len(inputs), [], [], [], [], [], modules)
        self._known: Any = WeakIdKeyDictionary()  # numbers of tensors that are alive
        self.passed = Passed(self._known.get, modules)
        self._first: Any = WeakIdKeyDictionary()  # their first numbers
        self._leaves: dict[int, Tensor] = {}
        self._storages: dict[int, StorageWeakRef] = {}  # so that no number stands for another one
        for tensor in inputs:
            self._note(tensor)
        self._not_to_write = {place_of(t) for t in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.refused = self.refused or self._refusal(func, args, kwargs)
        return self.unwatched(func, args, kwargs) if self.refused else self._noted(func, args, kwargs)

    def _refusal(self, func: Any, args: Any, kwargs: Any) -> str:
        """Say what of a call cannot be followed; "" if it can be."""
        if type(func) is not OpOverload or func.namespace not in _FUNCTIONS:
            return f"calls {func}, which may depend on other things than its arguments"
        if torch.Tag.inplace_view in func.tags and func is not aten.detach_.default:
            return f"changes shapes in place, by {func}"
        for tensor in tensors_in((args, kwargs)):
            is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
            if tensor not in self._known and not is_plain:
                return f"computes with a {type(tensor).__name__} of layout {tensor.layout}"
        leaves = {place_of(t) for t in tensors_in((args, kwargs)) if t not in self._known}
        if not leaves.union(self._not_to_write).isdisjoint(_written_places(func, args, kwargs)):
            return "writes to its inputs, or to tensors that it keeps"
        return ""

    def _noted(self, func: Any, args: Any, kwargs: Any) -> Any:
        recorded = self.recorded
        numbers = [self._known.get(a) if isinstance(a, Tensor) else None for a in args]
        others = [(i, self._as_told(a)) for i, a in enumerate(args) if numbers[i] is None]
        named = {name: self._as_told(a) for name, a in kwargs.items()}
        recorded.passed.append(self.passed.take())
        recorded.written.append(frozenset(_written_places(func, args, kwargs)))
        # To constants no relevance comes, and what their kernels return besides is not needed.
        kernel = kernel_of(func, args) if numbers and numbers[0] is not None else None
        operation = func if kernel is None else kernel
        result = operation(*args, **kwargs)
        first = len(recorded.values)
        for tensor in tensors_in(result):
            self._note(tensor)
        name = str(func._schema.name).partition("::")[2]
        makes = name.endswith("_like") or name.startswith("new_")
        is_new = makes or next(tensors_in((args, kwargs)), None) is None
        run = func if is_new else spelling_of(operation, args, kwargs)
        recorded.steps.append(Step(func, run, numbers, tuple(others), named, is_new, kernel is not None))
        recorded.results.append(range(first, len(recorded.values)))
        return result if kernel is None else result[0]

    def _note(self, tensor: Tensor) -> None:
        if tensor.layout is not torch.strided:
            self.refused = f"computes a tensor of layout {tensor.layout}"
            return
        number, place = len(self.recorded.values), place_of(tensor)
        if place not in self._storages:
            self._storages[place] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self._known[tensor] = number
        first, nbytes = self._first.setdefault(tensor, number), tensor.untyped_storage().nbytes()
        is_whole = tensor.storage_offset() == 0 and nbytes == tensor.numel() * tensor.itemsize
        self.recorded.values.append(Value(first, place, is_whole, Look.at(tensor)))

    def _as_told(self, value: Any) -> Any:
        """Return an argument with numbers in the place of tensors."""
        if isinstance(value, (list, tuple)):
            told = [self._as_told(v) for v in value]
            return Several(told) if any([isinstance(v, Tensor) for v in value]) else told
        if not isinstance(value, Tensor):
            return value
        if value in self._known:
            return Number(self._known[value])
        if id(value) not in self._leaves:
            self._leaves[id(value)] = value
            self.recorded.leaves.append(value)
            self._not_to_write.add(place_of(value))
        return value


_FUNCTIONS = ("aten", "prim", "prims", "torchvision")
"""Libraries whose operations are functions of their arguments."""


def _written_places(func: OpOverload, args: Any, kwargs: Any) -> set[int]:
    """Return where the tensors lie that a call overwrites."""
    if not func._schema.is_mutable or func is aten.detach_.default:
        return set()
    return {place_of(t) for t in written_by(func, args, kwargs)}
