"""The modules that are running and their paths, tracked by hooks that exist only inside a context.

The hooks are registered for the process and not on the user's modules, so nothing is written on the model.
They do nothing in a thread, or for a run, other than the one that entered the context.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from relprop.engine.surroundings import hooks_of_all_modules, remove_hooks


@dataclass
class ModulePaths:
    """The stack of running modules, outermost first.

    Attributes:
        frames: each module with its path, and whether gradients were enabled when it was called.
    """

    frames: list[tuple[nn.Module, str, bool]] = field(default_factory=list)
    _running: tuple[nn.Module, ...] | None = ()
    _names: dict[nn.Module, str] = field(default_factory=dict)
    _children: dict[nn.Module, dict[nn.Module, str]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path of the innermost running module within the outermost module; empty for the outermost one."""
        return self.frames[-1][1] if self.frames else ""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The running modules, outermost first."""
        if self._running is None:
            self._running = tuple([module for module, _, _ in self.frames])
        return self._running

    def enter(self, module: nn.Module) -> None:
        """Record that `module` begins its forward."""
        if not self.frames:
            self._names = {}
        self.frames.append((module, self._path_of(module), torch.is_grad_enabled()))
        self._running = None

    def runs(self, module: nn.Module) -> bool:
        """Whether `module` is running."""
        frames = self.frames
        return bool(frames) and (frames[-1][0] is module or any([frame is module for frame, _, _ in frames]))

    def wants_gradients(self, inner: int) -> bool:
        """Whether a running module was called with gradients enabled.

        Args:
            inner: how many modules at the inner end of the stack to skip.
        """
        outer = self.frames[: len(self.frames) - inner]
        return not outer or outer[-1][2]

    def leave(self, module: nn.Module) -> None:
        """Record that `module` ended its forward, by returning or by an exception."""
        self._running = None
        while self.frames:
            left, _, _ = self.frames.pop()
            if left is module:
                break

    def _path_of(self, module: nn.Module) -> str:
        if not self.frames:
            return ""
        parent, prefix, _ = self.frames[-1]
        # A shared module has several names. It gets the name that it has in the module that called it.
        if parent not in self._children:
            self._children[parent] = _named_children(parent)
        name = self._children[parent].get(module)
        if name == "_orig_mod":  # the wrapper of torch.compile is no part of the model
            return prefix
        if name is not None:
            return f"{prefix}.{name}" if prefix else name
        if not self._names:
            self._names = {m: name for name, m in reversed(list(self.frames[0][0].named_modules()))}
        return self._names.get(module, f"{prefix}.{type(module).__name__}".lstrip("."))


def _named_children(parent: nn.Module) -> dict[nn.Module, str]:
    """Return the names of a module's children, and of the modules in its ModuleLists and ModuleDicts."""
    own = [(name, child) for name, child in reversed(parent._modules.items()) if child is not None]
    names = {
        inner: f"{name}.{rest}"
        for name, child in own
        if isinstance(child, (nn.ModuleList, nn.ModuleDict))
        for inner, rest in _named_children(child).items()
    }
    return names | {child: name for name, child in own}


@contextmanager
def follow_modules(
    paths: ModulePaths,
    active: Callable[[], bool],
    before: Callable[[nn.Module], None],
    after: Callable[[nn.Module, Any], Any],
    end: Callable[[], None],
) -> Iterator[None]:
    """Keep `paths` up to date while the context is open.

    Args:
        paths: the stack to keep.
        active: whether the module that runs now, in this thread, belongs to this context.
        before: called with each module that is called by no other one.
        after: called with each module of the context and its output; returns the value that replaces the
            output.
        end: called when a module that is called by no other one has ended, however it ended.
    """

    def enter(module: nn.Module, _arguments: Any) -> None:
        if active():
            paths.enter(module)
            if len(paths.frames) == 1:
                before(module)

    def leave(module: nn.Module, _arguments: Any, output: Any) -> Any:
        if not active() or not paths.runs(module):
            return None
        try:
            # The output is None if the forward raised an exception.
            return None if output is None else after(module, output)
        finally:
            paths.leave(module)
            if not paths.frames:
                end()

    with at_modules(enter, leave):
        yield


@contextmanager
def at_modules(enter: Callable[..., None], leave: Callable[..., Any]) -> Iterator[None]:
    """Call functions with each module of the process that begins and ends, while the context is open.

    Args:
        enter: called with a module and its positional arguments.
        leave: called with a module, these and its output, or None after an exception; returns the value that
            replaces the output, or None.
    """

    def before(module: nn.Module, arguments: Any) -> None:
        enter(module, arguments)

    def after(module: nn.Module, arguments: Any, output: Any) -> Any:
        return leave(module, arguments, output)

    def remove() -> None:
        remove_hooks((before, after), hooks_of_all_modules())

    try:
        try:
            register_module_forward_pre_hook(before)
            register_module_forward_hook(after, always_call=True)
            yield
        finally:
            remove()
    finally:
        remove()  # if the first was interrupted
