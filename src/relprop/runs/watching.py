"""Runs of a model whose calls and modules are watched, at the level at which explanations see calls."""

from collections.abc import Callable, Collection, Mapping, MutableMapping
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from relprop.engine.active import uncompiled
from relprop.engine.levels import seeing
from relprop.engine.mode import DispatchMode
from relprop.engine.modules import at_modules
from relprop.engine.surroundings import AttentionInParts, leaving_no_trace
from relprop.runs.storages import place_of, whole_memory_of, written_by


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
        around.hold(AttentionInParts())
        torch._C._push_on_torch_dispatch_stack(mode)
        return run()


class Watching(DispatchMode):  # type: ignore[no-untyped-call]
    """Base of modes that watch a run. Once there is nothing to watch any more, calls are made as they come.

    What they write to tensors that were there before is taken back at the end, and so is the state of torch's
    generators, because the model runs once more then.
    """

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
                if tensor.layout is torch.strided and place_of(tensor) not in self._before:
                    whole = whole_memory_of(tensor)  # of which other calls may overwrite other parts
                    self._before[place_of(tensor)] = whole, whole.clone()
        return func(*args, **kwargs)

    def take_back(self) -> None:
        """Give memory that was overwritten its values from before."""
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


class Number(int):
    """The number of a tensor in a run, in the place of an argument."""

    __slots__ = ()


class Passed:
    """Which modules begin and end in this thread between two calls, as lists that can be compared.

    A module that the model makes while it runs is known by its type, by which rules know it, too.

    Args:
        number_of: returns the number of a tensor, or None.
        modules: the modules of the model.
    """

    def __init__(self, number_of: Callable[[Tensor], int | None], modules: Collection[nn.Module]) -> None:
        self._number_of = number_of
        self._modules = modules
        self._since: list[Any] = []
        self._thread = get_ident()

    def take(self) -> list[Any]:
        """Return what has passed since the last time."""
        since, self._since = self._since, []
        return since

    def enter(self, module: nn.Module, _arguments: Any) -> None:
        """Note that a module begins."""
        if get_ident() == self._thread:
            self._since.append(self._name_of(module))

    def leave(self, module: nn.Module, _arguments: Any, output: Any) -> None:
        """Note that a module ends."""
        if get_ident() == self._thread:
            self._since.append((self._name_of(module), self.told(output)))

    def _name_of(self, module: nn.Module) -> int | type:
        return id(module) if module in self._modules else type(module)

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

    @staticmethod
    def holds_others(told: Any) -> bool:
        """Whether what is told has something in it that is not looked into, or a tensor that is not known."""
        if isinstance(told, list):
            return any(map(Passed.holds_others, told))
        return isinstance(told, tuple) and told[0] == "other"


_PLAIN = (type(None), bool, int, float, str)


def numbers_in(value: Any) -> list[int]:
    """Return the numbers of tensors in nested lists and dictionaries."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for v in value for number in numbers_in(v)]
    return [int(value)] if type(value) is Number else []
