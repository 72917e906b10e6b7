"""The state of torch around a run. It is restored whatever ends the run, and wherever.

Ctrl-C can come between any two calls: after a mode was entered and before anyone knows of it, or while it is
left. So a run records the state in which it begins, and goes back to that state. To do so twice changes
nothing, and the second time completes what was interrupted the first time.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules import module as of_all_modules
from torch.nn.utils import parametrize
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from relprop.engine.active import active_runs
from relprop.engine.levels import here

_autograd = torch._C._autograd

_TELLS_WHO_SAVES = hasattr(_autograd, "_top_saved_tensors_default_hooks")
"""Whether torch tells by which functions autograd saves tensors. Earlier versions do not."""


class Autocast(NamedTuple):
    """The setting of torch.autocast for a kind of device."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def now(device: str) -> "Autocast":
        return Autocast(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def set(self) -> None:
        torch.set_autocast_enabled(self.device, self.enabled)
        torch.set_autocast_dtype(self.device, self.dtype)


class AttentionInParts:
    """A guard within which attention layers of torch make the calls that they make for a gradient.

    Where nothing needs one, neither input nor parameters, they are a single kernel. The setting is that of
    all threads. It is what it was once the last guard has been left. A guard may be left twice.
    """

    _lock = threading.RLock()  # the garbage collector may leave another guard in the same thread
    _entered: ClassVar[set["AttentionInParts"]] = set()
    _before = True

    def __enter__(self) -> None:
        of_all = AttentionInParts
        with self._lock:
            if not of_all._entered:
                of_all._before = torch.backends.mha.get_fastpath_enabled()
            of_all._entered.add(self)
            torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *_error: object) -> None:
        of_all = AttentionInParts
        with self._lock:
            if of_all._entered == {self}:
                torch.backends.mha.set_fastpath_enabled(of_all._before)
            of_all._entered.discard(self)


