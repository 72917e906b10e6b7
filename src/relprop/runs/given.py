"""The arguments of an explanation as a list of tensors, and a key for all else that a graph depends on."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from relprop.calls.nested import map_leaves, tensors_in
from relprop.runs.backward import Explained
from relprop.runs.storages import copied
from relprop.runs.unchanged import referred_to
from relprop.runs.wanted import Wanted
from relprop.targets.classes import OfClass
from relprop.targets.given import as_target
from relprop.targets.scores import OfSamples, Target, logits_of, of_classes
from relprop.targets.structured import At

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, slice, range)


@dataclass(frozen=True)
class Given:
    """What an explanation is computed from.

    Attributes:
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.
        goals: the targets.
        wanted: what the user wants beside the relevance of the inputs.
        leaves: the tensors among the arguments, and the classes to explain.
        of_classes: for each target whether its classes are a leaf.
        family: equal for what differs in the shapes of arguments alone.
        key: equal for what one graph can compute.
        refused: why no graph can compute it, or "".
    """

    inputs: tuple[Any, ...]
    arguments: dict[str, Any]
    goals: Sequence[Target]
    wanted: Wanted
    leaves: tuple[Tensor, ...]
    of_classes: tuple[bool, ...]
    family: Hashable
    key: Hashable
    refused: str = ""

    @classmethod
    def of(
        cls, inputs: tuple[Any, ...], arguments: dict[str, Any], goals: Sequence[Target], wanted: Wanted
    ) -> "Given":
        """Return arguments as tensors and a key."""
        leaves = list(tensors_in((list(inputs), arguments)))
        parts: list[Hashable] = []
        shapes: list[Hashable] = []
        refused = ""

        def note(value: Any) -> Any:
            nonlocal refused
            if isinstance(value, Tensor):
                is_plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided
                if not is_plain or value.is_nested:
                    refused = f"an argument is a {_kind(value)}"
                    return value
                parts.append((value.dim(), value.dtype, value.device))
                shapes.append((value.shape, value.stride()))
            elif isinstance(value, _PLAIN):
                parts.append((type(value), str(value) if isinstance(value, slice) else value))
            else:
                refused = f"an argument is a {type(value).__name__}, and what it holds is not followed"
            return value

        map_leaves(note, list(inputs))
        map_leaves(note, arguments)
        parts.append(_structure([list(inputs), arguments]))
        device = leaves[0].device if leaves else None  # a graph does not wait for classes from elsewhere
        found = [_classes_of(goal, device) for goal in goals]
        for goal, classes in zip(goals, found, strict=True):
            leaves += [] if classes is None else [classes]
            of_any_class = goal if classes is None else goal.with_classes(None)  # type: ignore[attr-defined]
            parts.append((None if classes is None else classes.shape, _of_target(of_any_class)))
        parts.append((_hashable(wanted.record), _hashable(wanted.parameters), wanted.per_operation))
        if wanted.start is not None or wanted.conditions:
            refused = "start= and conditions= are not part of a graph"
        modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if any([type(mode) is not DeviceContext for mode in modes]):
            refused = "a TorchFunctionMode is active, which may do anything"
        for kind in dict.fromkeys(("cpu", "cuda", *[t.device.type for t in leaves])):
            # Also where it is off: a model may switch it on by itself.
            if torch.amp.is_autocast_available(kind):
                parts.append((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)))
        parts.append((torch.get_default_dtype(), torch.get_default_device()))  # of new tensors
        try:
            hash(tuple(parts))
        except TypeError as error:
            refused = refused or f"a target or an argument cannot be compared with others: {error}"
        family, of_classes = tuple(parts), tuple([classes is not None for classes in found])
        key = (family, *shapes)
        return cls(inputs, arguments, goals, wanted, tuple(leaves), of_classes, family, key, refused)

    def put(self, leaves: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any], list[Target]]:
        """Return arguments and targets with other tensors."""
        following = iter(leaves)

        def replaced(value: Any) -> Any:
            return next(following) if isinstance(value, Tensor) else value

        inputs = tuple(map_leaves(replaced, list(self.inputs)))
        arguments = {name: map_leaves(replaced, value) for name, value in self.arguments.items()}
        goals = [
            goal.with_classes(next(following)) if of_classes else goal  # type: ignore[attr-defined]
            for goal, of_classes in zip(self.goals, self.of_classes, strict=True)
        ]
        return inputs, arguments, goals

    def others(self) -> list[Tensor]:
        """Return tensors with other values: of floating-point numbers or, without any, of integers."""
        count = sum(1 for _ in tensors_in((list(self.inputs), self.arguments)))
        of_inputs, classes = self.leaves[:count], self.leaves[count:]
        floats = any([t.is_floating_point() for t in of_inputs])
        return [_other(t) if t.is_floating_point() or not floats else t for t in of_inputs] + list(classes)

    def require_classes(self, results: Sequence[Explained]) -> None:
        """Check that classes are in range, which a graph does not.

        Raises:
            InputError: a class is out of range, or there is not one for each sample.
        """
        for goal, has_classes, each in zip(self.goals, self.of_classes, results, strict=True):
            if each.logits is None or not has_classes:
                continue
            output: Any = torch.empty(each.logits, device="meta")
            inner: Any = goal
            if isinstance(goal, At):
                output, inner = goal.part(output), as_target(goal.target)
            if isinstance(inner, OfClass):
                inner.classes(logits_of(of_classes(output, len(each.explanation))))


def _other(values: Tensor) -> Tensor:
    """Return values that change places and, if they are floating-point numbers, are smaller."""
    moved = values.detach().flatten().roll(1).view(values.shape)
    if 0 in values.stride():
        return values.detach()  # one value for several elements stays so
    return copied(values).copy_(moved * 0.75 if moved.is_floating_point() else moved)


def _classes_of(goal: Target, device: torch.device | None) -> Tensor | None:
    """Return the classes of a target on a device, if they may be an input of a graph."""
    chosen = goal.chosen() if isinstance(goal, OfSamples) else None
    try:
        return None if chosen is None else torch.tensor(chosen, device=device)
    except (ValueError, RuntimeError):  # it has more than 64 bits, which the target refuses
        return None


def _structure(value: Any) -> Hashable:
    """Return how tensors and other leaves are nested, in the order in which they are given."""
    if isinstance(value, (list, tuple)):
        return type(value), tuple([_structure(v) for v in value])
    if isinstance(value, Mapping):
        return type(value), tuple([(k, _structure(v)) for k, v in value.items()])
    return cast("Hashable", type(value))


def _of_target(value: Any, depth: int = 3) -> Hashable:
    """Return what is equal for equal targets. Functions are known by their code and what it refers to."""
    if isinstance(value, (list, tuple)):
        return type(value), tuple([_of_target(v, depth) for v in value])
    if not isinstance(value, FunctionType) or depth == 0:
        return type(value), cast("Hashable", value)
    parts = [(name, _of_target(v, depth - 1)) for name, v in sorted(referred_to(value).items())]
    return value.__code__, _of_target(value.__defaults__ or (), depth - 1), tuple(parts)


def _hashable(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, (list, set, tuple)) else value


def _kind(value: Tensor) -> str:
    return type(value).__name__ if value.layout is torch.strided else f"tensor of layout {value.layout}"
