"""What a rule for linear operations is, and how rules print: as they are written."""

from dataclasses import fields, is_dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from relprop.linear.operation import Incoming, LinearOperation, Propagated


@runtime_checkable
class Rule(Protocol):
    """How relevance crosses a linear operation.

    Any callable of this form can be used, with `puts_relevance`. One that says in an attribute
    `looks_everywhere` that outputs without relevance do not matter to it (False) saves memory behind a ReLU;
    one that says in `needs_values` that it looks neither at x nor at z, while it gets a coefficient alone,
    (False) saves the memory of both.
    """

    @property
    def puts_relevance(self) -> bool:
        """Whether the rule puts relevance on inputs that may be zero, which no coefficient can express."""

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        """Return the relevance of the operation's input."""


class PrintedRule:
    """Base of rules that are dataclasses: they print as they are written, without options left alone.

    Options are fields with the metadata `OPTION`.
    """

    def __repr__(self) -> str:
        if not is_dataclass(self):
            return f"{type(self).__name__} (write @dataclass(frozen=True, repr=False) before the class)"
        shown = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.metadata == OPTION and value == entry.default:
                continue
            text = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            shown.append(f"{entry.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


OPTION = {"option": True}
"""Metadata of a rule's field that is not printed at its usual value."""
