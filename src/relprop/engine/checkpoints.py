"""Activation checkpointing: what named modules compute is let go, and computed again in the backward.

While such a module runs, everything that the backward will need, what autograd saves and what rules do, gets
a place in its `Block` and is dropped. The first value asked for makes the module run again, with what it was
called with; what it keeps then, in the same order, are the values.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from relprop.calls.nested import map_tensors, tensors_in
from relprop.engine.interception import Interception
from relprop.engine.keep import Kept, KeptConstant, Place, saved_value
from relprop.engine.known import Tag
from relprop.engine.levels import aside
from relprop.engine.run import Run
from relprop.engine.seen import Seen
from relprop.errors import InputError, ModelError, did_you_mean

Blocks = str | nn.Module | Iterable[str | nn.Module]
"""Modules by path or glob, such as "model.layers.*"; or modules, a ModuleList for those in it."""


def chosen_blocks(model: Any, blocks: Blocks) -> list[nn.Module]:
    """The modules whose values are let go.

    Raises:
        InputError: a path matches no module, or something is neither a path nor a module of the model.
    """
    if not isinstance(blocks, (str, nn.Module, Iterable)):
        raise InputError(f"checkpoint={blocks!r}: give paths of modules, such as 'layers.*', or modules.")
    if blocks == ():
        return []
    given = [blocks] if isinstance(blocks, (str, nn.Module)) else list(blocks)
    paths = {path: m for path, m in model.named_modules() if path} if isinstance(model, nn.Module) else {}
    chosen: list[nn.Module] = []
    for block in given:
        if isinstance(block, str):
            found = [module for path, module in paths.items() if fnmatchcase(path, block)]
        elif isinstance(block, nn.ModuleList):
            found = list(block)
        else:
            found = [block]
        strangers = [m for m in found if paths and m not in paths.values()]
        if not found or strangers:
            name = repr(block) if isinstance(block, str) else type(block).__name__
            near = did_you_mean(block, paths, most=2) if isinstance(block, str) else ""
            raise InputError(
                f"checkpoint={name} is no module of the model.{near} Give paths, such as 'layers.*', or "
                "modules."
            )
        chosen += found
    return list(dict.fromkeys(chosen))


class _Enough(Exception):  # noqa: N818  # nothing is wrong
    """All that was dropped is there again."""


@dataclass(eq=False)
class Block:
    """One call of a module whose values are let go.

    Attributes:
        checkpoints: of the run.
        module: which.
        arguments: positional and keyword arguments of the call; `operands` stand for the tensors in them.
        frames: the modules that it ran in.
        autocasts: as they were.
        versions: of its parameters and buffers.
    """

    checkpoints: "Checkpoints"
    module: nn.Module
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    operands: list["_Operand"]
    frames: list[tuple[nn.Module, str, bool]]
    autocasts: list["_Autocast"]
    versions: dict[str, int]
    _places: list[weakref.ref[Place]] = field(default_factory=list)
    _values: dict[int, Kept] = field(default_factory=dict)
    _position: int = -1

    @property
    def again(self) -> bool:
        """Whether the module runs again."""
        return self._position >= 0

    def keep(self, kept: Kept) -> Kept:
        """Take a kept value, and return what stands for it."""
        if not _is_asked(self.checkpoints.run):
            raise ModelError(
                f"{type(self.module).__name__}, a module of checkpoint=..., has parts that "
                "torch.utils.checkpoint, or other hooks on saved tensors, take care of already. Leave it out "
                "of one of them."
            )
        if not self.again:
            place = Place(self, len(self._places))
            self._places.append(weakref.ref(place))
            return place
        if self._position < len(self._places) and self._places[self._position]() is not None:
            self._values[self._position] = kept
        self._position += 1
        if self._position == len(self._places):
            raise _Enough
        return kept

    def take(self, number: int) -> Kept:
        """Give back the value of a place, once; it is computed again if it is not there.

        Raises:
            ModelError: the module did something else the second time.
        """
        if number not in self._values:
            self._compute_again()
        if number not in self._values:
            raise ModelError(
                f"{type(self.module).__name__}, a module of checkpoint=..., did something else when it ran "
                "again; leave it out there."
            )
        return self._values.pop(number)

    def forget(self) -> None:
        """Let go of values that were computed again and not asked for."""
        self._values.clear()

    def _compute_again(self) -> None:
        run = self.checkpoints.run
        self.checkpoints.begin_again(self)
        changed = [name for name, t in _own_tensors(self.module) if t._version != self.versions.get(name)]
        if changed:
            raise ModelError(
                f"{changed[0]!r} of {type(self.module).__name__}, a module of checkpoint=..., was "
                "overwritten after it ran, so that it cannot run again; leave it out there."
            )
        values = iter(self.operands)
        args, kwargs = map_tensors(lambda _: next(values).restored(run), self.arguments)
        frames, block = run.modules.frames, run.block
        run.modules.frames, run.block, self._position = list(self.frames), self, 0
        try:
            with self.checkpoints.entered(), ExitStack() as stack:
                for autocast in self.autocasts:
                    stack.enter_context(autocast.again())
                self.module(*args, **kwargs)
        except _Enough:
            pass
        finally:
            run.modules.frames, run.block, self._position = frames, block, -1


_innermost: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _is_asked(run: Run) -> bool:
    """Whether autograd gives the run what it saves, and not to other hooks within."""
    if _innermost is not None:
        hooks = _innermost(False)
        return hooks is not None and hooks[0] == run.keep_saved
    # Before 2.8 torch does not tell: let autograd save something, and look whether it comes here.
    block, witness = run.block, _Witness()
    run.block = witness
    try:
        with aside(), torch.enable_grad():
            torch.zeros((), requires_grad=True).exp()
    finally:
        run.block = block
    return witness.was_asked


class _Witness:
    """Stands where a block does, and notes whether anything is kept."""

    was_asked = False

    def keep(self, kept: Kept) -> Kept:
        self.was_asked = True
        return kept


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@dataclass(frozen=True)
class _Autocast:
    """Whether torch.autocast was on for a kind of device, and with which type."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def now(device: str) -> "_Autocast":
        return _Autocast(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def again(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, self.enabled)


@dataclass(frozen=True)
class _Operand:
    """A tensor that a module was called with, as it was.

    Attributes:
        value: what was in its envelope, or the plain tensor.
        tag: what was known of it.
        relevant: whether it depends on the explained inputs.
    """

    value: Tensor | KeptConstant
    tag: Tag
    relevant: bool

    @staticmethod
    def of(run: Run, tensor: Tensor) -> "_Operand":
        if type(tensor) is not Seen:
            return _Operand(run.keep_constant(tensor), Tag(), False)
        if tensor.memory is not None:
            tensor.memory.is_read = True
        return _Operand(tensor.recorded, tensor.tag, tensor.relevant)

    @property
    def device(self) -> str:
        return (self.value.value if isinstance(self.value, KeptConstant) else self.value).device.type

    def restored(self, run: Run) -> Tensor:
        """The tensor itself, or an envelope around what it was."""
        if isinstance(self.value, KeptConstant):
            return self.value.own
        return run.seen(self.value, self.tag if self.relevant else None)


class Checkpoints:
    """What a run lets go of, and computes again.

    Attributes:
        run: whose.
    """

    def __init__(self, interception: Interception) -> None:
        self.run = interception.run
        self._interception = interception
        self._computed_again: Block | None = None

    def begin_again(self, block: Block) -> None:
        """Let go of what another block computed again."""
        if self._computed_again is not None:
            self._computed_again.forget()
        self._computed_again = block

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let a module run again within a backward, which may be in another thread."""
        with (
            torch.enable_grad(),
            self._interception.entered(),
            torch.autograd.graph.saved_tensors_hooks(self.run.keep_saved, saved_value),
        ):
            yield

    @contextmanager
    def of(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Let go of what these modules compute, of nested ones the outermost, while the context is open."""
        run, modules = self.run, list(modules)

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if run.block is None and self._interception.is_active():
                operands = [_Operand.of(run, t) for t in tensors_in((args, kwargs))]
                run.block = Block(
                    self,
                    module,
                    (args, kwargs),
                    operands,
                    run.modules.frames[:-1],
                    [_Autocast.now(device) for device in {"cpu", *(o.device for o in operands)}],
                    {name: t._version for name, t in _own_tensors(module)},
                )

        def leave(module: nn.Module, _arguments: Any, _output: Any) -> None:
            block = run.block
            of_this = isinstance(block, Block) and block.module is module and not block.again
            if of_this and self._interception.is_active():
                run.block = None

        handles = []
        for module in modules:
            handles += [
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave, always_call=True),
            ]
        try:
            yield
        finally:
            run.block = self._computed_again = None
            for handle in handles:
                handle.remove()
