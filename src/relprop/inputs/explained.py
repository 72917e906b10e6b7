"""The explained inputs of a run: their stand-ins in the model, and the relevance that arrives at them."""

import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from relprop.calls.call import Call
from relprop.calls.moving import COPYING, MOVING, WRITTEN_OUT
from relprop.calls.nested import map_tensors, tensors_in, values_of
from relprop.calls.user_line import user_line
from relprop.engine.attach import attach
from relprop.engine.gaps import Gap
from relprop.engine.known import Behind, Tag, all_nonnegative, empty_slot
from relprop.engine.levels import aside
from relprop.engine.run import Run
from relprop.engine.seen import Seen, inner_of
from relprop.inputs.arguments import KEEP_OUT, TOGETHER
from relprop.inputs.id_calls import (
    CONVERTING,
    LOOKING_UP,
    REPLACING,
    STEPPING,
    index_of,
    may_be_ids,
    only_looks,
    valued,
)
from relprop.inputs.leaves import Leaf, Leaves
from relprop.inputs.tokens import Lost, TokenIds
from relprop.operations import bags


class ExplainedInputs:
    """The explained inputs of a run. Relevance begins there as the model runs.

    Args:
        run: the run.
        any_leaf: as the attribute.

    Attributes:
        leaves: the explained inputs as autograd sees them.
        ids: the integer inputs, followed to an embedding.
        any_leaf: whether relevance also begins at every leaf that requires a gradient and is no parameter.
        any_passed_on: whether the model gets integers as they are, which may be looked up.
        changed: the name of an integer input whose integers are replaced by others, to see what changes.
        differing: the error if the inputs have different numbers of samples, otherwise "". Such inputs are
            one sample, and the score must be one number.
    """

    def __init__(self, run: Run, *, any_leaf: bool = False) -> None:
        # A weak reference, so that a run and all that it keeps are freed as soon as it ends.
        self._run: Run = weakref.proxy(run)
        self.leaves = Leaves()
        self.ids = TokenIds()
        self.any_leaf = any_leaf
        self.changed = ""
        self.differing = ""
        self._is_over = False
        self._any_lost = False
        self.any_passed_on = False
        self._passed_on: list[tuple[str, Tensor, str]] = []

    # ---- what the model gets ----

    def stand_in(self, name: str, tensor: Tensor, samples: int) -> Seen:
        """Return the stand-in for an explained floating-point input. The model may change it in place."""
        return self._explained(Leaf(values_of(tensor).requires_grad_(), name=name), samples)

    def stand_in_for_ids(self, name: str, tensor: Tensor) -> Seen:
        """Return the stand-in for an integer input. It is explained if it is looked up in an embedding."""
        ids = values_of(tensor).clone(memory_format=torch.contiguous_format)  # positions are contiguous
        if name == self.changed:
            ids = torch.where(ids > 0, ids - 1, 1)  # which most tables have a row for
        self.ids.add(name, ids)
        return self._run.seen(ids, None)

    def stand_in_for_lost(self, name: str, tensor: Tensor, reason: str) -> Seen:
        """Return the stand-in for an integer input that cannot be explained, for this reason."""
        seen = self._run.seen(values_of(tensor), None)
        seen.lost, self._any_lost = {name: reason}, True
        return seen

    def note_passed_on(self, name: str, integers: Tensor, reason: str) -> None:
        """Record integers that are passed on as they are, for this reason."""
        self._passed_on.append((name, integers, reason))
        self.any_passed_on = True

    def other(self, value: Any) -> Any:
        """Return an argument that is not explained, with constants of the samples for its tensors."""

        def stand_in(tensor: Tensor) -> Tensor:
            if type(tensor) not in (Tensor, Seen):  # a parameter, or of another tensor class
                return tensor
            if tensor.layout is not torch.strided:  # a sparse matrix, which only weighs what is explained
                return tensor
            return self._run.seen(values_of(tensor), None)

        return map_tensors(stand_in, value)

    # ---- where relevance begins ----

    def follow(self, call: Call) -> Any:
        """Run a call on constants, and record for its results what is known about its operands."""
        result = self.ids.follow(call)
        names = self.ids.end_in(call, result)
        if names:
            self._lose(call, result, names, _COMPUTING)
        return result

    def _lose(self, call: Call, result: Any, names: Collection[str], reason: str) -> None:
        """Record that ids of these inputs are not followed beyond a call."""
        place = self._place(call, reason)
        self._run.gaps.cut(place)
        self.ids.lose(result, dict.fromkeys(names, str(place)))
        self._any_lost = True

    def _place(self, call: Call, reason: str) -> Gap:
        return Gap(self._run.modules.path, call.name, user_line(), reason)

    def in_plain(self, call: Call, result: Any) -> Any:
        """Return what replaces the result of a call without wrapper tensors.

        If it looks up integers that are passed on as they are, this is a wrapper tensor that knows of them.
        """
        if call.operation not in LOOKING_UP or not self._lose_passed_on(call, result):
            return result

        def stand_in(tensor: Tensor) -> Seen:
            seen = self._run.seen(tensor, None)
            seen.of_parameters, seen.lost = self._run.of_parameters.has(tensor), self.ids.lost(seen)
            return seen

        return map_tensors(stand_in, result)

    def _lose_passed_on(self, call: Call, result: Any) -> bool:
        """Record that a call looks up integers that are passed on as they are, if it does."""
        index = inner_of(index_of(call))
        for name, integers, reason in self._passed_on if isinstance(index, Tensor) else ():
            if _same_integers(index, integers):
                self._lose(call, result, [name], reason)
                return True
        return False

    def carry_lost(self, call: Call, seen: Sequence[Seen], result: Any) -> None:
        """Record for a call's results which integer inputs they were computed from without being followed."""
        if not self._any_lost and not self.ids.inputs:
            return
        if any([t.relevant for t in seen]):
            self.ids.note_placing(call)
        numbers = self.ids.taken_as_numbers(call)
        if not self._any_lost and not numbers:
            return
        lost: dict[str, str] = {}
        operands: Iterable[Tensor] = seen
        if any([t.relevant for t in seen]):
            operands = tensors_in(valued(call))
        else:
            numbers = []  # of integers and constants: `follow` knows whether they are lost
        if not only_looks(call, result):
            for t in operands:
                if type(t) is Seen:
                    lost |= self.ids.lost(t)
        if numbers:
            place = self._place(call, _COMPUTING)
            lost |= dict.fromkeys(numbers, str(place))
            self._any_lost = True
        for t in tensors_in(result):
            if type(t) is Seen and lost:
                t.lost = {**t.lost, **lost}
                if t.memory is not None:
                    t.memory.lost = {**t.memory.lost, **lost}

    def lost_on_the_way_to(self, value: Any) -> Lost:
        """Return where integer inputs were lost that a value was computed from, by name.

        Edges of a graph and other places are none, though norms may have been computed from them.
        """
        lost: dict[str, str] = {}
        for t in tensors_in(value):
            if type(t) is Seen:
                lost |= self.ids.lost(t)
        return {name: place for name, place in lost.items() if name not in self.ids.placing}

    def unfollowed(self, told: Collection[str]) -> list[str]:
        """Return the names of integer inputs of which nothing is known, beside those that are told of.

        What is compared with one or two things makes masks. With more, it may be one of several classes.
        """
        masks = [name for name, others in self.ids.compared.items() if len(others) < 3]
        known = {*told, *self.ids.placing, *masks}
        return [each.name for each in self.ids.inputs if each.name not in known]

    def note_written(self, target: Seen, value: Seen) -> None:
        """Record that a value is about to be written to a tensor, if it has ids."""
        self.ids.note_written(target, value)

    def note_cast(self, x: Seen, result: Seen) -> None:
        """Record that a tensor was cast to a type without a gradient, as categories to integers.

        If the integers are elements of an input, or a function of each of them alone, the elements get the
        relevance of what is looked up by them.
        """
        if not self._is_over and x.relevant:
            self._run.cut("to", f"casts to {result.dtype}, which has no gradient")
        self._note_integers(x, result)

    def note_step(self, call: Call, seen: Sequence[Seen], result: Seen) -> None:
        """Record that a call on relevant tensors gave a constant, such as rounded values or bins."""
        relevant = [t for t in seen if t.relevant]
        if call.operation in STEPPING and len(relevant) == 1 and relevant[0].shape == result.shape:
            result.stepped = _root(relevant[0])
            self._note_integers(result, result)

    def carry_step(self, call: Call, seen: Sequence[Seen], result: Any) -> None:
        """Record what a call made of step functions of single elements: they may be moved, or cast."""
        (stepped, *others) = [t for t in seen if t.stepped is not None]
        root = stepped.stepped
        assert root is not None
        found: list[Tensor | None] = []
        if not others and call.args[0] is stepped:
            if call.operation in (*REPLACING, *CONVERTING) and result.shape == stepped.shape:
                found = [root]
            elif call.operation in (*MOVING, *COPYING, *WRITTEN_OUT):
                with aside(), torch.enable_grad():
                    moved = call.on([root if a is stepped else inner_of(a) for a in call.args])
                found = list(tensors_in(moved))
        for i, t in enumerate(tensors_in(result)):
            if type(t) is Seen and i < len(found) and found[i].shape == t.shape:  # type: ignore[union-attr]
                t.stepped = found[i]
                self._note_integers(t, t)
            elif type(t) is Seen and not only_looks(call, result):
                self.ids.note_computed(t.recorded, self.leaves.behind(root))

    def _note_integers(self, x: Seen, integers: Seen) -> None:
        """Record that integers were made of a tensor, element by element."""
        # A checkpointed module must run to its end before the values that it drops can be had.
        if not may_be_ids("", integers) or self._is_over or self._run.block is not None:
            return
        root = _root(x) if x.stepped is None else x.stepped
        with aside():
            found = self.leaves.elements_of(root)
            if found is not None:
                leaf, positions = found
                values, quiet = leaf.root.detach(), root is not x.recorded
                self.ids.add_cast(leaf.name, values, integers.recorded, positions, quiet=quiet)
            else:
                self.ids.note_computed(integers.recorded, self.leaves.behind(root))

    def become_numbers(self, call: Call) -> list[Seen]:
        """Return the one-hot vectors of ids that become numbers beside other operands of a call."""
        return self.ids.become_numbers(call) if self.ids.any_hot else []

    def may_begin_within(self, call: Call) -> bool:
        """Whether a call is an embedding bag of ids, which looks them up and pools what it found."""
        if call.operation not in bags.TABLE or self.ids.find(call.args[1]) is None:
            return False
        samples = self.ids.put_in_bags(call)
        if samples is not None:
            self._require_samples("the bags of ids have", samples)
        return True

    def looked_up(self, call: Call, value: Any, off: str) -> Seen | None:
        """Return the wrapper tensor that replaces a call's value if the call embeds explained ids, or None.

        Args:
            call: the call.
            value: the result of the call.
            off: the reason why gradients are disabled in the model at this call, or "". If they are,
                relevance does not begin here, and the error about missing inputs says why.
        """
        ids = self.ids.looked_up(call)
        if ids is None and call.operation in LOOKING_UP:
            self._lose_passed_on(call, value)
            names = self.ids.computed_from(index_of(call))
            if names and any(t.is_floating_point() for t in tensors_in(value)):
                self.ids.lose(value, dict.fromkeys(names, str(self._place(call, _COMPUTED))))
                self._any_lost = True
        if ids is None or not any(t.is_floating_point() for t in tensors_in(value)):
            return None
        if off:
            self._lose(call, value, self.ids.names_in(call.args), off)
            return None
        tag = Tag(Behind(plain=False), all_nonnegative(value))
        with torch.enable_grad():
            root = value.detach().requires_grad_()
            if self._is_over:  # a part of the model runs again, and only its values are needed
                return self._run.seen(_unattached(root), tag)
            found = Leaf(root, positions=ids.clone(), inputs=tuple(self.ids.inputs))
            looked_up = found.looked_up()
            for each in looked_up:
                if each.bags is None:
                    self._require_samples(f"{each.name!r} has", each.shape[0], " in its first dimension")
            samples = self._run.ledger.samples if looked_up or self.any() else len(value)
            return self._explained(found, samples, found.step(samples))

    def _require_samples(self, what: str, samples: int, where: str = "") -> None:
        """Take a number of samples from the first input, and note that others have another number."""
        others = self._run.ledger.samples
        if self.any() and samples != others and not self.differing:
            self.differing = (
                f"{what} {samples} samples{where}, and the other inputs have {others}. " + KEEP_OUT + TOGETHER
            )
        self._run.ledger.samples = 1 if self.differing else samples

    def leaf(self, tensor: Tensor) -> Seen | None:
        """Return the wrapper tensor that replaces a plain leaf, or None for a parameter."""
        if isinstance(tensor, nn.Parameter):
            return None
        self._run.ledger.samples = tensor.shape[0] if tensor.dim() else 1
        with aside():
            return self._run.seen(tensor, Tag(nonnegative=all_nonnegative(tensor)))

    def _explained(self, leaf: Leaf, samples: int, step: int | None = None) -> Seen:
        root = leaf.root
        slot = None if self._run.slots == "none" else empty_slot(root.detach()).requires_grad_()
        self.leaves.add(replace(leaf, slot=slot))
        self._run.ledger.samples = samples
        # Tokens are of no multilayer perceptron.
        behind = Behind(plain=leaf.positions is None)
        tag = Tag(behind, all_nonnegative(root.detach()), slot=slot, step=step)
        return self._run.seen(root, tag)

    def any(self) -> bool:
        """Whether any input is explained by now."""
        return len(self.leaves) > 0

    # ---- the relevance of the inputs ----

    def per_sample(self, name: str, R: Tensor) -> Tensor:
        """Return the relevance of an input summed for each sample, (samples,)."""
        ledger = self._run.ledger
        bag = next((each.bags for each in self.ids.inputs if each.name == name), None)
        if bag is None or ledger.samples == 1:  # one number explains the bags as a whole
            return ledger.per_sample(R)
        return R.new_zeros(ledger.samples, dtype=torch.float64).index_add(0, bag.to(R.device), R.double())

    def variables(self) -> tuple[Tensor, ...]:
        """Return the tensors whose gradients autograd computes. This ends the forward."""
        self._is_over = True
        return (*self.leaves.variables, self._run.anchor)

    def relevance(self, seed: Tensor, found: Mapping[Tensor, Tensor | None]) -> dict[str, Tensor]:
        """Return the relevance of each input by name, and write seed and inputs to the ledger.

        Args:
            seed: the explained scores, from which relevance starts.
            found: the gradient of each of the `variables`, or None.
        """
        relevance, others = self.leaves.relevance(found)
        ledger = self._run.ledger
        for rows in others:
            ledger.add("parameters", rows, "", "embedding")
        ledger.seed = ledger.per_sample(seed)
        ledger.inputs = torch.zeros_like(ledger.seed)
        for name, R in relevance.items():
            ledger.inputs = ledger.inputs + self.per_sample(name, R).to(seed.device)
        ledger.settle()
        return relevance


_COMPUTED = (
    "looks up what integers say that are computed from it; followed are functions of each element alone, "
    "such as .round().long() or torch.bucketize"
)
_COMPUTING = (
    "computes with the integers, which are followed where they are moved, where each is replaced by another "
    "integer, and to one-hot vectors"
)


def _same_integers(index: Tensor, given: Tensor) -> bool:
    """Whether integers that are looked up are given ones, or a part of them."""
    try:
        if index.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
            return True
        return index.shape == given.shape and torch.equal(index, given.to(index))
    except RuntimeError:  # one of them has no values, as under torch.vmap
        return False


def _root(x: Seen) -> Tensor:
    """Return the tensor that x is a pointwise function of, as autograd sees it, or x."""
    chain = x.tag.pointwise
    return x.recorded if chain is None or chain.recorded.shape != x.shape else chain.recorded


def _unattached(root: Tensor) -> Tensor:
    """Return a tensor with the values of `root` that requires a gradient and is no leaf."""
    return attach([root.detach()], [root], lambda c: (c,))[0]
