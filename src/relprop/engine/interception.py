"""Dispatch of a model's calls: each call goes to its entry in the table, and its results are wrapped.

The model runs below autograd, so calls on wrapper tensors arrive as aten operations, and composite operations
arrive undecomposed. An operation that has an entry is crossed by the entry. A composite operation without an
entry is decomposed by torch, and its parts arrive as calls. Any other operation is a gap. An in-place call is
run out of place, and its result becomes the value of the overwritten tensor.
"""

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode_stack,
)

from relprop.calls.call import Call, signature
from relprop.calls.nested import map_tensors, tensors_in
from relprop.calls.user_line import APPLY
from relprop.engine.active import active_runs, uncompiled
from relprop.engine.attach import attach
from relprop.engine.constants import picks
from relprop.engine.control_flow import CONTROL_FLOW
from relprop.engine.gaps import Gap, gradients_off, reason_of
from relprop.engine.keep import saved_value
from relprop.engine.known import merge_tags
from relprop.engine.levels import aside, here, seeing, tracking
from relprop.engine.mode import Mode
from relprop.engine.modules import follow_modules
from relprop.engine.observer import Observer
from relprop.engine.run import Run
from relprop.engine.seen import Seen, inner_of, value_of
from relprop.engine.surroundings import leaving_no_trace, without_mode
from relprop.engine.writing import Beginnings, Writing
from relprop.errors import InputError

Entry = Callable[..., Any]
"""An entry of the operation table: from the run, the call and its arguments to the call's result.

An entry returns `NotImplemented` if torch should decompose a composite operation after all.
"""


