"""Recurrent layers and cells, as torch has them: one call for all steps, or for one.

The call itself runs as it is, and its values stay. Relevance goes through its steps as through a network that
is written out: see `relprop.crossing.recurrent`. If a composite or an option asks for more than that, the
call is decomposed, and each part is crossed by itself: a GRU by its formula, others by torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.site import Kind
from relprop.calls.traced import listed
from relprop.crossing.parts import of_value
from relprop.crossing.recurrent import CELLS, Cell, scan, states_of
from relprop.engine.interception import Entry
from relprop.engine.roles import Role
from relprop.engine.run import Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.rules.other import SignalTakesAll


@dataclass(frozen=True)
class Layer:
    """A recurrent layer, nn.LSTM and its kin: several layers of cells, in one direction or both.

    Attributes:
        cell: the kind of cell.
    """

    cell: Cell

    def __call__(self, run: Run, call: Call, *_args: Any) -> Any:
        given = dict(zip(call.signature.keywords, call.args, strict=True))
        sizes = None
        if "batch_sizes" in given:  # rows of sequences of several lengths, time first
            given["batch_sizes"] = value_of(given["batch_sizes"])
            sizes = listed(given["batch_sizes"])
        call = Call(call.signature, list(given.values()))
        if given["train"] and given["dropout"] > 0 and given["num_layers"] > 1:
            return NotImplemented  # its dropout is a gap
        x = given["data"] if sizes else given["input"]
        if not is_relevant(x) or any(is_relevant(t) for t in given["params"]):
            return NotImplemented
        values = run.value(call)
        several = isinstance(given["hx"], (list, tuple))
        states = [_as_signal(run, t, x) for t in (given["hx"] if several else [given["hx"]])]
        given["hx"] = states if several else states[0]
        results = self._scanned(run, call, x, states, given, sizes)
        if results is None:
            results = run.perform(call.signature.operation.decompose, *given.values())
            # Before version 2.7 torch's parts give states with a dimension more.
            results = [
                t if t.shape == value.shape else run.perform(torch.reshape, t, value.shape)
                for value, t in zip(values, results, strict=True)
            ]
        return tuple(of_value(run, value, t) for value, t in zip(values, results, strict=True))

    def _scanned(
        self,
        run: Run,
        call: Call,
        x: Seen,
        states: Sequence[Seen],
        given: Mapping[str, Any],
        sizes: list[int] | None,
    ) -> list[Seen] | None:
        """Return the results of the layers; None if relevance cannot go through their steps."""
        directions, count = 2 if given["bidirectional"] else 1, 4 if given["has_biases"] else 2
        params, number = given["params"], given["num_layers"] * directions
        has_projections = len(params) != number * count
        usual = not has_projections and _by_default(run, call, self.cell, x, states, params)
        if not usual and self.cell is not CELLS["gru"]:
            return None
        first = given.get("batch_first", False)
        x = run.perform(torch.transpose, x, 0, 1) if first else x
        sizes = [x.shape[1]] * x.shape[0] if sizes is None else sizes
        last: list[list[Seen]] = [[] for _ in states]
        for layer in range(given["num_layers"]):
            outputs = []
            for direction in range(directions):
                at = layer * directions + direction
                weights = [*params[at * count : (at + 1) * count], None, None][:4]
                own = [run.perform(torch.select, t, 0, at) for t in states]
                one_direction = _run if usual else _gru
                done = one_direction(run, self.cell, x, own, weights, sizes, backwards=direction == 1)
                if done is None:
                    return None
                outputs.append(done[0])
                for every, t in zip(last, done[1], strict=True):
                    every.append(t)
            x = run.perform(torch.cat, outputs, -1) if directions == 2 else outputs[0]
        x = run.perform(torch.transpose, x, 0, 1) if first else x
        return [x, *(run.perform(torch.stack, every) for every in last)]


@dataclass(frozen=True)
class OneStep:
    """A recurrent cell, nn.LSTMCell and its kin: one step.

    Attributes:
        cell: the kind of cell.
    """

    cell: Cell

    def __call__(
        self, run: Run, call: Call, x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any
    ) -> Any:
        weights = [w_ih, w_hh, b_ih, b_hh]
        if not is_relevant(x) or any(is_relevant(t) for t in weights):
            return NotImplemented
        several = isinstance(hx, (list, tuple))
        states = [_as_signal(run, t, x) for t in (hx if several else [hx])]
        done = None
        if _by_default(run, call, self.cell, x, states, weights):
            done = _run(run, self.cell, x, states, weights, [x.shape[0]])
        elif self.cell is CELLS["gru"]:
            done = _gru(run, self.cell, x, states, weights, [x.shape[0]])
        if done is None:
            parts = [x, states if several else states[0], *weights]
            return run.perform(call.signature.operation.decompose, *parts)
        values = run.value(call)
        if several:
            return tuple(of_value(run, value, t) for value, t in zip(values, done[1], strict=True))
        return of_value(run, values, done[1][0])


def _as_signal(run: Run, state: Any, x: Seen) -> Seen:
    """Return a first state that is a constant as a signal, which absorbs its relevance, also where it is 0.

    So the first step is like the others: gates get nothing. A state of several layers, (layers, samples,
    width), has its samples in the second dimension.
    """
    if is_relevant(state):
        return state
    samples = run.ledger.samples
    several = samples > 1 and state.dim() == 3 and state.shape[1] % samples == 0
    step = state.shape[1:].numel() // samples if several else None
    source = run.source(state, "first state", step=step, role=Role.SIGNAL)
    behind = x.tag.behind.after(1, plain=True)  # as deep as what it is added to
    # A slot that it has need not be kept: it absorbs all that it gets.
    slot = source.tag.slot if run.slots == "all" else None
    source._tag = replace(source.tag, behind=behind, slot=slot)
    return source


def _by_default(
    run: Run, call: Call, cell: Cell, x: Seen, states: Sequence[Seen], weights: Sequence[Any]
) -> bool:
    """Whether the steps are crossed as is usual, by coefficients alone, without relevance of weights."""
    parameters = run.parameters
    if parameters is not None and any(w is not None and parameters.wants(w) for w in weights):
        return False
    behind = x.tag.behind.after(1, plain=True)
    product = run.choose(run.site(call, Kind.PRODUCT, behind)) if cell.gated else None
    if product is not None and not isinstance(product, SignalTakesAll):
        return False
    if run.choose(run.site(call, Kind.SUM, behind)) is not None or run.slots == "all":
        return False
    return not x.is_complex() and (run.slots == "none" or all(t.tag.slot is None for t in states))


def _run(
    run: Run,
    cell: Cell,
    x: Seen,
    before: Sequence[Seen],
    weights: Sequence[Any],
    sizes: Sequence[int],
    *,
    backwards: bool = False,
) -> tuple[Seen, list[Seen]] | None:
    """Run one direction of a layer, or one step of a cell."""
    w_ih, w_hh, b_ih, b_hh = weights
    of_input, samples = run.perform(F.linear, x, w_ih, b_ih), run.ledger.samples
    if not is_relevant(of_input):
        return None
    if samples > 1 and of_input.dim() == 3 and of_input.tag.step != of_input.shape[1:].numel() // samples:
        return None  # the samples are elsewhere
    steps = len(sizes)
    states = states_of(run, cell, of_input, before[0], value_of(w_hh), value_of(b_hh), steps)
    return None if states is None else scan(run, cell, of_input, before, states, sizes, backwards=backwards)


def _gru(
    run: Run,
    _cell: Cell,
    x: Seen,
    before: Sequence[Seen],
    weights: Sequence[Any],
    sizes: Sequence[int],
    *,
    backwards: bool = False,
) -> tuple[Seen, list[Seen]]:
    """Run one direction of a GRU, or one step, as it is written: h ← u·h + (1 - u)·tanh(a_x + r·a_h).

    Torch's parts of it have a product less, (h - tanh(a))·u + tanh(a), in which rules for products see
    another signal than what its documentation says.
    """
    w_ih, w_hh, b_ih, b_hh = weights

    def one_direction(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        of_input = F.linear(x, w_ih, b_ih)
        by_time = of_input.dim() == 3  # else rows of all steps, as of sequences of several lengths
        rows = of_input.unbind() if by_time else torch.split(of_input, list(sizes))
        steps: list[Tensor] = [h] * len(sizes)
        for t in range(len(sizes))[:: -1 if backwards else 1]:
            size = sizes[t]
            now = h if size == len(h) else h[:size]
            (x_r, x_u, x_a), (h_r, h_u, h_a) = rows[t].chunk(3, 1), F.linear(now, w_hh, b_hh).chunk(3, 1)
            r, u = (x_r + h_r).sigmoid(), (x_u + h_u).sigmoid()
            steps[t] = u * now + (1 - u) * (x_a + r * h_a).tanh()
            h = steps[t] if size == len(h) else torch.cat([steps[t], h[size:]])
        return torch.stack(steps) if by_time else torch.cat(steps), h

    every, last = run.perform(one_direction, x, before[0])
    return every, [last]


def pack(run: Run, call: Call, x: Seen, lengths: Any, batch_first: bool) -> Any:
    """Rows of sequences of several lengths, time first, as `pack_padded_sequence` makes them."""
    lengths = value_of(lengths)
    x = run.perform(torch.transpose, x, 0, 1) if batch_first else x
    steps = torch.arange(int(lengths.max()))[:, None]
    time, sample = (steps < lengths[None].cpu()).nonzero(as_tuple=True)
    rows = run.perform(torch.Tensor.__getitem__, x, (time.to(x.device), sample.to(x.device)))
    sizes = (steps < lengths[None].cpu()).sum(1)
    return rows, run.seen(sizes, None)


def unpack(
    run: Run, call: Call, rows: Seen, sizes: Any, batch_first: bool, padding: float, length: int
) -> Any:
    """The sequences that rows were made of, padded with a number, as `pad_packed_sequence` does it."""
    values, lengths = run.value(
        Call(call.signature, [rows.recorded.detach(), value_of(sizes), *call.args[2:]])
    )
    sizes = value_of(sizes)
    steps = max(length, len(sizes))
    running = torch.arange(int(sizes[0]))[None] < sizes[:, None]
    at = running.nonzero(as_tuple=True)
    padded = torch.full(
        (steps, int(sizes[0]), *rows.shape[1:]), padding, dtype=rows.dtype, device=rows.device
    )
    result = run.perform(torch.index_put, padded, [i.to(rows.device) for i in at], rows)
    result = run.perform(torch.transpose, result, 0, 1) if batch_first else result
    return of_value(run, values, result), run.seen(lengths, None)


TABLE: Mapping[str, Entry] = {
    **{name: Layer(cell) for name, cell in CELLS.items()},
    **{f"{name}_cell": OneStep(cell) for name, cell in CELLS.items()},
    "_pack_padded_sequence": pack,
    "_pad_packed_sequence": unpack,
}
