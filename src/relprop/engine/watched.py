"""An interception that tells an observer of each call of the model, as an ordinary run makes them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from relprop.engine.interception import Entry, Interception
from relprop.engine.observer import Observer
from relprop.engine.run import Run
from relprop.engine.writing import Beginnings


class Watch(Protocol):
    """Takes the calls of a model."""

    def begin_call(self) -> None:
        """Called before each call."""

    def call(self, operation: Any, arguments: Any, result: Any) -> None:
        """Take a call of the model. Calls within it, such as its parts, are not told."""


class Watched(Interception):
    """Tells of each call of the model.

    Args:
        run: the run, as entries see it.
        table: entries by the name of the operation in aten.
        beginnings: finds the explained inputs that appear while the model runs.
        observers: objects that are called after modules and calls.
        watch: takes the calls.
    """

    def __init__(
        self,
        run: Run,
        table: Mapping[str, Entry],
        beginnings: Beginnings,
        observers: Sequence[Observer],
        watch: Watch,
    ) -> None:
        super().__init__(run, table, beginnings, observers)
        self._watch = watch
        self._is_within = False

    def plain(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self._told(super().plain, operation, args, kwargs)

    def see(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self._told(super().see, operation, args, kwargs)

    def after_module(self, module: nn.Module, output: Any) -> Any:
        before, self._is_within = self._is_within, True  # observers make calls of their own
        try:
            return super().after_module(module, output)
        finally:
            self._is_within = before

    def _told(self, run_call: Any, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self._is_within:
            return run_call(operation, args, kwargs)
        self._is_within = True
        self._watch.begin_call()
        try:
            result = run_call(operation, args, kwargs)
        finally:
            self._is_within = False
        self._watch.call(operation, (args, kwargs), result)
        return result
