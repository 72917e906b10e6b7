"""Functions that a model writes in several elementwise calls, as the graph of the calls."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from relprop.calls.found import Found
from relprop.engine.roles import PROBES, Role, of_function

T = TypeVar("T")


class Last(Protocol):
    """The last call of a function, from the values of its operands to its own."""

    def __call__(self, operands: Sequence[Tensor], /) -> Tensor:
        """Return the values."""

    def written(self) -> tuple[Any, ...] | None:
        """Return a key of calls that are alike; None if a constant is a tensor."""

    def has_shape(self) -> bool:
        """Whether a constant has dimensions, so that elements may differ."""


@dataclass(eq=False, slots=True)
class Composed:
    """An elementwise function of one tensor, stored as the graph of the calls that it is composed of.

    The only tensors of the model that it holds are constants, so a backward may keep it.

    Attributes:
        last: the last call.
        operands: the operands of the last call, as functions of the tensor; None for the tensor itself.
        scales: whether the last call is a product with a constant, which changes no role.
        derived: whether torch may have a derivative of the last call.
        at_zero: value and slope at zero; None until they are first needed.
        probed: values at `PROBES`; None until they are first needed.
        fails: whether it is known to have no values at `PROBES`, so that no longer chain tries again.
    """

    last: Last
    operands: "tuple[Composed | None, ...]"
    scales: bool = False
    derived: bool = True
    at_zero: tuple[Tensor, Tensor] | None = None
    probed: Tensor | None = None
    fails: bool = False
    _role: Role | None = None
    _number: int | None = None
    _shaped: bool | None = None
    _known: Found[Any] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the function's values. Each call is made once, even if its result is used several times."""
        order, uses = self.calls()
        values: dict[int, Tensor] = {}
        for call in order:
            values[id(call)] = call.last([x if o is None else values[id(o)] for o in call.operands])
            for operand in call.operands:
                uses[id(operand)] -= 1
                if operand is not None and not uses[id(operand)]:
                    del values[id(operand)]
        return values[id(self)]

    def calls(self) -> "tuple[list[Composed], Counter[int]]":
        """Return the calls, operands first, and by `id()` how often the result of each call is used."""
        order: list[Composed] = []
        uses: Counter[int] = Counter()
        met: set[int] = set()
        waiting: list[tuple[Composed, bool]] = [(self, False)]
        while waiting:
            call, ready = waiting.pop()
            if ready:
                order.append(call)
            elif id(call) not in met:
                met.add(id(call))
                waiting.append((call, True))
                for operand in call.operands:
                    uses[id(operand)] += 1
                    if operand is not None:
                        waiting.append((operand, False))
        return order, uses

    def role(self, root: Tensor) -> Role:
        """Return what the function makes of a signal, by its values at a few points.

        Args:
            root: a tensor that the function may be applied to, for its shape, type and device.
        """
        if self.scales:
            before = self.operands[0]
            return Role.SIGNAL if before is None else before.role(root)
        if self._role is None:
            self._role = self.known("role", root.dtype, lambda: self._judged(root))
        return self._role

    def power(self, root: Tensor) -> int | None:
        """Return n if the function of large numbers is in proportion to their nth power, for n of 1 and -1.

        Args:
            root: a tensor that the function may be applied to, for its shape and device.
        """
        return self.known("power", None, lambda: self._power(root))

    def known(self, what: str, dtype: torch.dtype | None, find: Callable[[], T]) -> T:
        """Return a property of the function, found once: for all functions of its number, if it has one.

        Args:
            what: name of the property.
            dtype: the type of the values that the property depends on, or None.
            find: finds the property. It is no tensor of the model.
        """
        number = self._numbered()
        known: Found[Any] = _KNOWN
        if number == _OTHER:
            self._known = known = Found() if self._known is None else self._known
        found: T = known.of((number, what, dtype), find)
        return found

    def _numbered(self) -> int:
        """The same number for functions that are written alike, with numbers alone; `_OTHER` for others."""
        for call in self._before(lambda call: call._number is not None):
            operands = [_ROOT if o is None else o._number for o in call.operands]
            written = None if _OTHER in operands else call.last.written()
            # An operation of another library may be replaced by another one of its name.
            alike = written is not None and "::" not in written[0]
            call._number = _NUMBERS.of((written, *operands), _COUNT.__next__) if alike else _OTHER
        assert self._number is not None
        return self._number

    def _has_shape(self) -> bool:
        """Whether a constant in the function has dimensions, so that elements may differ."""
        for call in self._before(lambda call: call._shaped is not None):
            shaped = [o is not None and o._shaped for o in call.operands]
            call._shaped = any(shaped) or call.last.has_shape()
        return self._shaped is True

    def _before(self, is_done: "Callable[[Composed], bool]") -> "Iterator[Composed]":
        """Yield the calls that are not done, operands first. Each is done when the next is asked for."""
        waiting = [] if is_done(self) else [self]
        while waiting:
            missing = [o for o in waiting[-1].operands if o is not None and not is_done(o)]
            if not missing:
                call = waiting.pop()
                if not is_done(call):
                    yield call
            waiting += missing

    def _power(self, root: Tensor) -> int | None:
        points = torch.tensor([1e9, 2e9], dtype=torch.float64, device=root.device)
        try:
            with torch.no_grad():
                one, two = self(points.view(-1, *[1] * (root.dim() - 1)))
        except (RuntimeError, TypeError, ValueError):  # a constant of another shape or type
            return None
        return next((n for n in (1, -1) if torch.allclose(two, one * 2.0**n, rtol=1e-3, atol=0)), None)

    def _judged(self, root: Tensor) -> Role:
        dtype = torch.promote_types(root.dtype, torch.float32)
        points = torch.tensor(PROBES, dtype=dtype, device=root.device).view(-1, *[1] * (root.dim() - 1))
        if self._has_shape():  # in which the points stand for samples
            points = points.expand(-1, *root.shape[1:])
        try:
            with torch.no_grad():
                values = _growing_most(self._probe(points).reshape(len(PROBES), -1)).tolist()
        except (RuntimeError, TypeError):  # a constant of another shape or type
            self.fails = True
            return Role.SIGNAL
        return of_function(values)

    def _probe(self, points: Tensor) -> Tensor:
        """Return the values at points. Each call is made once in its lifetime."""
        for call in self._before(lambda call: call.fails or call.probed is not None):
            if any([o is not None and o.fails for o in call.operands]):
                raise RuntimeError("a call before this one takes a constant of another shape or type")
            call.probed = call.last([points if o is None else o.probed for o in call.operands])  # type: ignore[misc]
        assert self.probed is not None
        return self.probed


def _growing_most(values: Tensor) -> Tensor:
    """Return the values at the points of the element that grows most: a signal among weights is a signal."""
    if values.shape[1] == 1:
        return values[:, 0]
    growth = (values[1:] - values[:1]).abs().nan_to_num(posinf=0).amax(0)
    return values[:, int(growth.argmax())]


_ROOT = -1
"""Stands for the tensor itself in a key."""

_OTHER = -2
"""Number of functions in which a constant is a tensor."""

_COUNT = count()
_NUMBERS: Found[int] = Found()
"""The numbers of functions that are written with numbers alone, by how they are written."""

_KNOWN: Found[Any] = Found()
"""What is known of these functions, by their number, the property's name and a type."""
