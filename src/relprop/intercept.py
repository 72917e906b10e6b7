"""The mode that sees every torch call of a model while relevance is propagated. It knows no rule.

Each call on a tensor that depends on the explained inputs is handed to its entry in the operation table. The
mode keeps what entries share: the module that runs, what is known of each tensor (`Tag`), values that
in-place operations must not destroy, the ledger, and the gaps: operations that no entry covers.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.active import active_runs, uncompiled, unseen
from relprop.attach import attach
from relprop.callers import user_line
from relprop.calls import Call, tensors_in, without_parameters
from relprop.constants import Constants
from relprop.errors import ModelError
from relprop.explained_inputs import ExplainedInputs
from relprop.gaps import REASONS, UNSEEN, Gap, Gaps, disconnected_message, out_of_sight, unseen_reason
from relprop.keeping import Keeper, Kept, saved_value
from relprop.ledger import Ledger
from relprop.linear.numerics import divide, times
from relprop.module_paths import ModulePaths, follow_modules
from relprop.names import LOOKS, canonical_name
from relprop.provenance import Applied, Site, Slots, Tag, empty_slot, merge_tags, nonnegative

if TYPE_CHECKING:
    from relprop.checkpointing import Block
    from relprop.inner import InnerValues
    from relprop.parameters import ParameterRelevance

Entry = Callable[["Interception", Call], Any]
"""How relevance crosses an operation: the call's result, with a backward that carries coefficients."""


