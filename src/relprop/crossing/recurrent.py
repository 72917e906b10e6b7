"""Recurrence: relevance goes back through the steps of a recurrent layer, from the last to the first.

At each step the gates get nothing, the signals all. The linear operation on the states gets its rule at each
step. So the relevance is that of cells, and of a network that is written out.

    LSTM  c ← f·c + i·tanh(a),       h ← o·tanh(c)
    GRU   a = a_x + r·a_h,           h ← u·h + (1 - u)·tanh(a)
    RNN                              h ← tanh(a) or relu(a)

a is the candidate, a sum of what the input and the state contribute, a_x + a_h. Arras et al. 2017 and 2019.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call, signature
from relprop.calls.site import Kind
from relprop.crossing.samples import step_of_rows
from relprop.engine.attach import attach
from relprop.engine.keep import Kept
from relprop.engine.known import Behind, Tag, behind_all
from relprop.engine.run import Run
from relprop.engine.seen import Seen
from relprop.linear import weights
from relprop.linear.maps import Dense
from relprop.linear.numerics import secant
from relprop.linear.operation import Incoming, LinearOperation
from relprop.rules.own import applied
from relprop.rules.rule import Rule


class _Step(NamedTuple):
    """One step: its states, and by which factors coefficients go back through it.

    Attributes:
        states: the states after it: h, and of an LSTM c.
        to_candidate: from the state that carries, c of an LSTM and else h, to the candidate.
        to_before: from that state to the one before the step; None if it is overwritten.
        to_carrying: from h to c of an LSTM; None for others.
        of_state: from the candidate to what h before the step contributes; None if they are added.
    """

    states: tuple[Tensor, ...]
    to_candidate: Tensor
    to_before: Tensor | None = None
    to_carrying: Tensor | None = None
    of_state: Tensor | None = None


def _lstm(of_input: Tensor, of_state: Tensor, h: Tensor, c: Tensor) -> _Step:
    i, f, a, o = (of_input + of_state).chunk(4, 1)
    i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
    candidate = a.tanh()
    c = f * c + i * candidate
    squashed = c.tanh()
    return _Step((o * squashed, c), i * secant(candidate, a, 1.0), f, o * secant(squashed, c, 1.0))


def _gru(of_input: Tensor, of_state: Tensor, h: Tensor) -> _Step:
    width = h.shape[1]
    r, u = (of_input[:, : 2 * width] + of_state[:, : 2 * width]).sigmoid().chunk(2, 1)
    a = of_input[:, 2 * width :] + r * of_state[:, 2 * width :]
    candidate = a.tanh()
    return _Step(((h - candidate) * u + candidate,), (1 - u) * secant(candidate, a, 1.0), u, None, r)


def _tanh(of_input: Tensor, of_state: Tensor, h: Tensor) -> _Step:
    a = of_input + of_state
    candidate = a.tanh()
    return _Step((candidate,), secant(candidate, a, 1.0))


def _relu(of_input: Tensor, of_state: Tensor, h: Tensor) -> _Step:
    a = of_input + of_state
    return _Step((a.relu(),), (a > 0).to(a.dtype))


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell.

    Attributes:
        step: one step, from what the input and the state contribute to gates and candidate, and the states.
        candidate: which equal part of the rows of the weights makes the candidate; the others make gates.
        gated: whether it has gates, whose products with signals a composite may have a rule for.
        nonnegative: whether its states are never negative.
    """

    step: Callable[..., _Step]
    candidate: int
    gated: bool = True
    nonnegative: bool = False


CELLS: Mapping[str, Cell] = {
    "lstm": Cell(_lstm, 2),
    "gru": Cell(_gru, 2),
    "rnn_tanh": Cell(_tanh, 0, gated=False),
    "rnn_relu": Cell(_relu, 0, gated=False, nonnegative=True),
}
"""Kinds of cells by the name of their layer in torch."""


class States(NamedTuple):
    """The linear operation on the states of a layer: of h to gates and candidate.

    Attributes:
        weight: (blocks · width, width).
        bias: (blocks · width,) or None.
        rules: the rule of each step, in the order in which the steps run.
        behind: what lies between the inputs and the last states.
    """

    weight: Tensor
    bias: Tensor | None
    rules: Sequence[Rule]
    behind: Behind


