"""The interface of objects that observe a run."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from relprop.calls.call import Call
from relprop.engine.gaps import Gap


class Observer:
    """Base class of observers of a run. Each method does nothing unless it is overridden."""

    def after_module(self, path: str, module: nn.Module, output: Any) -> Any:
        """Return the value that replaces a module's output. Called after each module."""
        return output

    def after_call(self, call: Call, applied: int, gaps: Sequence[Gap]) -> None:
        """Observe a call that was crossed.

        Args:
            call: the call.
            applied: number of rules that had been applied before the call.
            gaps: the gaps of the call.
        """

    def end_forward(self) -> None:
        """Called once the model has run. Modules that run later are recomputed parts of it.

        Raises:
            InputError: something that the user asked for did not occur.
        """

    def begin(self) -> None:
        """Forget the results of an earlier backward. Called before each backward."""

    def release(self) -> None:
        """Release everything that holds the graph. Called when the run is over."""