class _Open(threading.local):
    """The surroundings that are recorded and not yet restored in a thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Surroundings] = []


_open = _Open()


class Surroundings:
    """The state of this thread as it is now. To restore it ends all that was recorded within.

    A context that an interrupt left is only closed when the interrupt is forgotten, perhaps much later. By
    then it must change nothing. So guards are held here, where the surroundings outside can end them.
    """

    def __init__(self) -> None:
        _take_off_modes_that_are_over()
        self.dispatch_modes = _get_current_dispatch_mode_stack()
        self.function_modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        self.saving = _saving()
        self.gradients = torch.is_grad_enabled()
        self.threads = torch._C._is_multithreading_enabled()
        self.optimised = torch._C._get_graph_executor_optimize()
        self.runs = len(active_runs.stack)
        self.here = here.traced, here.nested
        self.guards: list[Any] = []
        self.pushed = 0
        self.caches_casts: bool | None = None
        self.caching_parametrizations = 0
        self.autocasts: list[Autocast] = []

    def hold(self, guard: Any) -> None:
        """Enter a guard of torch, which is left when the state is restored. It may be left twice."""
        self.guards.append(guard)
        guard.__enter__()

    def save_by(self, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> None:
        """Let autograd save tensors by these functions until the state is restored."""
        self.pushed += 1  # first, because Python looks for interrupts when a call has ended
        _autograd._push_saved_tensors_default_hooks(pack, unpack)

    def run_as_written(self) -> None:
        """Run a model with gradients, and programs of torch.jit without torch's own derivatives.

        A backward runs in this thread. On a GPU it would run in a thread of torch's, where neither the trace
        nor the step of the run is known.
        """
        self.hold(torch._C._InferenceMode(False))
        torch._C._set_grad_enabled(True)
        torch._C._set_multithreading_enabled(False)
        torch._C._set_graph_executor_optimize(False)

    def set_autocast(self, settings: Iterable[Autocast]) -> None:
        """Let autocast be as it was, until the state is restored."""
        for setting in settings:
            self.autocasts.append(Autocast.now(setting.device))
            setting.set()

    def compute_weights_anew(self) -> None:
        """Let torch compute each weight where it is used, until the state is restored.

        Autocast and `torch.nn.utils.parametrize.cached` keep weights that they have computed. One that was
        cast before is not known to be a weight, and whoever trains the model afterwards would get one that
        was computed here, without a gradient.
        """
        self.caches_casts = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        torch.clear_autocast_cache()
        # It counts contexts, those of all threads.
        self.caching_parametrizations = parametrize._cache_enabled
        parametrize._cache_enabled -= self.caching_parametrizations

    def _compute_weights_as_before(self) -> None:
        if self.caches_casts is None:
            return
        torch.set_autocast_cache_enabled(self.caches_casts)
        torch.clear_autocast_cache()  # of a context within the model, which has a setting of its own
        parametrize._cache_enabled += self.caching_parametrizations
        self.caching_parametrizations = 0

    def restore(self) -> None:
        """Go back to the recorded state, once. If that is interrupted, it can be done again."""
        if self not in _open.stack:
            return
        within = _open.stack[_open.stack.index(self) :]
        for surroundings in reversed(within):
            for guard in reversed(surroundings.guards):
                guard.__exit__(None, None, None)
            surroundings._compute_weights_as_before()
            for setting in surroundings.autocasts:
                setting.set()
        while torch._C._len_torch_dispatch_stack() > len(self.dispatch_modes):
            torch._C._pop_torch_dispatch_stack(None)
        for mode in self.dispatch_modes[torch._C._len_torch_dispatch_stack() :]:
            torch._C._push_on_torch_dispatch_stack(mode)
        while torch._C._len_torch_function_stack() > len(self.function_modes):
            torch._C._pop_torch_function_stack()
        # A mode is off its stack while its own function runs.
        for mode in self.function_modes[torch._C._len_torch_function_stack() :]:
            torch._C._push_on_torch_function_stack(mode)
        if _TELLS_WHO_SAVES:
            while _saving() not in (self.saving, None):
                _autograd._pop_saved_tensors_default_hooks()
        else:
            for surroundings in within:
                while surroundings.pushed:
                    surroundings.pushed -= 1
                    _autograd._pop_saved_tensors_default_hooks()
        if torch.is_grad_enabled() is not self.gradients:
            torch._C._set_grad_enabled(self.gradients)
        if torch._C._is_multithreading_enabled() is not self.threads:
            torch._C._set_multithreading_enabled(self.threads)
        if torch._C._get_graph_executor_optimize() is not self.optimised:
            torch._C._set_graph_executor_optimize(self.optimised)
        del active_runs.stack[self.runs :]
        here.traced, here.nested = self.here
        _open.stack[:] = [known for known in _open.stack if known not in within]


def _take_off_modes_that_are_over() -> None:
    """Take off modes of earlier runs that torch has put back after an interrupt."""
    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    first = next((i for i, mode in enumerate(modes) if getattr(mode, "is_over", False)), len(modes))
    for _ in modes[first:]:
        torch._C._pop_torch_function_stack()
    for mode in modes[first:]:
        if not getattr(mode, "is_over", False):
            torch._C._push_on_torch_function_stack(mode)


def _saving() -> Any:
    """The functions that pack and unpack what autograd saves, or None."""
    return _autograd._top_saved_tensors_default_hooks(True) if _TELLS_WHO_SAVES else None


def saves_by(pack: Callable[[Tensor], Any]) -> bool:
    """Whether autograd saves tensors by this function now, as far as torch tells."""
    functions = _saving()
    return functions is not None and functions[0] == pack


@contextmanager
def leaving_no_trace() -> Iterator[Surroundings]:
    """Restore the surroundings at the end, however the context ends."""
    around = Surroundings()
    try:
        try:
            _open.stack.append(around)
            yield around
        except GeneratorExit:
            # Closed later than it ended: whoever is to blame for what is different now, it is not this.
            if not around.guards:
                _open.stack[:] = [known for known in _open.stack if known is not around]
            raise
        finally:
            around.restore()
    finally:
        around.restore()  # if the first was interrupted


@contextmanager
def without_mode(guard: Any) -> Iterator[None]:
    """Compute without the innermost dispatch mode, within a guard of `relprop.engine.levels`."""
    with leaving_no_trace() as around:
        if around.dispatch_modes:
            torch._C._pop_torch_dispatch_stack(None)
        around.hold(guard)
        yield


def remove_hooks(functions: tuple[Callable[..., Any], ...], hooks: tuple[dict[int, Any], ...]) -> None:
    """Remove hooks by what they call, because a handle may have been lost to an interrupt.

    Args:
        functions: what the hooks call.
        hooks: dictionaries of torch: hooks by number, and then what is noted of the same numbers.
    """
    numbers = {number for found in hooks for number, hook in list(found.items()) if hook in functions}
    for found in reversed(hooks):  # the hooks last, because the numbers are known by them
        for number in numbers:
            found.pop(number, None)


def hooks_of_all_modules() -> tuple[dict[int, Any], ...]:
    """Return where torch keeps the hooks on the forward of all modules."""
    return (
        of_all_modules._global_forward_pre_hooks,
        of_all_modules._global_forward_hooks,
        of_all_modules._global_forward_hooks_always_called,
    )