def states_of(
    run: Run, cell: Cell, of_input: Seen, h: Seen, weight: Tensor, bias: Tensor | None, steps: int
) -> States | None:
    """Choose a rule for the linear operation on the states at each step; None if one has none."""
    call = Call(signature(torch.ops.aten.linear.default), [h, weight, bias])
    behind, rules = h.tag.behind, []
    for _ in range(steps):
        rule = run.choose(run.site(call, Kind.DENSE, behind))
        if rule is None:
            return None
        rules.append(rule)
        both = Tag(behind.after(1, plain=True)), of_input.tag
        behind = behind_all(both, plain=not cell.gated)
    for rule in rules:
        run.apply(call, rule)
    return States(weight, bias, rules, behind)


def scan(
    run: Run,
    cell: Cell,
    of_input: Seen,
    before: Sequence[Seen],
    states: States,
    sizes: Sequence[int],
    *,
    backwards: bool = False,
) -> tuple[Seen, list[Seen]]:
    """Run the steps of one direction of a layer, and attach their backward.

    Args:
        run: the run.
        cell: the kind of cell.
        of_input: what the inputs contribute to gates and candidates, (steps, samples, blocks · width), or the
            rows of all steps, (rows, blocks · width), if samples end early.
        before: the first states, each (samples, width): h, and of an LSTM c.
        states: the linear operation on the states.
        sizes: number of samples at each step. It does not grow.
        backwards: whether the last step is run first.

    Returns:
        h after each step, in the form of `of_input`; and the last states.
    """
    order = range(len(sizes))[:: -1 if backwards else 1]
    rows = torch.split(of_input.recorded.detach().reshape(sum(sizes), -1), list(sizes))
    now = [t.recorded.detach() for t in before]
    weight, bias = states.weight.detach(), None if states.bias is None else states.bias.detach()
    width = now[0].shape[1]
    own = slice(cell.candidate * width, (cell.candidate + 1) * width)
    steps: dict[int, _Step] = {}
    x, z = dict[int, Tensor](), dict[int, Tensor]()
    with torch.no_grad():
        for t in order:
            running = [state[: sizes[t]] for state in now]
            of_state = F.linear(running[0], weight, bias)
            steps[t] = cell.step(rows[t], of_state, *running)
            x[t], z[t] = running[0], of_state[:, own]
            now = _replaced(now, steps[t].states)
        every = range(len(sizes))
        made = [steps[t] for t in every]
        h = torch.cat([step.states[0] for step in made]).reshape(*of_input.shape[:-1], width)
    kept = _KeptSteps.of(run, sizes, made, [x[t] for t in every], [z[t] for t in every])
    back = _backward(run, cell, states, kept, order, own, before[0].tag.nonnegative, of_input.shape)
    h, *last = attach([h, *now], [of_input.recorded, *(t.recorded for t in before)], back)
    step = step_of_rows(of_input.tag.step, of_input.shape[-1], width)
    known = Tag(states.behind, cell.nonnegative, step=step)
    return run.seen(h, known), [run.seen(t, Tag(states.behind, cell.nonnegative)) for t in last]


@dataclass(frozen=True)
class _KeptSteps:
    """What the backward needs of all steps, each a row for each sample and step.

    Attributes:
        sizes: number of samples at each step.
        parts: by name, the factors of `_Step`; "x", h before the step; "z", what it contributed to the
            candidate.
    """

    sizes: list[int]
    parts: Mapping[str, Kept]

    @staticmethod
    def of(
        run: Run, sizes: Sequence[int], steps: Sequence[_Step], x: Sequence[Tensor], z: Sequence[Tensor]
    ) -> "_KeptSteps":
        named: dict[str, Sequence[Tensor]] = {"x": x, "z": z}
        for i, name in enumerate(_Step._fields[1:], 1):
            if steps[0][i] is not None:
                named[name] = [step[i] for step in steps]  # type: ignore[misc]
        return _KeptSteps(
            list(sizes), {name: run.keep(torch.cat(list(rows))) for name, rows in named.items()}
        )

    def split(self) -> "dict[str, Sequence[Tensor]]":
        """Return what was kept, step by step."""
        return {name: torch.split(kept.value, self.sizes) for name, kept in self.parts.items()}


