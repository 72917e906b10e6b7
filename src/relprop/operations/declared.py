"""Entries that are declared by one word: what an operation is, for operations that relprop does not know.

An operation gets its gradient from torch (`torch.library.register_autograd`). Pointwise functions need none,
and neither does an operation that computes each element of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call, lacks_gradient
from relprop.calls.nested import map_leaves, tensors_in
from relprop.crossing.chains import attach_to_root, chained, is_finite_at_zero
from relprop.crossing.exact import Exact, as_function, relevant_in
from relprop.engine.gaps import without_gradient
from relprop.engine.interception import Entry
from relprop.engine.known import Pointwise, merge_tags
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import value_of
from relprop.errors import InputError
from relprop.linear.numerics import times
from relprop.linear.operation import Incoming
from relprop.operations.arithmetic import step
from relprop.operations.products import contracted
from relprop.rules.other import SignalTakesAll

_COEFFICIENTS = Exact(slot="none")
_shared = Exact()


def pointwise(run: Run, call: Call, *_args: Any) -> Any:
    """A function of each element: the secant from f(0), in chains with other such functions."""
    relevant, value = relevant_in(call.args), run.value(call)
    alike = isinstance(value, Tensor) and all([t.shape == value.shape for t in relevant])
    chain = chained(run, call, relevant) if alike else None
    if chain is None:
        run.gap(call.name, "it was registered as 'pointwise', but is no function of one tensor's elements")
    elif (failed := _failure_at_zero(chain)) is not None:
        run.gap(
            call.name,
            f"it was registered as 'pointwise', but is no function of single elements: for zeros of another "
            f"shape it raises {type(failed).__name__}: {failed}",
        )
    elif not is_finite_at_zero(chain, look=True):
        run.gap(call.name, "it was registered as 'pointwise', but is not finite where its tensor is zero")
    else:
        return attach_to_root(run, call, chain)
    return _COEFFICIENTS(run, call)


def _failure_at_zero(chain: Pointwise) -> Exception | None:
    """Return the exception that a function raises for zeros, which need not have the shape of its tensor."""
    try:
        is_finite_at_zero(chain, look=True)
    except Exception as error:  # of a function of the user's
        return error
    return None


def linear(run: Run, call: Call, *_args: Any) -> Any:
    """A linear or homogeneous function: the plain gradient. What it has at zero is absorbed as a constant."""
    given = _with_gradient(run, call, relevant_in(call.args))
    if given is None:
        return step(run, call)
    call = given
    relevant, function = relevant_in(call.args), as_function(run, call)
    with torch.no_grad():
        at_zero = function([torch.zeros_like(t.recorded) for t in relevant])
    if not isinstance(at_zero, Tensor) or not at_zero.is_floating_point() or not bool(at_zero.any()):
        return _shared(run, call)
    result = _COEFFICIENTS(run, call)
    samples_apart, path, name = result.tag.step, run.modules.path, call.name
    kept, kept_y = run.keep(at_zero), run.keep(result.recorded)

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        if direct is not None:
            more = run.as_coefficient(direct, kept_y.value, path, name)
            c = more if c is None else c + more
        if c is not None:
            run.ledger.add("constant", times(c, kept.value), path, name, samples_apart)
        return [(c, None)]

    known = merge_tags([result.tag])
    known.step = samples_apart
    return run.cross(result.recorded.detach(), [result], back, known)


def identity(run: Run, call: Call, *_args: Any) -> Any:
    """Relevance stays on its element, of the first tensor that depends on the input."""
    x, value = relevant_in(call.args)[0], run.value(call)
    if not isinstance(value, Tensor) or value.shape != x.shape:
        run.gap(call.name, f"it was registered as 'identity', but does not keep the shape {tuple(x.shape)}")
        return _COEFFICIENTS(run, call)
    path, name, kept, slot = run.modules.path, call.name, run.keep(x.recorded), run.slot(x)

    def back(incoming: Incoming) -> list[Outgoing]:
        R = incoming.relevance
        if slot is not None:
            return [(None, R)]
        return [(run.as_coefficient(R, kept.value, path, name), None)]

    known = merge_tags([x.tag])
    known.step = x.tag.step
    return run.cross(value, [x], back, known, kept=run.keep(value))


def product(run: Run, call: Call, *args: Any) -> Any:
    """A product of its tensors, summed over or not: they share by their roles, or by the composite's rule."""
    if len(relevant_in(args)) == 1:
        return linear(run, call)
    given = _with_gradient(run, call, relevant_in(args))
    if given is None:
        return step(run, call)
    return contracted(run, given, [t for t in tensors_in(args) if t.is_floating_point()])