class Interception:
    """Dispatches the calls of a run.

    Args:
        run: the run, as entries see it.
        table: entries by the name of the operation in aten.
        beginnings: finds the explained inputs that appear while the model runs.
        observers: objects that are called after modules and calls.
    """

    def __init__(
        self,
        run: Run,
        table: Mapping[str, Entry],
        beginnings: Beginnings,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.run = run
        self.table = table
        self.beginnings = beginnings
        self._at_modules = [o for o in observers if type(o).after_module is not Observer.after_module]
        self._at_calls = [o for o in observers if type(o).after_call is not Observer.after_call]
        self.mode = Mode(weakref.proxy(self))
        self.writing = Writing(run, beginnings)
        run.interception = weakref.proxy(self)

    # ---- calls ----

    def plain(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a call without wrapper tensors, as on parameters and buffers."""
        s = signature(operation)
        if s.writes or s.writes_others:
            for tensor in tensors_in((args, kwargs)):
                self.run.constants.before_write(tensor)
        known = self.run.of_parameters
        if s.tracked and self.is_active():  # else the call is of a run within this one, and torch tracks it
            with tracking():
                result = operation(*args, **kwargs)
        else:
            result = operation(*args, **kwargs)
        if s.name == "to":
            if not isinstance(result, Tensor):
                # torch gives modes a number where a program of torch.jit holds a tensor of one.
                dtype = next((a for a in args if isinstance(a, torch.dtype)), None)
                result = torch.scalar_tensor(result, dtype=dtype)
            known.note_cast(args[0], result)
        if not s.views or (isinstance(result, Tensor) and result._base is None and result is not args[0]):
            known.note_made(args, result)
            known.note_output(s.name, args, result)
        if self.beginnings.any_passed_on:
            return self.beginnings.in_plain(Call(s, s.bind(args, kwargs)), result)
        return result

    def see(self, operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Cross a call and return its result; without wrapper tensors among the arguments, run it plainly."""
        s = signature(operation)
        if type(operation) is not OpOverload and s.name in CONTROL_FLOW:
            with self.mode:
                return CONTROL_FLOW[s.name](*args, **kwargs)
        call = Call(s, s.bind(args, kwargs))
        seen = self._envelopes(call.args)
        if not seen:
            return self.plain(operation, args, kwargs)
        if s.without_out is not None:
            with self.mode:
                out, value = kwargs.pop("out"), s.without_out(*args, **kwargs)
                if type(out) is not Seen and out.numel() == 0:  # which torch gives the shape of the result
                    out.resize_(value.shape)
                return out.copy_(value)
        if s.name in _ASKING_FOR_SHAPES:  # the result holds no values of the samples
            with torch.inference_mode(mode=False), torch.no_grad(), aside():
                return call.on([value_of(a) for a in call.args])
        if s.writes:
            self.writing.open_target(call)
        beginnings = self.beginnings
        integers = beginnings.become_numbers(call)
        if integers:
            return self._with_numbers(operation, args, kwargs, call, integers)
        wanted = torch.is_grad_enabled() or self._wants_gradients()
        begins = beginnings.may_begin_within(call) and wanted
        if not begins and not any([t.relevant for t in seen]):
            result = self._constant(call)
            if any([t.stepped is not None for t in seen]):
                beginnings.carry_step(call, seen, result)
        elif not wanted:
            result = self._cut(call)
        else:
            result = self._by_entry(call, seen)
            if result is NotImplemented:
                with self.mode:
                    return operation.decompose(*args, **kwargs)
        if s.writes or s.views:
            value, result = result, self.writing.written_to(operation, args, kwargs, call, result)
            if s.writes and type(value) is Seen and type(call.args[0]) is Seen:
                beginnings.carry_lost(call, [*seen, value], call.args[0])
            else:
                beginnings.carry_lost(call, seen, result)
            return result
        beginnings.carry_lost(call, seen, result)
        for t in seen:
            if t.memory is not None:
                t.memory.is_read = True
        return result

    def _by_entry(self, call: Call, seen: Sequence[Seen]) -> Any:
        """Cross a call on relevant tensors by its entry; `NotImplemented` if torch should decompose it."""
        s = call.signature
        entry = self.table.get(s.name)
        if entry is None and s.composite:
            return NotImplemented
        with aside():
            if torch.is_grad_enabled():
                result = self._crossed(call, entry)
            else:
                with torch.enable_grad():
                    result = self._crossed(call, entry)
        if type(result) is Seen and result._tag is None:
            if s.name in _CASTING:
                self.beginnings.note_cast(seen[0], result)
            else:
                self.beginnings.note_step(call, seen, result)
        return result

    def see_whole(self, call: Call, entry: Entry, run_seen: Callable[[], Any]) -> Any:
        """Cross a function or a module that was declared as a whole.

        Args:
            call: the call, with an operation that runs it on plain tensors.
            entry: the entry that it was declared to have.
            run_seen: runs it as any other part of the model.
        """
        # A table of plain gradients, which is no mapping, has nothing of what was declared.
        if not isinstance(self.table, Mapping) or not self._wants_gradients():
            return run_seen()
        with self.unseen(), torch.enable_grad():
            return self._crossed(call, entry)

    def _with_numbers(
        self,
        operation: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        call: Call,
        integers: Sequence[Seen],
    ) -> Any:
        """Run a call with floating-point numbers instead of integers, as torch does within it."""
        dtypes = [t.dtype for t in tensors_in(call.args) if t.is_floating_point()]
        dtype = reduce(torch.promote_types, dtypes)

        def cast(t: Tensor) -> Tensor:
            return t.to(dtype) if any([t is each for each in integers]) else t

        with self.mode:
            return operation(*map_tensors(cast, list(args)), **map_tensors(cast, kwargs))

    def _envelopes(self, args: list[Any]) -> list[Seen]:
        """Return the wrapper tensors among arguments, and put stand-ins for plain tensors into `args`."""
        seen: list[Seen] = []
        looks_at_plain, run = self.writing.looks_at_plain, self.run
        for i, a in enumerate(args):
            kind = type(a)
            if kind is Seen:
                if a.run is not run:  # the model kept it from another run
                    args[i] = a = self.writing.stand_in(a)
                seen.append(a)
            elif kind is list or kind is tuple:
                if a and (looks_at_plain or any([type(b) is Seen for b in a])):
                    args[i] = inside = [self.writing.stand_in(b) for b in a]
                    seen += [b for b in inside if type(b) is Seen]
            elif looks_at_plain and isinstance(a, Tensor):
                args[i] = a = self.writing.stand_in(a)
                if type(a) is Seen:
                    seen.append(a)
        return seen

    def _crossed(self, call: Call, entry: Entry | None) -> Any:
        """Run a call's entry, and mark its results if it has gaps.

        Raises:
            InputError: the entry cannot take the operation's arguments.
        """
        run, gaps = self.run, self.run.gaps
        applied, noted = len(run.applied), len(gaps.noted)
        run.part_of = None
        try:
            result = self._without_entry(call) if entry is None else entry(run, call, *call.args)
        except TypeError:
            if entry is not None:
                _require_fitting(entry, call)
            raise
        if result is NotImplemented:
            return result
        found = gaps.noted[noted:]
        for observer in self._at_calls:
            observer.after_call(call, applied, found)
        return self._marked(result, found) if found else result

    def _without_entry(self, call: Call) -> Any:
        run = self.run
        try:
            result = run.native(call)
        except RuntimeError:  # the operation has no gradient
            result = run.value(call)
            run.refuse(call.name, reason_of(call.name), acceptable=True)
        if call.operation == "_local_scalar_dense":
            run.cut("item", "takes a number out of torch, and so makes a constant")
        elif any(t.requires_grad for t in tensors_in(result)):
            run.gap(call.name, reason_of(call.name))
        elif "::" in call.operation and any(t.is_floating_point() for t in tensors_in(result)):
            run.refuse(
                call.name, "an operation of another library without a gradient in torch", acceptable=True
            )
        else:
            run.look(call.name)
        tag = merge_tags([t.tag for t in tensors_in(call.args) if type(t) is Seen and t.relevant])
        return map_tensors(lambda t: run.seen(t, tag if t.requires_grad else None), result)

    def _marked(self, result: Any, gaps: list[Gap]) -> Any:
        """Attach a backward to results of gaps: it reports that relevance arrived there."""

        def mark(t: Tensor) -> Tensor:
            if type(t) is not Seen or not t.relevant:
                return t

            def backward(c: Tensor | None) -> tuple[Tensor | None]:
                self.run.gaps.meet(gaps)
                return (c,)

            (inner,) = attach([t.recorded.detach()], [t.recorded], backward)
            return self.run.seen(inner, merge_tags([t.tag]))

        return map_tensors(mark, result)

    def _constant(self, call: Call) -> Any:
        """Run a call on constants that were made of the samples.

        If the call looks up token ids in a table, relevance may begin at its result.
        """
        off = "" if self._wants_gradients() else gradients_off()
        with torch.inference_mode(mode=False), torch.no_grad(), aside():
            result = self.beginnings.follow(call)
            begun = self.beginnings.looked_up(call, result, off)
            if begun is not None:
                return begun
            same = [a for a in call.args if type(a) is Seen and a._recorded is result]
            if same:  # as by a cast to the type that it has already
                return same[0]
            of_parameters = any(map(self.run.of_parameters.has, tensors_in(call.args)))
            picked = picks(call)

            def seen(t: Tensor) -> Tensor:
                made = self.run.seen(t, None)
                made.of_parameters, made.picked = of_parameters, picked
                return made

            return map_tensors(seen, result)

    def _cut(self, call: Call) -> Any:
        """Run a call on relevant tensors with gradients switched off. Its results are constants."""
        off = gradients_off()
        with torch.inference_mode(mode=False), torch.no_grad(), aside():
            result = call.on([value_of(a) if type(a) is Seen else inner_of(a) for a in call.args])
            if any(t.is_floating_point() for t in tensors_in(result)):
                self.run.cut(call.name, off)
            return map_tensors(lambda t: self.run.seen(t, None), result)

    def _wants_gradients(self) -> bool:
        """Whether the model wants gradients of a call.

        Torch switches gradients off in the forward of every custom autograd function. There the result is
        whether they were on when the module that called the function was itself called.
        """
        if torch.is_grad_enabled():
            return True
        frame, modules = sys._getframe(2), 0
        while frame is not None:
            if frame.f_code is APPLY:
                return self.run.modules.wants_gradients(modules)
            modules += frame.f_code is _MODULE
            frame = frame.f_back  # type: ignore[assignment]
        return False

    # ---- modules ----

    def before_model(self, module: nn.Module) -> None:
        """Give functions plain weights while a module runs that has weights of other classes."""
        if self.run.weights.look_at(module):
            self._push_plain_weights()

    def after_model(self) -> None:
        """Leave functions as they were before the module."""
        count = torch._C._len_torch_function_stack()
        if count and torch._C._get_function_stack_at(count - 1) is self.run.weights:
            torch._C._pop_torch_function_stack()

    def _push_plain_weights(self) -> None:
        torch._C._push_on_torch_function_stack(self.run.weights)

    def after_module(self, module: nn.Module, output: Any) -> Any:
        """Pass a module's output to the observers, and return the value that replaces it."""
        for observer in self._at_modules:
            output = observer.after_module(self.run.modules.path, module, output)
        return output

    def is_active(self) -> bool:
        """Whether this run is the innermost one that is active in this thread."""
        return bool(active_runs.stack) and active_runs.stack[-1] is self

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Dispatch the calls of this thread while the context is open.

        The context is also entered within a backward, which may run in another thread.
        """
        with leaving_no_trace() as around:
            here.nested = any([run is not self for run in active_runs.stack])
            active_runs.stack.append(self)
            here.traced = any(type(m) is not Mode for m in _get_current_dispatch_mode_stack())
            around.compute_weights_anew()
            around.hold(seeing())
            torch._C._push_on_torch_dispatch_stack(self.mode)
            if self.run.modules.frames and len(self.run.weights):  # a module that runs again
                self._push_plain_weights()
            yield

    def beside_a_call(self, function: Callable[[], Any]) -> Any:
        """Call a function without the run seeing it, between the model's calls or within one."""
        count = torch._C._len_torch_dispatch_stack()
        between = count and torch._C._get_dispatch_stack_at(count - 1) is self.mode
        with self.unseen() if between else aside(), torch.enable_grad():
            return function()

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Compute without being seen by the run, between the model's calls."""
        with without_mode(aside()):
            yield


def _require_fitting(entry: Entry, call: Call) -> None:
    """Check that an entry can be called with the operation's arguments.

    Raises:
        InputError: it cannot be called with them.
    """
    try:
        inspect.signature(entry).bind(None, call, *call.args)
    except TypeError as error:
        raise InputError(
            f"the entry for {call.operation!r} cannot take the operation's arguments: {error}. It is called "
            f"as entry(run, call, {', '.join(call.signature.keywords)})."
        ) from None


@contextmanager
def intercepting(interception: Interception) -> Iterator[Interception]:
    """Dispatch the calls of this thread to a run while the context is open.

    At the end, unless an error was raised, plain tensors get the values that the model wrote to them.
    """
    run = interception.run
    with (
        leaving_no_trace(),
        follow_modules(
            run.modules,
            interception.is_active,
            interception.before_model,
            interception.after_module,
            interception.after_model,
        ),
        uncompiled(),
    ):
        with leaving_no_trace() as around:
            around.run_as_written()
            # A tensor of the model that autograd saves is copied before the model overwrites it.
            around.save_by(run.keep_saved, saved_value)
            try:
                with interception.entered():
                    yield interception
            finally:
                run.is_over = run.weights.is_over = True
        interception.writing.write_back()


_ASKING_FOR_SHAPES = frozenset(
    (
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
    )
)
"""Operations that use the shape and type of a tensor, but not its values."""

_CASTING = ("_to_copy", "to")
"""Operations that cast to another type. `to` is decomposed, unless every operation has an entry."""

_MODULE = nn.Module._call_impl.__code__
