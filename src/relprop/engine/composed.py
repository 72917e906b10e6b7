"""Functions that a model writes in several elementwise calls, as the graph of the calls."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.roles import PROBES, Role, of_function


@dataclass(eq=False, slots=True)
class Composed:
    """An elementwise function of one tensor, stored as the graph of the calls that it is composed of.

    The only tensors of the model that it holds are constants, so a backward may keep it.

    Attributes:
        last: the last call, from the values of its operands to the function's values.
        operands: the operands of the last call, as functions of the tensor; None for the tensor itself.
        has_shape: whether a constant in the function has dimensions, so that elements may differ.
        scales: whether the last call is a product with a constant, which changes no role.
        derived: whether torch may have a derivative of the last call.
        key: name and numbers of a single call, by which its role is known; None for others.
        at_zero: value and slope at zero; None until they are first needed.
        probed: values at `PROBES`; None until they are first needed.
        fails: whether it is known to have no values at `PROBES`, so that no longer chain tries again.
        judged: its role by these values; None until it is first needed.
        grows: the result of `power`, in a tuple; None until it is first needed.
    """

    last: Callable[[Sequence[Tensor]], Tensor]
    operands: "tuple[Composed | None, ...]"
    has_shape: bool = False
    scales: bool = False
    derived: bool = True
    key: tuple[Any, ...] | None = None
    at_zero: tuple[Tensor, Tensor] | None = None
    probed: Tensor | None = None
    fails: bool = False
    judged: Role | None = None
    grows: tuple[int | None] | None = None

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
        if self.key is None:
            self.judged = self.judged or self._judged(root)
            return self.judged
        if self.key not in _KNOWN:
            _KNOWN[self.key] = self._judged(root)
        return _KNOWN[self.key]

    def power(self, root: Tensor) -> int | None:
        """Return n if the function of large numbers is in proportion to their nth power, for n of 1 and -1.

        Args:
            root: a tensor that the function may be applied to, for its shape and device.
        """
        self.grows = self.grows or (self._power(root),)
        return self.grows[0]

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
        if self.has_shape:  # in which the points stand for samples
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
        waiting = [self]
        while waiting:
            call = waiting[-1]
            if call.fails or any([o is not None and o.fails for o in call.operands]):
                raise RuntimeError("a call before this one takes a constant of another shape or type")
            missing = [o for o in call.operands if o is not None and o.probed is None]
            if call.probed is None and not missing:
                call.probed = call.last([points if o is None else o.probed for o in call.operands])  # type: ignore[misc]
            if call.probed is not None:
                waiting.pop()
            waiting += missing
        assert self.probed is not None
        return self.probed


def _growing_most(values: Tensor) -> Tensor:
    """Return the values at the points of the element that grows most: a signal among weights is a signal."""
    if values.shape[1] == 1:
        return values[:, 0]
    growth = (values[1:] - values[:1]).abs().nan_to_num(posinf=0).amax(0)
    return values[:, int(growth.argmax())]


_KNOWN: dict[tuple[Any, ...], Role] = {}
"""The roles of single calls without constant tensors, by `Composed.key`."""
