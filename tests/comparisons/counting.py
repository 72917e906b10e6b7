"""Floating point operations of linear algebra, counted call by call, and memory."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the operations of all matrix products and convolutions inside the context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula = flop_registry.get(function._overloadpacket)
        if formula is None:
            # Below autograd `conv2d` and `linear` arrive whole, and only their parts have a formula.
            with self:
                result = function.decompose(*args, **(kwargs or {}))
            return function(*args, **(kwargs or {})) if result is NotImplemented else result
        result = function(*args, **(kwargs or {}))
        self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the calls of each operation of aten inside the context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[function._opname] += 1
        return function(*args, **(kwargs or {}))


def flops(function: Callable[[], Any]) -> int:
    """Count the operations of one call."""
    with FlopCount() as count:
        function()
    total: int = count.total
    return total


def peak(function: Callable[[], Any]) -> int:
    """Most bytes that torch has allocated at once on the CPU while the function runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    now = most = 0
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
