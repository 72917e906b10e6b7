"""What a user wants to know beside the relevance of the inputs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from relprop.engine.conditions import Condition
from relprop.engine.inner_values import Selector, Start
from relprop.errors import RuleError
from relprop.runs.propagating import as_list

Selectors = Collection[Selector] | Selector
"""Modules by path or glob, or modules themselves; one or several."""

Weights = Collection[str | Tensor | nn.Module] | str | Tensor | nn.Module
"""Parameters by name or glob, parameters themselves, or modules, for all of their own."""


@dataclass(frozen=True)
class Wanted:
    """What a user wants to know beside the relevance of the inputs: see `relprop.explain`."""

    record: Selectors = ()
    conditions: Mapping[Selector, Condition] | None = None
    start: Start | None = None
    parameters: Weights = ()
    per_operation: bool = False

    def modules(self) -> list[Selector]:
        """The modules to record, one by one. A `ModuleList` is never called, and stands for its modules."""
        given = as_list(self.record, "record")
        lists = [list(each) if isinstance(each, nn.ModuleList) else [each] for each in given]
        return [module for each in lists for module in each]

    def require_nothing(self, rules: str) -> None:
        """Refuse what only rules can give.

        Raises:
            RuleError: any of it is wanted.
        """
        several = [self.record, self.conditions, self.parameters]
        if self.start is not None or any(isinstance(w, (nn.Module, Tensor)) or w for w in several):
            raise RuleError(
                f"rules={rules!r} is a plain gradient: record, conditions, start and parameters need rules."
            )
