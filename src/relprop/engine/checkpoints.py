"""Activation checkpointing: the values of named modules are dropped, and recomputed in the backward.

While such a module runs, every value for the backward is dropped: the tensors that autograd saves, and the
values that rules keep. The module's `Block` counts these values. When the backward needs one of them, the
module runs again with the same arguments. It keeps the same values again, in the same order.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from relprop.calls.nested import map_tensors, tensors_in
from relprop.engine.interception import Interception
from relprop.engine.keep import Kept, KeptConstant, saved_value
from relprop.engine.known import Tag
from relprop.engine.levels import aside
from relprop.engine.run import Run
from relprop.engine.seen import Seen
from relprop.engine.surroundings import Autocast, leaving_no_trace, remove_hooks
from relprop.errors import InputError, ModelError, did_you_mean

Blocks = str | nn.Module | Iterable[str | nn.Module]
"""Modules to checkpoint, by path or glob, such as "model.layers.*", or as modules. A ModuleList stands for
the modules in it."""


def chosen_blocks(model: Any, blocks: Blocks) -> list[nn.Module]:
    """Return the modules to checkpoint.

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
        strangers = [m for m in found if not isinstance(m, nn.Module) or (paths and m not in paths.values())]
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
    """Raised to end a recomputation once all dropped values have been recomputed."""