@dataclass(frozen=True)
class Gate:
    """A product in which one argument is a gate: it gets no relevance, and the others share as in a product.

    Attributes:
        argument: name of the gate in the operation's schema.
    """

    argument: str

    def __call__(self, run: Run, call: Call, *args: Any) -> Any:
        place = call.signature.keywords.get(self.argument)
        if place is None:
            raise InputError(
                f"register({call.operation!r}, {self!r}): the operation has no such argument, only "
                f"{', '.join(call.signature.keywords)}."
            )
        others = [map_leaves(value_of, a) if i == place else a for i, a in enumerate(args)]
        if not relevant_in(others):
            run.gap(call.name, f"only its gate {self.argument!r} depends on the input")
            return _COEFFICIENTS(run, call)
        if len(relevant_in(args)) > len(relevant_in(others)):
            run.apply(call, SignalTakesAll())
        return product(run, Call(call.signature, others), *others)


def _with_gradient(run: Run, call: Call, factors: Sequence[Tensor]) -> Call | None:
    """Return the call with an operation that has a gradient, or None after an error was recorded.

    What is linear in each of these operands, and computes each element of its own, needs none of torch: its
    gradient is its value with ones in the place of the operand.
    """
    if call.signature.derived and not lacks_gradient(call.operation):
        return call
    places = [i for i, a in enumerate(call.args) if any(a is t for t in factors)]
    function = _ByElement(call.signature.operation, tuple(places))
    if len(places) == len(factors) and function.holds_for([value_of(a) for a in call.args]):
        return Call(replace(call.signature, operation=function, positional=len(call.args)), call.args)
    run.refuse(call.name, without_gradient(call.name))
    return None


@dataclass(frozen=True)
class _ByElement:
    """An operation that is linear in each of some operands, and elementwise, with a gradient.

    Attributes:
        operation: the operation, called with all arguments by position.
        places: positions of the operands.
    """

    operation: Callable[..., Any]
    places: tuple[int, ...]

    def __call__(self, *args: Any) -> Any:
        return _Elementwise.apply(self, *args)  # type: ignore[no-untyped-call]

    def slope(self, args: Sequence[Any], place: int) -> Tensor:
        """The derivative by one operand, of the operand's shape or of the result's."""
        slope: Tensor = self.operation(*[torch.ones_like(a) if i == place else a for i, a in enumerate(args)])
        return slope

    def holds_for(self, args: Sequence[Any]) -> bool:
        """Whether the result is slope times operand for each operand, with its own values and random ones."""
        with torch.no_grad():
            for place in self.places:
                x = args[place]
                generator = torch.Generator().manual_seed(0)
                drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
                for values in (x, drawn):
                    value = self.operation(*[values if i == place else a for i, a in enumerate(args)])
                    if not isinstance(value, Tensor) or value.shape != x.shape:
                        return False
                    expected, digits = self.slope(args, place) * values, torch.finfo(x.dtype).eps ** 0.5
                    if not torch.allclose(value, expected, rtol=digits, atol=digits):
                        return False
        return True


class _Elementwise(torch.autograd.Function):
    """The autograd function of `_ByElement`."""

    @staticmethod
    def forward(ctx: Any, function: _ByElement, *args: Any) -> Any:
        ctx.function = function
        ctx.tensors = [isinstance(a, Tensor) for a in args]
        ctx.others = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*[a for a in args if isinstance(a, Tensor)])
        return function.operation(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        tensors, function = iter(ctx.saved_tensors), ctx.function
        args = [next(tensors) if tensor else a for a, tensor in zip(ctx.others, ctx.tensors, strict=True)]
        slopes = [
            function.slope(args, i) * grads[0] if i in function.places else None for i in range(len(args))
        ]
        return None, *slopes


WORDS: Mapping[str, Entry] = {
    "pointwise": pointwise,
    "linear": linear,
    "identity": identity,
    "product": product,
    "constant": step,
}
"""What an operation may be declared as."""