class Interception(TorchFunctionMode):
    """The mode. Use `intercepting` to enter it.

    Args:
        table: entries by canonical name.
        choose: the rule for an operation that needs one, or None.
        slots: which tensors get a slot for relevance itself.
        per_operation: whether the ledger keeps books for each operation.
        accept: names of operations whose plain gradient is taken although no entry covers them.
        any_leaf: whether every leaf that requires a gradient and is no parameter is an explained input.
        inner_values: what is done at the outputs of modules (`relprop.inner`), if anything.
        note: called for each call with path, operation, how it is crossed ("" if as its family), and gaps.
        parameters: collects the relevance of parameters (`relprop.parameters`), if it is wanted.
    """

    def __init__(
        self,
        table: Mapping[str, Entry],
        choose: Callable[[Site], Any],
        *,
        slots: Slots = "none",
        per_operation: bool = False,
        accept: Collection[str] = (),
        any_leaf: bool = False,
        inner_values: "InnerValues | None" = None,
        parameters: "ParameterRelevance | None" = None,
        note: Callable[[str, str, str, list[Gap]], None] | None = None,
    ) -> None:
        super().__init__()
        self.table = table
        self.choose = choose
        self.ledger = Ledger(per_operation=per_operation)
        self.slots = slots
        self.any_leaf = any_leaf
        self.inner_values = inner_values
        self.parameters = parameters
        self.note = note
        self.remark = ""
        self.applied: list[Applied] = []
        self.modules = ModulePaths()
        self.gaps = Gaps(accept)
        self._tags: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.constants = Constants()
        self._keeper = Keeper()
        self.inputs = ExplainedInputs(self)
        # What checkpointing does: see `checkpointing`.
        self.block: Block | None = None
        self.computed_again: Block | None = None
        # Constants, buffers of the model perhaps, that became relevant by being written to.
        self._written: list[Tensor] = []

    # ---- what entries use ----

    def relevant(self, value: Any) -> bool:
        """Whether `value` is a tensor that depends on the explained inputs."""
        return isinstance(value, Tensor) and value.requires_grad and not self._is_constant(value)

    def tag(self, tensor: Tensor) -> Tag:
        """What is known of a tensor, as far as no in-place operation has made it untrue."""
        tag, version = self._tags.get(tensor, (Tag(), tensor._version))  # type: ignore[no-untyped-call]
        # Another view of the memory was written to: only where the tensor came from still holds.
        return tag if version == tensor._version else Tag(depth=tag.depth)

    def set_tag(self, tensor: Tensor, tag: Tag) -> None:
        """Note what is known of a tensor."""
        self._tags[tensor] = (tag, tensor._version)

    def slot(self, tensor: Tensor) -> Tensor | None:
        """The slot of a tensor; a new one where it was lost behind an operation that does not know slots."""
        slot = self.tag(tensor).slot
        if slot is not None or self.slots != "all" or tensor.is_complex():
            return slot
        kept, path = self.keep(tensor), self.modules.path

        def backward(direct: Tensor) -> tuple[Tensor]:
            self.ledger.add("zero input", direct * (kept.value == 0), path, "relevance on zeros")
            return (divide(direct, kept.value),)

        return attach([empty_slot(tensor)], [tensor], backward)[0]

    @unseen
    def keep(self, tensor: Tensor, *, clippable: bool = False) -> Kept:
        """Keep the present value of a tensor for the backward, also if it is overwritten meanwhile.

        Clippable: or, behind a ReLU, what the ReLU makes of it (see `Kept`).
        """
        kept = self._keeper.keep(tensor, clippable=clippable)
        return kept if self.block is None else self.block.keep(kept)

    def keep_constant(self, tensor: Tensor) -> Kept:
        """Keep the present value of a constant, such as a weight, which stays where it is anyway."""
        return self._keeper.keep(tensor)

    def native(self, call: Call) -> Any:
        """Run a call as it is, recorded by autograd; kept values survive if it works in place."""
        clipping = call.name == "relu"
        if call.inplace:
            self._keeper.before_write(call.target, clipping=clipping)
        result = call.run()
        if clipping:
            self._keeper.clip(call.target, result)
        return result

    def perform(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a torch function as the model would, for an operation that is written out as its parts."""
        return self.__torch_function__(function, (), args, kwargs)

    def site(self, call: Call, kind: str, depth: int) -> Site:
        """Where a call stands."""
        return Site(self.modules.path, self.modules.modules, call.name, kind, depth)

    def sink_of(self, constant: Any) -> str:
        """Name of the sink of what relevance a constant absorbs."""
        return "parameters" if self.constants.is_parameter(constant) else "constant"

    def source(self, constant: Tensor, operation: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return a stand-in for a constant that relevance meets; what arrives there is absorbed."""
        value = constant.detach().to(dtype or constant.dtype, copy=True)
        stand_in, slot = self.sink(self.sink_of(constant), value, operation)
        self.set_tag(stand_in, Tag(nonnegative=nonnegative(constant), slot=slot))
        return stand_in

    def sink(self, name: str, value: Tensor, operation: str) -> tuple[Tensor, Tensor | None]:
        """Return a value, and a slot if there are any, as an end of the way: what arrives is absorbed."""
        path, kept = self.modules.path, self.keep(value)

        def backward(c: Tensor | None, direct: Tensor | None = None) -> tuple[None]:
            for amount in (None if c is None else times(c, kept.value), direct):
                if amount is not None:
                    self.ledger.add(name, amount, path, operation)
            return (None,)

        values = [value] if self.slots == "none" else [value, empty_slot(value)]
        output, *slot = attach(values, [self.inputs.leaves.anchor], backward)
        return output, slot[0] if slot else None

    def gap(self, operation: str, reason: str = Gap.reason, acceptable: bool = True) -> None:
        """Note an operation that is not covered; the run goes on, so that all gaps are found."""
        found = Gap(self.modules.path, operation, user_line(), reason, acceptable)
        if not self.gaps.add(found):
            self.applied.append(Applied(found.path, operation, "plain gradient, accepted"))

    def cut(self, operation: str, reason: str) -> None:
        """Note where the way of relevance ends without a gap."""
        self.gaps.cut(Gap(self.modules.path, operation, user_line(), reason))

    # ---- the inputs and the end of a run ----

    def begin(self) -> None:
        """Open new books, for another target of the same forward."""
        self.ledger = Ledger(samples=self.ledger.samples, per_operation=self.ledger.per_operation)
        for collected in (self.inner_values, self.parameters):
            if collected is not None:
                collected.begin()

    def relevance(
        self, scores: Tensor, seed: Tensor | None = None, *, retain: bool = False
    ) -> dict[str, Tensor]:
        """Propagate the scores, one for each sample, and return the relevance of each input by name.

        Args:
            scores: (samples,).
            seed: the relevance to start from, (samples,); by default the scores themselves.
            retain: whether other scores of the same forward are propagated after these.

        Raises:
            CoverageError: relevance met operations that are not covered; all of them are named.
            ModelError: the scores do not depend on the inputs.
        """
        self._require_covered(scores)
        variables = self.inputs.variables()
        # Called directly, because `torch.autograd.grad` would take this mode off for the backward.
        found = torch.autograd.graph._engine_run_backward(
            (scores,),
            (self._coefficients(scores, seed),),
            retain,  # retain_graph
            False,  # create_graph
            variables,
            True,  # allow_unused
            accumulate_grad=False,
        )
        # What a checkpointed part met when it ran again was covered the first time; its inputs have no tags.
        self.gaps.clear()
        gradients = dict(zip(variables, found, strict=True))
        return self.inputs.relevance(scores if seed is None else seed, gradients)

    @unseen
    def _coefficients(self, scores: Tensor, seed: Tensor | None) -> Tensor:
        return torch.ones_like(scores) if seed is None else divide(seed, scores.detach())

    @unseen
    def _require_covered(self, scores: Tensor) -> None:
        self.gaps.require_none()
        if not scores.requires_grad:
            raise ModelError(disconnected_message(self.gaps.cuts))

    # ---- the mode ----

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in LOOKS or (active_runs.stack and not self.is_active()):
            return function(*args, **kwargs)  # nothing is computed, or by a nested run
        tensors = list(tensors_in((args, kwargs)))
        tracked = [(t, self._is_constant(t)) for t in tensors if t.requires_grad]
        relevant = [t for t, constant in tracked if not constant]
        name, inplace = canonical_name(function)
        if inplace and not relevant and args and isinstance(args[0], Tensor):
            self._keeper.before_write(args[0])
        if not torch.is_grad_enabled():
            return self._unrecorded(name, function, args, kwargs, tensors, bool(relevant))
        if not relevant:
            return self._of_constants(name, function, args, kwargs, tensors, bool(tracked))
        call = Call(name, function, args, dict(kwargs), inplace or bool(kwargs.get("inplace")))
        if call.inplace and call.target.requires_grad and self._is_constant(call.target):
            self.gap(name, "it writes to a parameter, or to what was computed of one before the run")
            call = call.on_a_copy()
        constants = [t for t, constant in tracked if constant] + [t for t in tensors if t.is_inference()]
        if constants:
            call = without_parameters(call, constants)
        self._check_seen(relevant, name)
        return self._dispatch(call, relevant)

    def _unrecorded(
        self, name: str, function: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor], cuts: bool
    ) -> Any:
        """Run a call of which the model wants no gradient."""
        result = self.inputs.ids.follow(name, function, args, kwargs)
        if cuts or self.inputs.ids.looked_up(name, args, kwargs) is not None:
            self.cut(name, "runs under torch.no_grad()")
        return self.constants.note_made(tensors, result, relevant=cuts)

    def _of_constants(
        self,
        name: str,
        function: Any,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        tracked: bool,
    ) -> Any:
        """Run a call on what does not depend on the inputs; or on integers, where relevance may begin."""
        ends = self.inputs.ids.end_in(name, args, kwargs)
        # What is computed of parameters alone is as constant as they are.
        with torch.no_grad() if tracked else nullcontext():
            result = self.inputs.ids.follow(name, function, args, kwargs)
        embedded = self.inputs.looked_up(name, args, kwargs, result)
        if embedded is not None:
            return embedded
        if ends:
            self.cut(
                name, "makes other numbers of the integers, which are followed where they are moved only"
            )
        return self.constants.note_made(tensors, result)

    def _dispatch(self, call: Call, relevant: list[Tensor]) -> Any:
        if call.inplace and not call.target.requires_grad:
            self._becomes_relevant(call.target, call.name)
        entry = self.table.get(call.name)
        if entry is None:
            with self._noted(call):
                return self._without_entry(call, relevant)
        with self._noted(call):
            result = entry(self, call)
        if call.inplace and result is not (target := call.target):
            # The entry worked out of place; autograd lets the copy take the place of the target's history.
            tag = self.tag(result)
            self._keeper.before_write(target)
            target.copy_(result)
            self.set_tag(target, tag)
            return target
        return result

    def _becomes_relevant(self, target: Tensor, name: str) -> None:
        """Note a constant that is about to be written to; if it is a view, all of what it is a view of."""
        base = target._base
        self._written.append(target if base is None else base)
        if base is not None:
            self._keeper.before_write(base)
            source = self.source(base, name)
            base.copy_(source)
            self.set_tag(base, self.tag(source))

    @contextmanager
    def _noted(self, call: Call) -> Iterator[None]:
        """Report how a call is crossed, if somebody wants to know."""
        if self.note is None:
            yield
            return
        applied, self.remark = len(self.applied), ""
        with self.gaps.watched() as gaps:
            yield
        how = self.remark or ", ".join(str(a.rule) for a in self.applied[applied:])
        if call.name in self.table or gaps:
            self.note(self.modules.path, call.name, how, gaps)
        self.remark = ""

    def _without_entry(self, call: Call, relevant: list[Tensor]) -> Any:
        versions = {id(t): t._version for t in relevant}
        result = self.native(call)
        changed = [*tensors_in(result), *([call.target] if call.inplace else [])]
        outputs = [t for t in changed if t.requires_grad and versions.get(id(t)) != t._version]
        hidden = (call.name in ("grad", "backward") and not self.any_leaf) or (
            call.name == "data" and call.inplace
        )
        if outputs or hidden:
            self.gap(call.name, REASONS.get(call.name, Gap.reason))
            tag = merge_tags([self.tag(t) for t in relevant])
            for output in outputs:
                self.set_tag(output, tag)
        elif call.name in ("detach", "data"):
            self.cut(call.name, "cuts the way of relevance")
        return result if outputs else self.constants.note_made([], result, relevant=True)

    def _check_seen(self, relevant: list[Tensor], name: str) -> None:
        """Find tensors that reached us by an operation that interception cannot see."""
        for tensor in relevant:
            if tensor not in self._tags:
                if tensor.grad_fn is None:
                    self._open_leaf(tensor)
                else:
                    self._foreign(tensor, UNSEEN.format(name))

    @unseen
    def after_module(self, module: nn.Module, output: Any) -> Any:
        """Find what interception cannot see where it is best named: at the end of the module that did it.

        Returns the output, or what takes its place.
        """
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None and tensor not in self._tags:
                self._foreign(tensor, out_of_sight(module))
        if self.inner_values is None or not torch.is_grad_enabled():
            return output
        return self.inner_values.after_module(self, self.modules.path, output)

    def _foreign(self, tensor: Tensor, reason: str) -> None:
        assert tensor.grad_fn is not None
        made_by = tensor.grad_fn.name()
        self.gap(made_by, unseen_reason(made_by, reason))
        self.set_tag(tensor, Tag())

    def _open_leaf(self, tensor: Tensor) -> None:
        self.ledger.samples = tensor.shape[0] if tensor.dim() else 1
        self.set_tag(tensor, Tag(nonnegative=bool((tensor >= 0).all())))

    def _is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor that requires a gradient is none that depends on the explained inputs."""
        if tensor in self._tags:
            return False
        if isinstance(tensor, nn.Parameter):
            return True
        if self.any_leaf or tensor in self.inputs.leaves:
            return False
        # Other leaves are parameters in all but name, and so is what was computed of them.
        return tensor.is_leaf or not self.inputs.leaves.reached_by(tensor)

    def is_active(self) -> bool:
        """Whether the calls that are made in this thread are this run's."""
        return bool(active_runs.stack) and active_runs.stack[-1] is self

    @contextmanager
    def entered(self) -> Iterator[None]:
        """See the model's calls from within a backward, which may be out of sight or in another thread."""
        with torch._C._EnableTorchFunction():
            if self.is_active():
                yield
                return
            active_runs.stack.append(self)
            try:
                with self, torch.autograd.graph.saved_tensors_hooks(self.keep, saved_value):
                    yield
            finally:
                active_runs.stack.pop()

    def restore(self) -> None:
        """Take tensors that the model keeps, and wrote to, off the graph."""
        if self.inner_values is not None:
            self.inner_values.release()
        for tensor in self._written:
            if tensor.requires_grad and not tensor._is_view():
                tensor.detach_()


@contextmanager
def intercepting(interception: Interception) -> Iterator[Interception]:
    """Intercept torch calls in this thread while the context is open, with gradients enabled."""
    with (
        follow_modules(interception.modules, interception.is_active, interception.after_module),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        uncompiled(),
        # What autograd itself saves survives in-place operations in the same way.
        torch.autograd.graph.saved_tensors_hooks(interception.keep, saved_value),
    ):
        active_runs.stack.append(interception)
        try:
            with interception:
                yield interception
        finally:
            active_runs.stack.pop()
            interception.restore()
