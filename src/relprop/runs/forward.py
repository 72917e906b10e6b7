"""One forward of a model, to make an explanation of, a table of what is covered, or a gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _pop_mode_temporarily

from relprop.calls.nested import map_tensors
from relprop.calls.user_line import line_of
from relprop.engine.gaps import Gap, coverage_message, disconnected_message, reason_of
from relprop.engine.interception import Entry, Interception, intercepting
from relprop.engine.known import Tag
from relprop.engine.levels import aside, seeing
from relprop.engine.observer import Observer
from relprop.engine.run import Run
from relprop.engine.seen import Seen, value_of
from relprop.errors import CoverageError, ModelError
from relprop.inputs.arguments import put_stand_ins, without_cache
from relprop.inputs.errors import naming_inputs, never_looked_up
from relprop.inputs.explained import ExplainedInputs
from relprop.linear.numerics import divide


class Forward:
    """A model's run on its inputs, to be explained from there.

    Args:
        run: what entries may use.
        table: entries by the name of the operation in aten.
        observers: what looks on.

    Attributes:
        model: what was run.
        shapes: of the inputs that may be explained, by name and in order.
        output: what the model returned.
    """

    def __init__(
        self, run: Run, table: Any, observers: Sequence[Observer] = (), *, any_leaf: bool = False
    ) -> None:
        self.run = run
        self.inputs = ExplainedInputs(run, any_leaf=any_leaf)
        self.interception = Interception(run, table, self.inputs, observers)
        self.observers = observers
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.output: Any = None
        self.model: Any = None

    @contextmanager
    def of(
        self, model: Callable[..., Any], inputs: tuple[Any, ...], arguments: dict[str, Any]
    ) -> Iterator["Forward"]:
        """Run the model; inside, what is computed of its output is seen like the model's own calls.

        Raises:
            InputError: nothing of its inputs can be explained.
        """
        self.model = model
        try:
            with intercepting(self.interception):
                with self.interception.unseen():
                    self.shapes, stand_ins, others = put_stand_ins(self.inputs, model, inputs, arguments)
                with naming_inputs(model, self.shapes, self.inputs.any), _own_gradients_refused():
                    self.output = model(*stand_ins, **without_cache(model, len(inputs), others))
                if not self.inputs.any():
                    raise never_looked_up(self.shapes, cuts=self.run.gaps.cuts)
                for observer in self.observers:
                    observer.end_forward()
                yield self
        finally:
            for observer in self.observers:
                observer.release()

    def begin(self) -> None:
        """Open new books, for a backward from another target."""
        self.run.begin()
        for observer in self.observers:
            observer.begin()

    def values(self, value: Any) -> Any:
        """What the model computed, as plain tensors."""
        with self.interception.unseen():
            return map_tensors(lambda t: value_of(self.interception.writing.stand_in(t)), value)

    def gradients(
        self, scores: Tensor, seed: Tensor | None = None, *, retain: bool
    ) -> dict[Tensor, Tensor | None]:
        """What comes to the inputs of the scores, one for each sample, (samples,).

        Args:
            scores: as the model computed them.
            seed: the relevance to start from, (samples,); by default the scores themselves.
            retain: whether other scores of the same forward follow.

        Raises:
            ModelError: the scores do not depend on the inputs.
        """
        self.run.gaps.require_none()
        inner = scores.recorded if type(scores) is Seen else scores
        if not inner.requires_grad:
            raise ModelError(disconnected_message(self.run.gaps.cuts))
        variables = self.inputs.variables()
        with self.interception.unseen():
            begin = torch.ones_like(inner) if seed is None else divide(seed, inner.detach())
        # Calls of parts of the model that run again, as of a checkpoint, are seen by their tensors.
        with _pop_mode_temporarily(), seeing():
            try:
                found = torch.autograd.grad(
                    inner, variables, begin.detach(), retain_graph=retain, allow_unused=True
                )
            except Exception:
                self.run.gaps.require_none()  # of which the error may be a consequence
                raise
        return dict(zip(variables, found, strict=True))

    def propagate(self, scores: Tensor, seed: Tensor | None = None, *, retain: bool) -> dict[str, Tensor]:
        """Propagate the scores and return the relevance of each input by name.

        Raises:
            CoverageError: relevance met operations that are not covered; all of them are named.
            ModelError: the scores do not depend on the inputs.
        """
        found = self.gradients(scores, seed, retain=retain)
        self.run.gaps.require_none()
        with self.interception.unseen():
            values = value_of(scores).detach()
            return self.inputs.relevance(values if seed is None else seed, found)


@contextmanager
def _own_gradients_refused() -> Iterator[None]:
    """Say why a model cannot take gradients of its own: they would be coefficients of relevance."""
    try:
        yield
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "differentiated Tensors" not in str(error):
            raise
        gap = Gap("", "grad", line_of(error), reason_of("grad"), acceptable=False)
        raise CoverageError(coverage_message([gap])) from error


@dataclass(frozen=True)
class PlainGradient:
    """The table in which every operation has its plain gradient."""

    def get(self, _operation: str) -> Entry:
        """The entry of any operation."""
        return _native


def _native(run: Run, call: Any, *_args: Any) -> Any:
    return map_tensors(lambda t: run.seen(t, Tag() if t.requires_grad else None), run.native(call))


class GradientsOfSeen(TorchFunctionMode):
    """Lets `torch.autograd.grad` and `backward` begin at seen tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            with torch._C.DisableTorchFunction(), _pop_mode_temporarily(), aside():
                return func(*map_tensors(_begin, list(args)), **map_tensors(_begin, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _begin(tensor: Tensor) -> Tensor:
    return tensor.recorded if type(tensor) is Seen else tensor
