"""What a rule for linear operations is, and how rules print: as they are written."""

from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.rules.elsewhere import told


@runtime_checkable
class Rule(Protocol):
    """How relevance crosses a linear operation. Any callable of this form is a rule: docs/own-rules.md.

    Three optional attributes save memory. `looks_everywhere = False`: outputs without relevance do not matter
    to the rule, so less is kept behind a ReLU. `needs_values = False`: the rule uses neither x nor z if a
    coefficient alone arrives, so neither is kept. `needs_input = False`: the rule uses z, but not x.
    """

    @property
    def puts_relevance(self) -> bool:
        """Whether the rule may put relevance on inputs that are zero, which no coefficient can express."""

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        """Return the relevance of the operation's input, and the amounts that are absorbed."""


class PrintedRule:
    """Base of rules that are dataclasses: they print as they are written, without options at their defaults.

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
            try:
                text = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            except ValueError:  # Python writes no integer of more than 4,300 digits
                text = "a number of thousands of digits"
            shown.append(f"{entry.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


R = TypeVar("R", bound=PrintedRule)


def tells_names(cls: type[R]) -> type[R]:
    """Class decorator: a parameter that another library has is told what it is here, in a TypeError."""
    made = cls.__init__

    @wraps(made)
    def init(self: R, *values: Any, **parameters: Any) -> None:
        own = [entry.name for entry in fields(cls)]  # type: ignore[arg-type]  # a dataclass, as all rules are
        for name in parameters:
            if name not in own and (said := told(name, "parameters")):
                raise TypeError(
                    f"{cls.__name__}.__init__() got an unexpected keyword argument {name!r}.{said}"
                )
        made(self, *values, **parameters)

    cls.__init__ = init  # type: ignore[method-assign, assignment]
    return cls


OPTION = {"option": True}
"""Metadata of a rule's field that is not printed at its default."""