@dataclass(eq=False)
class Block:
    """One call of a checkpointed module.

    Attributes:
        checkpoints: the checkpoints of the run.
        module: the module.
        arguments: positional and keyword arguments of the call.
        operands: the tensors among the arguments as they were, in order.
        frames: the stack of modules around this one.
        autocasts: the settings of autocast at the call.
        versions: versions of the module's parameters and buffers, by name.
        draws: states of the random generators at the call. Empty if the module has drawn no numbers.
    """

    checkpoints: "Checkpoints"
    module: nn.Module
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    operands: list["_Operand"]
    frames: list[tuple[nn.Module, str, bool]]
    autocasts: list[Autocast]
    versions: dict[str, int]
    draws: list["_Generator"]
    _dropped: list[weakref.ref[Kept]] = field(default_factory=list)
    _values: dict[int, Kept] = field(default_factory=dict)
    _position: int = -1

    @property
    def again(self) -> bool:
        """Whether the module is being recomputed."""
        return self._position >= 0

    def keep(self, kept: Kept) -> Kept:
        """Return a dropped value in place of a kept one. While the module is recomputed, keep the value.

        Raises:
            ModelError: another hook on saved tensors is active within the module.
        """
        if not _is_asked(self.checkpoints.run):
            raise ModelError(
                f"{type(self.module).__name__}, a module of checkpoint=..., uses torch.utils.checkpoint or "
                "other hooks on saved tensors itself. Leave it out of checkpoint=..., or turn those off."
            )
        if not self.again:
            dropped = Kept.dropped(partial(self._take, len(self._dropped)))
            self._dropped.append(weakref.ref(dropped))
            return dropped
        if self._position < len(self._dropped) and self._dropped[self._position]() is not None:
            self._values[self._position] = kept
        self._position += 1
        if self._position == len(self._dropped):
            raise _Enough
        return kept

    def _take(self, number: int) -> Kept:
        """Return a dropped value, once. If it has not been recomputed, run the module again.

        Raises:
            ModelError: the module computed something else the second time.
        """
        if number not in self._values:
            self._compute_again()
        if number not in self._values:
            raise ModelError(
                f"{type(self.module).__name__}, a module of checkpoint=..., computed something else when it "
                "ran again. Leave it out of checkpoint=...."
            )
        return self._values.pop(number)

    def forget(self) -> None:
        """Drop the values that were recomputed but not taken."""
        self._values.clear()

    def _compute_again(self) -> None:
        run = self.checkpoints.run
        self.checkpoints.begin_again(self)
        changed = [name for name, t in _own_tensors(self.module) if t._version != self.versions.get(name)]
        if changed:
            raise ModelError(
                f"{changed[0]!r} of {type(self.module).__name__}, a module of checkpoint=..., was "
                "overwritten after the module ran. So the module cannot run again. Leave it out of "
                "checkpoint=...."
            )
        values = iter(self.operands)
        args, kwargs = map_tensors(lambda _: next(values).restored(run), self.arguments)
        frames, block = run.modules.frames, run.block
        run.modules.frames, run.block, self._position = list(self.frames), self, 0
        try:
            with self.checkpoints.entered(), leaving_no_trace() as around, ExitStack() as stack:
                around.set_autocast(self.autocasts)
                for generator in self.draws:
                    stack.enter_context(generator.again())
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
class _Generator:
    """The state of torch's random generator of a device. As torch's checkpoints, this is all that is kept."""

    device: torch.device
    state: Tensor

    @staticmethod
    def now(devices: Iterable[torch.device]) -> "list[_Generator]":
        """Return the generators of the CPU and of these devices."""
        with aside():
            every = {torch.device("cpu"), *(d for d in devices if d.type in _DRAWING)}
            return [_Generator(device, _state(device)) for device in every]

    def has_drawn(self) -> bool:
        """Whether the generator has another state now."""
        with aside():
            return not torch.equal(self.state, _state(self.device))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Have the state of the call while the context is open, and the present one afterwards."""
        with aside():
            present = _state(self.device)
            _set_state(self.device, self.state)
        try:
            yield
        finally:
            with aside():
                _set_state(self.device, present)


_DRAWING = ("cuda", "xpu", "mps")
"""Devices with a random generator of their own."""


def _state(device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.get_rng_state()
    if device.type == "mps":
        return torch.mps.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)


@dataclass(frozen=True)
class _Operand:
    """A tensor that a module was called with, as it was at the call.

    Attributes:
        value: the inner tensor of a wrapper tensor, or a plain tensor as a kept constant.
        tag: what was known about the tensor.
        relevant: whether it depends on the explained inputs.
    """

    value: Tensor | KeptConstant
    tag: Tag
    relevant: bool

    @staticmethod
    def of(run: Run, tensor: Tensor) -> "_Operand":
        if run.interception.writing.looks_at_plain:  # such as a buffer to which relevant values were written
            tensor = run.interception.writing.stand_in(tensor)
        if type(tensor) is not Seen:
            return _Operand(run.keep_constant(tensor), Tag(), False)
        if tensor.memory is not None:
            tensor.memory.is_read = True
        return _Operand(tensor.recorded, tensor.tag, tensor.relevant)

    @property
    def device(self) -> torch.device:
        return (self.value.value if isinstance(self.value, KeptConstant) else self.value).device

    def restored(self, run: Run) -> Tensor:
        """Return the plain tensor, or a wrapper tensor around the former value."""
        if isinstance(self.value, KeptConstant):
            return self.value.own
        return run.seen(self.value, self.tag if self.relevant else None)


class Checkpoints:
    """The checkpointed modules of a run.

    Attributes:
        run: the run.
    """

    def __init__(self, interception: Interception) -> None:
        self.run = interception.run
        self._interception = interception
        self._computed_again: Block | None = None

    def begin_again(self, block: Block) -> None:
        """Drop the values that another block recomputed, before `block` is recomputed."""
        if self._computed_again is not None:
            self._computed_again.forget()
        self._computed_again = block

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Dispatch the calls of a module that is recomputed in a backward, which may be in another thread."""
        with leaving_no_trace() as around:
            torch._C._set_grad_enabled(True)
            around.save_by(self.run.keep_saved, saved_value)
            with self._interception.entered():
                yield

    @contextmanager
    def of(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Checkpoint these modules while the context is open; of nested modules, only the outermost."""
        run, modules = self.run, list(modules)

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if run.block is None and self._interception.is_active():
                operands = [_Operand.of(run, t) for t in tensors_in((args, kwargs))]
                own = list(_own_tensors(module))
                devices = {*(o.device for o in operands), *(t.device for _, t in own)}
                run.block = Block(
                    self,
                    module,
                    (args, kwargs),
                    operands,
                    run.modules.frames[:-1],
                    [Autocast.now(kind) for kind in {"cpu", *(device.type for device in devices)}],
                    {name: t._version for name, t in own},
                    _Generator.now(devices),
                )

        def leave(module: nn.Module, _arguments: Any, _output: Any) -> None:
            block = run.block
            if not isinstance(block, Block) or block.module is not module or block.again:
                return
            if self._interception.is_active():
                if not any(generator.has_drawn() for generator in block.draws):
                    block.draws = []
                run.block = None

        def remove() -> None:
            run.block = self._computed_again = None
            for module in modules:
                hooks = (module._forward_pre_hooks, module._forward_hooks)
                noted = (module._forward_pre_hooks_with_kwargs, module._forward_hooks_always_called)
                remove_hooks((enter, leave), (*hooks, *noted))

        try:
            try:
                for module in modules:
                    module.register_forward_pre_hook(enter, with_kwargs=True)
                    module.register_forward_hook(leave, always_call=True)
                yield
            finally:
                remove()
        finally:
            remove()  # if the first was interrupted
