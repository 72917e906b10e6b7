"""What calls a model makes: `record` runs it as it is, on plain tensors, and notes each call.

A call is noted as its operation, and for each argument which of the earlier tensors it is, or its value.
The model runs at the level at which explanations see calls (`relprop.engine.levels.seeing`). So the calls are
the same as those of an explanation.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from relprop.calls.nested import tensors_in
from relprop.engine.active import uncompiled
from relprop.engine.levels import seeing
from relprop.engine.modules import at_modules
from relprop.engine.surroundings import leaving_no_trace
from relprop.runs.marks import Look
from relprop.runs.spelling import spelling_of
from relprop.runs.tracing import copied, place_of, written_by

aten = torch.ops.aten


class Differs(Exception):  # noqa: N818 - it is no error
    """A run does not make the calls of the run before, or these cannot be followed.

    It is raised when the run is over, and never within the model, which may have begun what it has to end.
    """


class Number(int):
    """The number of a tensor in a run, in the place of an argument."""

    __slots__ = ()


class Several(list[Any]):
    """A list with tensors, in the place of an argument."""


class Step(NamedTuple):
    """One call.

    Attributes:
        operation: the operation.
        run: runs the operation.
        numbers: which tensor each positional argument is, or None.
        others: place and value of the other positional arguments.
        kwargs: the arguments by name.
        is_new: whether it computes with the values of no tensor.
        ended: the tensors that no later call takes, and that are no results of later calls either.
    """

    operation: OpOverload
    run: Callable[..., Any]
    numbers: list[int | None]
    others: tuple[tuple[int, Any], ...]
    kwargs: dict[str, Any]
    is_new: bool
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
        output: what the model has returned.
    """

    steps: list[Step]
    inputs: int
    results: list[range]
    values: list[Value]
    written: list[frozenset[int]]
    leaves: list[Tensor]
    passed: list[list[Any]]
    output: Any = None


def record(run: Callable[[], Any], inputs: Sequence[Tensor]) -> Recorded:
    """Run a model and note its calls.

    Args:
        run: runs the model.
        inputs: the tensors that it is given.

    Raises:
        Differs: the calls cannot be followed: the model writes to its inputs or to what it keeps, or uses
            operations or tensors of other kinds.
    """
    recording = _Recording(inputs)
    output = as_explained(recording, recording.passed, run)
    if recording.refused:
        raise Differs(f"the model {recording.refused}")
    recording.recorded.passed.append(recording.passed.take())
    told = recording.passed.told(output)
    if _holds_others(told):
        raise Differs(f"the model returns {type(output).__name__}, and what is in it is not known")
    return replace(recording.recorded, output=told)


def as_explained(mode: "Watching", passed: "Passed", run: Callable[[], Any]) -> Any:
    """Run a model and give the calls of this thread to a mode, as they arrive while a model is explained."""
    try:
        return _run_within(mode, passed, run)
    finally:
        mode.take_back()


def _run_within(mode: "Watching", passed: "Passed", run: Callable[[], Any]) -> Any:
    with leaving_no_trace() as around, uncompiled(), at_modules(passed.enter, passed.leave):
        around.run_as_written()
        around.compute_weights_anew()
        around.hold(seeing())
        torch._C._push_on_torch_dispatch_stack(mode)
        return run()


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base of modes that watch a run. Once there is nothing to watch any more, calls are made as they come.

    What they write to tensors that were there before is taken back at the end, and so is the state of torch's
    generators, because the model runs once more then.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `relprop.engine.mode.Mode`

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._generators: Callable[[], None] | None = None

    def unwatched(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Make a call, and note what it overwrites."""
        if type(func) is OpOverload:
            if torch.Tag.nondeterministic_seeded in func.tags and self._generators is None:
                self._generators = _state_of_generators()
            for tensor in written_by(func, args, kwargs) if func._schema.is_mutable else ():
                if tensor.layout is torch.strided:
                    self._before.setdefault(place_of(tensor), (tensor.detach(), copied(tensor)))
        return func(*args, **kwargs)

    def take_back(self) -> None:
        """Give tensors that were overwritten their values from before."""
        for tensor, before in self._before.values():
            with torch.no_grad():
                tensor.copy_(before)
        self._before.clear()
        if self._generators is not None:
            self._generators()


def _state_of_generators() -> Callable[[], None]:
    """Return what gives torch's generators the state that they have now."""
    state = torch.get_rng_state()
    others = torch.cuda.get_rng_state_all() if torch.cuda._initialized else []

    def restore() -> None:
        torch.set_rng_state(state)
        if others:
            torch.cuda.set_rng_state_all(others)

    return restore


class Passed:
    """Which modules begin and end in this thread between two calls, as lists that can be compared.

    Args:
        number_of: returns the number of a tensor, or None.
    """

    def __init__(self, number_of: Callable[[Tensor], int | None]) -> None:
        self._number_of = number_of
        self._since: list[Any] = []
        self._thread = get_ident()

    def take(self) -> list[Any]:
        """Return what has passed since the last time."""
        since, self._since = self._since, []
        return since

    def enter(self, module: nn.Module, _arguments: Any) -> None:
        """Note that a module begins."""
        if get_ident() == self._thread:
            self._since.append(id(module))

    def leave(self, module: nn.Module, _arguments: Any, output: Any) -> None:
        """Note that a module ends."""
        if get_ident() == self._thread:
            self._since.append((id(module), self.told(output)))

    def told(self, output: Any) -> Any:
        """Return what is equal for outputs that are the same tensors, in the same containers."""
        if isinstance(output, Tensor):
            number = self._number_of(output)
            return ("other", id(output)) if number is None else Number(number)
        if isinstance(output, (list, tuple)):
            return [type(output), *map(self.told, output)]
        if isinstance(output, MutableMapping):
            return [type(output), *output, *map(self.told, output.values())]
        return (type(output), output) if type(output) in _PLAIN else ("other", type(output))


_PLAIN = (type(None), bool, int, float, str)


def _holds_others(told: Any) -> bool:
    if isinstance(told, list):
        return any(map(_holds_others, told))
    return isinstance(told, tuple) and told[0] == "other"


def numbers_in(value: Any) -> list[int]:
    """Return the numbers of tensors in nested lists and dictionaries."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for v in value for number in numbers_in(v)]
    return [int(value)] if type(value) is Number else []


class _Recording(Watching):
    """Runs calls and notes them.

    Attributes:
        refused: why the calls cannot be followed, or "".
        recorded: the calls.
        passed: which modules begin and end.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.refused = ""
        self.recorded = Recorded([], len(inputs), [], [], [], [], [])
        self._known: Any = WeakIdKeyDictionary()  # numbers of tensors that are alive
        self.passed = Passed(self._known.get)
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
        result = func(*args, **kwargs)
        first = len(recorded.values)
        for tensor in tensors_in(result):
            self._note(tensor)
        name = str(func._schema.name).partition("::")[2]
        makes = name.endswith("_like") or name.startswith("new_")
        is_new = makes or next(tensors_in((args, kwargs)), None) is None
        run = func if is_new else spelling_of(func, args, kwargs)
        recorded.steps.append(Step(func, run, numbers, tuple(others), named, is_new))
        recorded.results.append(range(first, len(recorded.values)))
        return result

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
