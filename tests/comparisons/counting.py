"""Floating point operations of linear algebra, counted call by call."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCount(TorchDispatchMode):
    """Sums the operations of all matrix products and convolutions inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Calls(TorchDispatchMode):
    """Counts the calls of each operation of aten inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[function._opname] += 1
        return function(*args, **(kwargs or {}))


def flops(function: Callable[[], Any]) -> int:
    """Count the operations of one call."""
    with FlopCount() as count:
        function()
    return count.total
