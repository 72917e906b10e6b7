"""Following integer inputs, such as the tokens of a text, to the embedding that looks them up.

An integer, or id, looks up a row in an embedding. Its relevance is the sum over this row. To find the id of a
row, relprop follows the ids through operations that only rearrange them, such as views, slices and a shift to
the right. The same operations are applied to the positions of the ids. A position is the number of an element
in the inputs. A function of each id alone changes its value, and leaves it the id that it is: an offset, as
of several fields that share one table, a hash such as `ids % 1000`, a table of integers. A one-hot vector is
made of one id, by `one_hot` or by comparison with each of several constants, and is explained where it
becomes numbers. Positions of tokens, types of tokens and masks are not explained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls.call import Call
from relprop.calls.nested import map_leaves, tensors_in
from relprop.engine.memory import laid_out
from relprop.engine.seen import Seen, inner_of
from relprop.inputs.id_calls import (
    ARITHMETIC,
    COMPARING,
    CONVERTING,
    FOLLOWED,
    FOLLOWED_TYPES,
    INDEXING,
    INTEGERS,
    LOOKING,
    PLACING,
    PROMOTING,
    REPLACING,
    SPARSE,
    VALUES,
    index_of,
    valued,
)
from relprop.operations import bags

Lost = Mapping[str, str]
"""Where and why ids were lost on their way to an embedding, by the name of their input."""


@dataclass(frozen=True)
class IdInput:
    """An integer input: name of the argument, shape, and position of its first element.

    `bags` has the number of the sample of each element, (elements,), for the ids of all samples one after the
    other, whose offsets an embedding bag gets. Otherwise it is None.
    """

    name: str
    shape: tuple[int, ...]
    first: int
    bags: Tensor | None = None


class TokenIds:
    """The integer inputs of a run, and the positions of the ids in each tensor that consists of ids.

    A tensor's positions are int64, of the tensor's shape. A position is the number of an element, counted
    through all inputs. It is -1 for an integer that is not from an input, such as a decoder's first token.
    Ids with an offset have numbers of their own behind those of the inputs, because their values are others.

    Attributes:
        inputs: the integer inputs, in order.
        any_hot: whether one-hot vectors were made of ids.
        compared: by the name of an input, what its ids are compared with.
        placing: names of the inputs that say where relevant elements are, as the edges of a graph.
    """

    def __init__(self) -> None:
        self._positions: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._lost: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._computed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._any_computed = False
        self._values: list[Tensor] = []
        self._origins: list[Tensor] = []
        self._hot: list[Tensor] = []
        self._quiet: list[Tensor] = []
        self._any_quiet = False
        self._count = 0
        self.any_hot = False
        self.compared: dict[str, set[str]] = {}
        self.placing: set[str] = set()
        self.inputs: list[IdInput] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Record an input by its name."""
        self.inputs.append(IdInput(name, tuple(tensor.shape), self._count))
        self._positions[tensor] = self._numbered(tensor, None)

    def add_cast(
        self, name: str, x: Tensor, integers: Tensor, positions: Tensor, *, quiet: bool = False
    ) -> None:
        """Record that elements of a floating-point input were cast to integers.

        Args:
            name: name of the input.
            x: the input.
            integers: the result of the cast.
            positions: for each integer the number of its element in `x`, of the shape of `integers`.
            quiet: whether nothing is told if they are used as numbers, as rounded values and masks are.
        """
        if name not in [each.name for each in self.inputs]:
            self.add(name, x.to(torch.int64))
        first = next(each.first for each in self.inputs if each.name == name)
        self._positions[integers] = self._numbered(integers, positions + first, quiet=quiet)

    def note_computed(self, integers: Tensor, names: Sequence[str]) -> None:
        """Record that integers were computed from these inputs, and are not followed."""
        self._computed[integers] = tuple(names)
        self._any_computed = True

    def computed_from(self, index: Any) -> tuple[str, ...]:
        """Return the names of the inputs that integers were computed from without being followed."""
        if not self._any_computed or type(index) is not Seen:
            return ()
        names: tuple[str, ...] = self._computed.get(index.recorded, ())  # type: ignore[no-untyped-call]
        return names

    def _numbered(
        self, tensor: Tensor, origins: Tensor | None, *, hot: bool = False, quiet: bool = False
    ) -> Tensor:
        """Return new numbers for the elements of a tensor.

        Args:
            tensor: the tensor.
            origins: the position that each element has in the inputs; None for an input itself.
            hot: whether they are elements of one-hot vectors.
            quiet: whether nothing is told of them if they are lost.
        """
        numbers = torch.arange(self._count, self._count + tensor.numel(), device=tensor.device)
        self._origins.append(numbers if origins is None else origins.flatten())
        self._values.append(tensor.flatten().clone())
        self._hot.append(torch.full_like(numbers, hot, dtype=torch.bool))
        self._quiet.append(torch.full_like(numbers, quiet, dtype=torch.bool))
        self._any_quiet = self._any_quiet or quiet
        self.any_hot = self.any_hot or hot
        self._count += tensor.numel()
        return numbers.reshape(tensor.shape)

    def find(self, tensor: Any) -> Tensor | None:
        """Return the positions of a tensor's elements if it consists of ids, otherwise None."""
        if type(tensor) is not Seen:
            return None
        memory, inner = tensor.memory, tensor.recorded
        if memory is not None and memory.positions is not None:
            return memory.positions.as_strided(tensor.size(), tensor.stride(), tensor.offset)
        positions: Tensor | None = self._positions.get(inner)  # type: ignore[no-untyped-call]
        return positions

    def looked_up(self, call: Call) -> Tensor | None:
        """Return the positions of the ids that a call looks up as rows of a table; None for other calls."""
        index = self._looked_up_by(call)
        positions = self.find(index)
        return None if positions is None else self._checked(inner_of(index), positions)

    def _looked_up_by(self, call: Call) -> Any:
        """Return the integers by which a call picks rows of a table; None for other calls.

        One-hot vectors are looked up where they become numbers.
        """
        if not self.inputs:
            return None
        if call.operation in ("to", "_to_copy", "type_as") and self.are_hot(call.args[0]):
            return call.args[0]
        return index_of(call)

    def are_hot(self, tensor: Any) -> bool:
        """Whether a tensor of integers consists of one-hot vectors of ids."""
        positions = self.find(tensor)
        if positions is None or not positions.numel() or bool((positions < 0).any()):
            return False
        return bool(torch.cat([hot.to(positions.device) for hot in self._hot])[positions].all())

    def become_numbers(self, call: Call) -> list[Seen]:
        """Return the one-hot vectors that become numbers in a call, as it has floating-point operands."""
        if call.operation not in PROMOTING:
            return []
        tensors = list(tensors_in(valued(call)))
        if not any([t.is_floating_point() for t in tensors]):
            return []
        return [t for t in tensors if type(t) is Seen and self.are_hot(t)]

    def _checked(self, index: Tensor, positions: Tensor) -> Tensor:
        """Return the positions in the inputs.

        They are -1 for elements whose values are not those of the ids any more.
        """
        values = torch.cat([values.to(index) for values in self._values])
        same = (values[positions.clamp(min=0)] == index) | (positions < 0)
        origins = self._origins_of(positions)
        # As a rule all are the same, and then the positions depend on no values.
        return origins if bool(same.all()) else torch.where(same, origins, -1)

    def put_in_bags(self, call: Call) -> int | None:
        """Record the bags of an input of one dimension from the call that is to look them up.

        Returns:
            The number of bags; None if the call does not get exactly such an input.
        """
        positions = self.find(call.args[1])
        offsets, ends_given = inner_of(call.args[2]), bool(call.args[7])
        for number, each in enumerate(self.inputs):
            (count, *more) = each.shape
            own = torch.arange(each.first, each.first + count).to(positions)
            if not more and positions is not None and torch.equal(self._origins_of(positions), own):
                bag, counts = bags.bags(offsets, count, ends_given=ends_given)
                self.inputs[number] = replace(each, bags=bag)
                return len(counts)
        return None

    def _origins_of(self, positions: Tensor) -> Tensor:
        """Return the positions in the inputs of elements that may have an offset."""
        origins = torch.cat([origins.to(positions) for origins in self._origins])
        return torch.where(positions >= 0, origins[positions.clamp(min=0)], -1)

    def end_in(self, call: Call, result: Any) -> list[str]:
        """Return the names of the inputs whose ids are lost in a call: its result cannot be followed."""
        if not self.inputs or self.find(self._looked_up_by(call)) is not None:
            return []
        if self._joins(call):
            self.placing.update(self.names_in(call.args))
            return []
        if call.operation in COMPARING:
            other = None if isinstance(call.args[1], Tensor) else call.args[1]
            for name in self.names_in(call.args):
                self.compared.setdefault(name, set()).add(f"{call.operation} {other}")
        hot = [t for t in tensors_in(call.args) if self.are_hot(t)] if self.any_hot else []
        if call.operation in LOOKING and not (hot and call.operation == "sum"):
            return []
        args = call.args
        if isinstance(result, Tensor) and result in self._positions and self._is_by_itself(call, result):
            return []
        if call.operation in FOLLOWED and not any(t.is_floating_point() for t in tensors_in(result)):
            # Others take only the shape or the type of an argument that is not moved.
            if call.operation in ("where", "masked_fill"):
                moved = list(tensors_in(valued(call)))
                return self.names_in([t for t in hot if not any(t is m for m in moved)])
            if call.operation not in INDEXING or self.find(args[0]) is not None:
                return []
            args = args[1:]
        return self.names_in(args)

    def _joins(self, call: Call) -> bool:
        """Whether a call makes a matrix of edges: it puts elements where two integers of an input say."""
        if call.operation in SPARSE:
            return True
        indices = call.args[1] if call.operation in ("index_put", "_unsafe_index_put") else ()
        return sum(self.find(t) is not None for t in indices) > 1

    def taken_as_numbers(self, call: Call) -> list[str]:
        """Return the names of the inputs whose ids a call takes as numbers, beside relevant tensors."""
        return self.names_in(call.args) if self.inputs and call.operation in ARITHMETIC else []

    def note_placing(self, call: Call) -> None:
        """Record the inputs by which a call reads relevant elements, or adds them to others."""
        if self.inputs and call.operation in PLACING:
            self.placing.update(self.names_in([t for t in tensors_in(call.args) if t.dtype in INTEGERS]))

    def names_in(self, args: Any) -> list[str]:
        """Return the names of the inputs whose ids are among arguments."""
        found = [positions for t in tensors_in(args) if (positions := self.find(t)) is not None]
        if self._any_quiet:
            quiet = torch.cat(self._quiet)
            found = [p for p in found if not bool(quiet.to(p.device)[p.clamp(min=0)].any())]
        if not found:
            return []
        of_inputs = torch.cat([self._origins_of(p.to(found[0])).flatten() for p in found])
        ends = [(each.name, each.first, each.first + torch.Size(each.shape).numel()) for each in self.inputs]
        return [n for n, first, end in ends if bool(((of_inputs >= first) & (of_inputs < end)).any())]

    def follow(self, call: Call) -> Any:
        """Run a call on constants, and record the positions of its results if its operands have ids."""
        result = call.on([inner_of(a) for a in call.args])
        if self._any_computed:
            names = {name for t in tensors_in(call.args) for name in self.computed_from(t)}
            for t in tensors_in(result) if names else ():
                self.note_computed(t, sorted(names))
        if self.inputs and self._is_by_itself(call, result):
            self._replace(call, result)
        if not self.inputs or call.operation not in FOLLOWED:
            return result
        values = VALUES.get(call.operation, (0,))
        given = [call.args[i] for i in values if i < len(call.args)]
        known = [p for t in tensors_in(given) if (p := self.find(t)) is not None]
        if not known:
            return result
        positions = known[0] if call.operation in CONVERTING else self._moved(call, values)
        for tensor, of_tensor in zip(tensors_in(result), tensors_in(positions), strict=False):
            if tensor.dtype in FOLLOWED_TYPES and tensor.shape == of_tensor.shape:
                self._positions[tensor] = of_tensor
        return result

    def _is_by_itself(self, call: Call, result: Any) -> bool:
        """Whether a call may compute a function of each id alone, of ids and constants."""
        if call.operation in ("index", "take"):  # of a table of integers
            table = call.args[0]
            return table.dim() == 1 and not table.is_floating_point() and self.find(table) is None
        return (
            call.operation in REPLACING
            or call.operation == "one_hot"
            or self._compares_with_each(call, result)
        )

    def _compares_with_each(self, call: Call, result: Any) -> bool:
        """Whether a call compares each id with several constants, as `ids[..., None] == arange(n)` does."""
        if call.operation != "eq" or not all(isinstance(a, Tensor) for a in call.args[:2]):
            return False
        found = [self.find(t) for t in call.args[:2]]
        if found.count(None) != 1:
            return False
        positions, constants = (
            (inner_of(t) if p is None else p).expand(result.shape).stride()
            for p, t in zip(found, call.args, strict=False)
        )
        steps = zip(positions, constants, result.shape, strict=True)
        return any(size > 1 and step == 0 and other != 0 for step, other, size in steps)

    def _replace(self, call: Call, result: Tensor) -> None:
        """Number the ids anew in a result that has a function of each of them alone."""
        ids, *others = sorted(tensors_in(call.args), key=lambda t: self.find(t) is None)
        positions = self.find(ids)
        if positions is None or result.dtype not in FOLLOWED_TYPES:
            return
        if any(self.find(t) is not None or inner_of(t) in self._lost for t in others):
            return
        hot = call.operation in ("one_hot", "eq") or self.are_hot(ids)
        known = (positions.unsqueeze(-1) if call.operation == "one_hot" else positions).expand(result.shape)
        quiet = self._any_quiet and not self.names_in([ids])
        numbers = self._numbered(result, self._origins_of(known), hot=hot, quiet=quiet)
        self._positions[result] = torch.where(known >= 0, numbers, -1)

    def lose(self, result: Any, places: Lost) -> None:
        """Record that a result was computed from ids. If it is written over ids, these are lost too."""
        for tensor in tensors_in(result):
            self._lost[tensor] = places

    def lost(self, tensor: Seen) -> Lost:
        """Return where the ids were lost that a tensor was computed from, as far as it has been recorded."""
        known: Lost = self._lost.get(tensor.recorded, {})  # type: ignore[no-untyped-call]
        of_memory = {} if tensor.memory is None else tensor.memory.lost
        return {**of_memory, **tensor.lost, **known}

    def note_written(self, target: Any, value: Any) -> None:
        """Record the positions of a value that is about to be written to a part of an integer tensor."""
        if not self.inputs or target.dtype not in INTEGERS:
            return
        memory, written = target.memory, self.find(value)
        if memory is None:
            return
        if inner_of(value) in self._lost:
            memory.positions = None
            self._positions.pop(memory.base, None)  # type: ignore[no-untyped-call]
            return
        if memory.positions is None:
            base = memory.base
            known: Tensor | None = self._positions.get(base)  # type: ignore[no-untyped-call]
            if known is None and written is None:
                return
            known = torch.full_like(base, -1, dtype=torch.int64) if known is None else known
            memory.positions = laid_out(known, base.stride())
        part = memory.positions.as_strided(target.size(), target.stride(), target.offset)
        part.copy_(torch.full_like(part, -1) if written is None else written)

    def _moved(self, call: Call, values: tuple[int, ...]) -> Any:
        """Return the result of the call on positions; None if the call does not run on positions."""
        places = [self._in_place_of(v) if i in values else inner_of(v) for i, v in enumerate(call.args)]
        try:
            return call.on(places)
        except (RuntimeError, TypeError, IndexError):
            return None

    def _in_place_of(self, value: Any) -> Any:
        return map_leaves(self._position, value)

    def _position(self, value: Any) -> Any:
        """Return positions for ids, and -1 for other integers."""
        if isinstance(value, Tensor):
            positions, value = self.find(value), inner_of(value)
            if positions is None and value.dtype == torch.bool:
                return value
            return torch.full_like(value, -1, dtype=torch.int64) if positions is None else positions
        return value if value is None else -1
