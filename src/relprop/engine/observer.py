"""What looks on while a model runs."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from relprop.calls.call import Call
from relprop.engine.gaps import Gap


class Observer:
    """What looks on in a run. Each method does nothing until it is overridden."""

    def after_module(self, path: str, module: nn.Module, output: Any) -> Any:
        """Return what takes the place of a module's output."""
        return output

    def after_call(self, call: Call, applied: int, gaps: Sequence[Gap]) -> None:
        """Look at a call that was crossed: how many rules there were before, and which gaps it has."""

    def end_forward(self) -> None:
        """The model has run. What comes later are parts of it that run again.

        Raises:
            InputError: something that was asked for did not come.
        """

    def begin(self) -> None:
        """A backward begins; forget what an earlier one brought."""

    def release(self) -> None:
        """Let go of what holds the graph: the run is over."""