def _backward(
    run: Run,
    cell: Cell,
    states: States,
    kept: _KeptSteps,
    order: Sequence[int],
    own: slice,
    nonnegative: bool,
    shape: torch.Size,
) -> Callable[..., list[Tensor | None]]:
    """Return the backward of a scan: from coefficients of its results to those of its operands."""
    path, sizes = run.modules.path, kept.sizes
    rules = dict(zip(order, states.rules, strict=True))
    kept_weight = run.keep_constant(states.weight)
    kept_bias = None if states.bias is None else run.keep_constant(states.bias)

    def back(*coefficients: Tensor | None) -> list[Tensor | None]:
        steps, absorbed = kept.split(), dict[str, Tensor]()
        weight = weights.modified(kept_weight.own, "candidate", lambda w: w[own].clone(), own.start)
        bias = None if kept_bias is None else kept_bias.value[own].to(weight.dtype)
        some = next(c for c in coefficients if c is not None)
        width = steps["x"][0].shape[1]

        def to_state(t: int, c: Tensor) -> Tensor:
            """The coefficient of h before a step, from that of what it contributed to the candidate."""
            x, z = steps["x"][t].to(weight.dtype), steps["z"][t].to(weight.dtype)
            is_nonnegative = nonnegative if t == order[0] else cell.nonnegative
            op = LinearOperation(Dense(), x, z, weight, bias, is_nonnegative)
            return _propagated(run, rules[t], op, c.to(weight.dtype), path, absorbed).to(c.dtype)

        on_out = [] if coefficients[0] is None else torch.split(coefficients[0].reshape(-1, width), sizes)
        on_states = [some.new_zeros(max(sizes), width) if c is None else c for c in coefficients[1:]]
        on_input = some.new_zeros(sum(sizes), shape[-1])
        on_rows = torch.split(on_input, sizes)
        for t in reversed(order):
            on_h, *on_c = [c[: sizes[t]] for c in on_states]
            on_h = on_h + on_out[t] if on_out else on_h
            carried = on_c[0] + on_h * steps["to_carrying"][t] if on_c else on_h
            on_candidate = carried * steps["to_candidate"][t]
            on_rows[t][:, own] = on_candidate
            before = to_state(t, on_candidate * steps["of_state"][t] if "of_state" in steps else on_candidate)
            kept_on = [carried * steps["to_before"][t]] if "to_before" in steps else []
            if on_c:  # c has a way of its own to the step before
                on_states = _replaced(on_states, [before, *kept_on])
            else:
                on_states = _replaced(on_states, [before + kept_on[0] if kept_on else before])
        for sink, amount in absorbed.items():
            run.ledger.add(sink, amount, path, "linear")
        return [on_input.reshape(shape), *on_states]

    return back


def _replaced(old: Sequence[Tensor], new: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors whose first rows, those of the samples that run at a step, are replaced by new ones."""
    return [
        mine if len(mine) == len(whole) else torch.cat([mine, whole[len(mine) :]])
        for whole, mine in zip(old, new, strict=True)
    ]


def _propagated(
    run: Run, rule: Rule, op: LinearOperation, c: Tensor, path: str, absorbed: dict[str, Tensor]
) -> Tensor:
    """Return the coefficient of the states before a step, and add what was absorbed, (samples,)."""
    try:
        propagated = applied(rule, op, Incoming(c, None, op.z))
    except Exception as error:
        error.add_note(f"The rule was for linear in module {path or '(root)'!r}.")
        raise
    for sink, amount in propagated.absorbed.items():
        of_sample = amount.detach().double().reshape(len(amount), -1).sum(1)
        so_far = absorbed.get(sink, of_sample[:0])
        longer, shorter = sorted((so_far, of_sample), key=len, reverse=True)  # samples end at several steps
        absorbed[sink] = longer + F.pad(shorter, (0, len(longer) - len(shorter)))
    coefficient = torch.zeros_like(op.x) if propagated.coefficient is None else propagated.coefficient
    if propagated.direct is None:
        return coefficient
    return coefficient + run.as_coefficient(propagated.direct, op.x, path, "linear")
