"""One forward of a model, for an explanation, a table of coverage, or a plain gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relprop.calls.call import lacks_gradient
from relprop.calls.nested import map_tensors, tensors_in
from relprop.calls.user_line import line_of
from relprop.engine.attach import find_relus
from relprop.engine.gaps import Gap, coverage_message, disconnected_message, reason_of, without_gradient
from relprop.engine.interception import Entry, Interception, intercepting
from relprop.engine.known import Tag
from relprop.engine.levels import aside, seeing
from relprop.engine.observer import Observer
from relprop.engine.run import Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.engine.surroundings import without_mode
from relprop.engine.watched import Watched
from relprop.errors import CoverageError, InputError, ModelError, RelpropError
from relprop.inputs.arguments import Arguments, put_stand_ins
from relprop.inputs.errors import explain_failure, never_looked_up, without_samples
from relprop.inputs.explained import ExplainedInputs
from relprop.inputs.signature import without_cache
from relprop.linear.numerics import divide
from relprop.operations import bags, reshaping, writing
from relprop.targets.classes import OfClass
from relprop.targets.scores import Target, logits_of, scores_of


class Forward:
    """One forward of a model, and backwards from its output.

    Args:
        run: the run, as entries see it.
        table: entries by the name of the operation in aten.
        observers: objects that are called after modules and calls.
        any_leaf: whether relevance also begins at every leaf that requires a gradient and is no parameter.

    Attributes:
        model: the model.
        shapes: shapes of the inputs that may be explained, by name and in order.
        samples: number of samples of the inputs; 1 if these have different numbers.
        output: the model's output, with wrapper tensors.
    """

    def __init__(
        self,
        run: Run,
        table: Any,
        observers: Sequence[Observer] = (),
        *,
        any_leaf: bool = False,
        watch: Any = None,
    ) -> None:
        self.run = run
        self.inputs = ExplainedInputs(run, any_leaf=any_leaf)
        if watch is None:
            self.interception = Interception(run, table, self.inputs, observers)
        else:
            self.interception = Watched(run, table, self.inputs, observers, watch)
        self.observers = observers if watch is None else [*observers, watch]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.samples = 1
        self.output: Any = None
        self.model: Any = None

    @contextmanager
    def of(
        self,
        model: Callable[..., Any],
        inputs: tuple[Any, ...],
        arguments: dict[str, Any],
        *,
        demanding: bool = True,
    ) -> Iterator["Forward"]:
        """Run the model. While the context is open, calls on its output are handled as the model's own calls.

        Args:
            model: the model.
            inputs: positional arguments of the model.
            arguments: keyword arguments of the model.
            demanding: whether it is an error if nothing is explained because the model looks up none of the
                integers.

        Raises:
            InputError: none of its inputs can be explained, or something that the user asked for did not
                occur.
        """
        self.model = model
        arguments = without_cache(model, len(inputs), arguments)
        failure: Exception | None = None
        given: Arguments | None = None
        try:
            with intercepting(self.interception):
                with self.interception.unseen():
                    given = put_stand_ins(self.inputs, model, inputs, arguments)
                self.shapes = given.shapes
                try:
                    with _own_gradients_refused():
                        self.output = model(*given.positional, **given.by_keyword)
                except RelpropError:
                    raise
                except Exception as error:
                    failure = error
                    raise
                self.samples = self.run.ledger.samples
                if demanding and not self.inputs.any():
                    raise never_looked_up(self.shapes, cuts=self.run.gaps.cuts)
                for observer in self.observers:
                    observer.end_forward()
                yield self
        except Exception as error:
            if given is not None and error is failure:
                explain_failure(
                    error,
                    model,
                    given,
                    explained=self.inputs.any(),
                    differing=self.inputs.differing,
                    remedy=self.run.weights.remedy,
                )
            raise
        finally:
            failure = given = None  # the error holds this frame
            for observer in self.observers:
                observer.release()

    def why_nothing(self) -> str:
        """Say why there is nothing to explain once the model has run; "" if there is something."""
        if not self.inputs.any():
            return str(never_looked_up(self.shapes, cuts=self.run.gaps.cuts))
        outputs = [self.interception.writing.stand_in(t) for t in tensors_in(logits_of(self.output))]
        if not outputs or any(is_relevant(t) for t in outputs):
            return ""
        return disconnected_message(self.run.gaps.where_relevance_ends())

    def scores(self, goal: Target, output: Any) -> Tensor:
        """Apply a target to the model's output, (samples,) or (1,): one number is that of the whole input.

        The ledger takes as many samples.

        Raises:
            InputError: the target does not give one score for each sample, nor one score.
        """
        samples, logits = self.samples, logits_of(output)
        if isinstance(goal, OfClass) and isinstance(output, Tensor) and output.shape == (samples,) != (1,):
            advice = without_samples(self.model, self.shapes)
            if advice:
                raise InputError(
                    f"the output has shape {tuple(output.shape)}, and it is not clear whether these are "
                    f"classes or samples.{advice} If it has one number for each sample, give "
                    "target=lambda output: output."
                )
        self.run.scores = True
        try:
            scores = scores_of(goal, output, samples, differing=self.inputs.differing)
        except Exception as error:
            if not isinstance(logits, Tensor) or logits.dim() < 2 or len(logits) == samples:
                raise
            advice = without_samples(self.model, self.shapes)
            if advice and isinstance(error, InputError):
                raise InputError(
                    f"the output has shape {tuple(logits.shape)}, and no row for each sample: the input is "
                    f"perhaps a single picture.{advice}"
                ) from error
            if advice:
                error.add_note(advice.strip())
            raise
        finally:
            self.run.scores = False
        self.run.ledger.samples = len(scores)
        return scores

    def begin(self) -> None:
        """Start a new ledger, for a backward from another target."""
        self.run.begin()
        for observer in self.observers:
            observer.begin()

    def values(self, value: Any) -> Any:
        """Return a value that the model computed, with plain tensors."""
        with self.interception.unseen():
            return self.plain(value)

    def plain(self, value: Any) -> Any:
        """Return a value that the model computed, with plain tensors; where the run does not see it."""
        return map_tensors(lambda t: value_of(self.interception.writing.stand_in(t)), value)

    def gradients(
        self, scores: Tensor, seed: Tensor | None = None, *, retain: bool
    ) -> dict[Tensor, Tensor | None]:
        """Run a backward from the scores, and return the gradient of each variable of the inputs.

        Args:
            scores: the scores that were computed of the model's output, (samples,).
            seed: the relevance to start from, (samples,); by default the scores themselves.
            retain: whether backwards from other scores of the same forward follow.

        Raises:
            CoverageError: there are gaps that are errors wherever relevance goes.
            ModelError: the scores do not depend on the inputs.
        """
        self.run.gaps.require_none()
        inner = scores.recorded if type(scores) is Seen else scores
        if not inner.requires_grad:
            weights = self.run.weights
            remedy = weights.remedy if weights.among_activations else ""
            raise ModelError(disconnected_message(self.run.gaps.where_relevance_ends(), remedy))
        variables = self.inputs.variables()
        with self.interception.unseen():
            begin = torch.ones_like(inner) if seed is None else divide(seed, inner.detach())
        if self.run.any_clipped:
            find_relus([inner])
        # If parts of the model run again, as of a checkpoint, their wrapper tensors dispatch the calls.
        # Autocast would cast coefficients, and torch's checkpoints set it as it was for what they run again.
        with without_mode(seeing()), torch._C._DisableAutocast():
            try:
                found = torch.autograd.grad(
                    inner, variables, begin.detach(), retain_graph=retain, allow_unused=True
                )
            except Exception:
                self.run.gaps.require_none()  # the error may be a consequence of a gap
                for name in filter(lacks_gradient, self.run.gaps.accepted):
                    raise ModelError(
                        f"accept={name!r}: the plain gradient of {name} was accepted, but "
                        f"{without_gradient(name)}."
                    ) from None
                raise
        return dict(zip(variables, found, strict=True))

    def propagate(self, scores: Tensor, seed: Tensor | None = None, *, retain: bool) -> dict[str, Tensor]:
        """Propagate the scores and return the relevance of each input by name.

        Raises:
            CoverageError: relevance arrived at operations that are not covered; the error names all of them.
            ModelError: the scores do not depend on the inputs.
        """
        found = self.gradients(scores, seed, retain=retain)
        self.run.gaps.require_none()
        with self.interception.unseen():
            values = value_of(scores).detach()
            return self.inputs.relevance(values if seed is None else seed, found)


@contextmanager
def _own_gradients_refused() -> Iterator[None]:
    """Turn torch's error about a gradient that the model computes into one that says why it is not covered.

    Raises:
        CoverageError: the model computes a gradient of its own, which would be a coefficient of relevance.
    """
    try:
        yield
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "differentiated Tensors" not in str(error):
            raise
        gap = Gap("", "grad", line_of(error), reason_of("grad"), acceptable=False)
        raise CoverageError(coverage_message([gap])) from error


_BY_ENTRY = {
    **bags.TABLE,
    **{name: writing.TABLE[name] for name in ("copy", "fill", "zero")},
    "detach": reshaping.TABLE["detach"],
    **dict.fromkeys(("item", "_local_scalar_dense"), None),
}
"""Operations that have no gradient in torch as they arrive, and whose entries have the plain gradient or say
that they make a constant. None is what every operation without an entry gets."""


@dataclass(frozen=True)
class PlainGradient:
    """A table in which every operation has its plain gradient."""

    def get(self, operation: str) -> Entry | None:
        """Return the entry, the same for every operation but a few."""
        return _BY_ENTRY.get(operation, _native)


def _native(run: Run, call: Any, *_args: Any) -> Any:
    result = run.native(call)
    if call.operation not in _TOLD and not any([t.requires_grad for t in tensors_in(result)]):
        run.look(call.name)
    return map_tensors(lambda t: run.seen(t, Tag() if t.requires_grad else None), result)


_TOLD = ("to", "_to_copy", "_local_scalar_dense", "detach")
"""Operations without a gradient of which the engine tells more."""


class GradientsOfSeen(TorchFunctionMode):
    """Lets `torch.autograd.grad` and `backward` take wrapper tensors, by their inner tensors.

    Attributes:
        is_over: whether the run is over. Torch may put a mode back on its stack even then, if an interrupt
            came while the mode's own function ran. It does nothing there, and the next run takes it off.
    """

    is_over = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.is_over and func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            with torch._C.DisableTorchFunction(), without_mode(aside()):
                return func(*map_tensors(_begin, list(args)), **map_tensors(_begin, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _begin(tensor: Tensor) -> Tensor:
    return tensor.recorded if type(tensor) is Seen else tensor
