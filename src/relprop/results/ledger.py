"""Where relevance went: what every sink absorbed, per sample.

Together with the inputs' relevance it sums to the seed. `Ledger.add` writes to it. It is called in
operations/, crossing/ and engine/, and where a backward ends: in inputs/explained.py and, for plain
gradients, in runs/gradient.py, which write the seed and the inputs. A rule never does: it returns
`Propagated.absorbed`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relprop.calls.nested import map_tensors
from relprop.results.named import device_named
from relprop.results.samples import taken
from relprop.results.table import as_table, way
from relprop.view.way import ROUNDING

if TYPE_CHECKING:
    from relprop.view.sheet import Plot


_NONE = torch.zeros(0, dtype=torch.float64)


@dataclass(eq=False)
class Ledger:
    """The amounts of relevance of one run, for each sample: seed = inputs + sinks.

    Attributes:
        samples: the number of samples.
        per_operation: whether `operations` has the amounts of each operation.
        seed: relevance at the explained output, (samples,) float64.
        inputs: relevance at the inputs, (samples,) float64.
        absorbed: the amount of each sink, (samples,) float64. "bias": the share of a bias; "epsilon": the
            share of ε; "no contribution": outputs to which no input contributed; "constant": constants among
            an operation's terms; "parameters": such constants that are computed from parameters; "shift": the
            shift of a normalisation; "pointwise": f(0) of a pointwise function; "softmax": what the expansion
            of a softmax does not conserve; "statistic": a reciprocal, which counts as a constant;
            "condition": what conditions held back; "zero input": direct relevance on zeros if only a
            coefficient can go on: in `propagating`, or behind an operation that was accepted without an
            entry; "not conserved": the rest, for a plain gradient.
        mixed: whether some amounts belong to the batch as a whole, because the model mixes its samples.
        operations: by module path and operation, the amount of each sink there, in the order in which
            relevance reached them; empty without `explain(..., per_operation=True)`.
        batch: the ledger of the whole batch, if this one has only some of its samples, and these do not
            balance alone because the model mixes them.
    """

    samples: int = 1
    per_operation: bool = False
    mixed: bool = False
    seed: Tensor = _NONE
    inputs: Tensor = _NONE
    absorbed: dict[str, Tensor] = field(default_factory=dict)
    operations: dict[tuple[str, str], dict[str, Tensor]] = field(default_factory=dict)
    batch: "Ledger | None" = None

    def add(self, sink: str, amount: Tensor, path: str, operation: str, step: int | None = None) -> None:
        """Note that a sink absorbed `amount` in an operation of the module at `path`.

        Samples are first or, with a step, one such number of elements apart.
        """
        amount = self.per_sample(amount, step)
        _accumulate(self.absorbed, sink, amount)
        if self.per_operation:
            _accumulate(self.operations.setdefault((path, operation), {}), sink, amount)

    def per_sample(self, amount: Tensor, step: int | None = None) -> Tensor:
        """Sum over all but the samples.

        They are the first dimension, possibly merged with others, or one step of elements apart.
        """
        if amount.dim() == 1 and step is None and len(amount) == self.samples:
            return amount.detach().double()
        if step is not None and amount.numel() % (self.samples * step) == 0:
            amount = amount.reshape(-1, self.samples, step).transpose(0, 1)
        while self.samples > 1 and amount.dim() > 1 and amount.shape[0] == 1:
            amount = amount[0]  # as (1, samples · channels, ...), which an instance norm is computed with
        if amount.dim() == 0 or amount.shape[0] % self.samples:
            self.mixed = True
            return (amount.detach().sum(dtype=_wide(amount)).double() / self.samples).expand(self.samples)
        amount = amount.detach()
        if amount.shape[0] != self.samples or amount.dim() == 1:
            amount = amount.reshape(self.samples, -1)
        return amount.sum(tuple(range(1, amount.dim())), dtype=_wide(amount)).double()

    def settle(self) -> None:
        """Bring all amounts to the device of the seed: a model may lie on several."""
        device = self.seed.device
        self.inputs = self.inputs.to(device)
        for absorbed in (self.absorbed, *self.operations.values()):
            for sink, amount in absorbed.items():
                absorbed[sink] = amount.to(device)

    def find_mixture(self, rounding: float) -> None:
        """Note that samples were mixed: alone they do not balance, up to rounding, but the batch does."""
        if self.mixed or self.samples == 1:
            return
        alone = float(self.gap.max())
        if alone > rounding:
            self.mixed = True
            self.mixed = float(self.gap.max()) < alone / 100

    def of_samples(self, numbers: Tensor) -> "Ledger":
        """Return the ledger of some samples, by number, (chosen,) int64."""
        return Ledger(
            samples=len(numbers),
            per_operation=self.per_operation,
            mixed=self.mixed,
            batch=self.batch or (self if self.mixed else None),
            **{name: taken(getattr(self, name), numbers, self.samples) for name in _AMOUNTS},
        )

    @staticmethod
    def concatenate(ledgers: Sequence["Ledger"]) -> "Ledger":
        """Return the ledgers of several batches as one."""
        samples = [ledger.samples for ledger in ledgers]
        result = Ledger(samples=sum(samples), per_operation=all(ledger.per_operation for ledger in ledgers))
        result.mixed = any(ledger.mixed for ledger in ledgers)
        if any(ledger.batch is not None for ledger in ledgers):  # of whose samples some may be missing
            result.batch = Ledger.concatenate([ledger.batch or ledger for ledger in ledgers])
        result.seed = torch.cat([ledger.seed for ledger in ledgers])
        result.inputs = torch.cat([ledger.inputs for ledger in ledgers])
        result.absorbed = _side_by_side([ledger.absorbed for ledger in ledgers], ledgers)
        for place in dict.fromkeys(place for ledger in ledgers for place in ledger.operations):
            found = [ledger.operations.get(place, {}) for ledger in ledgers]
            result.operations[place] = _side_by_side(found, ledgers)
        return result

    def to(self, device: torch.device | str) -> "Ledger":
        """Return the ledger with its tensors on a device.

        Raises:
            InputError: there is no such device.
        """
        device = device_named(device, f"ledger.to({device!r})")
        return self.mapped(lambda t: t.to(device))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Ledger":
        """Return the ledger with `function(t)` for each tensor t."""
        mapped = {name: map_tensors(function, getattr(self, name)) for name in _AMOUNTS}
        return replace(self, batch=None if self.batch is None else self.batch.mapped(function), **mapped)

    @property
    def total(self) -> Tensor:
        """The sum of inputs and sinks, (samples,) float64. If the ledger balances, it is the seed."""
        return self.inputs + sum(self.absorbed.values(), torch.zeros_like(self.inputs))

    @property
    def gap(self) -> Tensor:
        """|total - seed| over the largest amount, (samples,) float64. If the ledger balances, it is tiny."""
        if self.batch is not None:
            return torch.full_like(self.seed, self.batch.largest_gap)
        amounts = torch.stack([self.seed, self.inputs, *self.absorbed.values()])
        difference = self.total - self.seed
        if self.mixed:
            amounts, difference = amounts.sum(1, keepdim=True), difference.sum(0, keepdim=True)
        largest = amounts.abs().amax(0)
        gap = difference.abs() / torch.where(largest > 0, largest, 1)
        return gap.expand(self.samples)

    @property
    def largest_gap(self) -> float:
        """The largest `gap` of all samples; 0 where there are none."""
        gap = self.gap
        return float(gap.max()) if len(gap) else 0.0

    def table(self, sample: int | None = None, *, above: float = ROUNDING) -> str:
        """Return a table of the operations that absorbed relevance, from the output to the input.

        A line has the amount of each sink in an operation, and the relevance that remains. An operation that
        ran several times has one line, where relevance reached it first.

        Args:
            sample: number of the sample; by default the sum over all samples.
            above: operations are left out if no sink absorbed more than this part of the largest amount.

        Raises:
            InputError: the ledger has no amounts for each operation, or there is no such sample.
        """
        return as_table(way(self, sample, above))

    def plot(
        self, sample: int | None = None, *, above: float = ROUNDING, rows: int = 60, title: str | None = None
    ) -> "Plot":
        """Draw the table. Notebooks show the result, and `.save(path)` writes it to a PNG file.

        Args:
            sample: number of the sample; by default the sum over all samples.
            above: as for `table`.
            rows: the largest number of rows. If there are more operations, those of a module are drawn
                together, first those that absorbed least.
            title: text above the plot.

        Raises:
            InputError: as for `table`; or `rows` is less than 1.
        """
        from relprop.view.ledger_plot import draw  # Pillow is loaded only by those who draw

        return draw(way(self, sample, above, call="plot"), rows, title)

    def rows(self) -> Iterator[tuple[str, Tensor]]:
        """Return the ledger's lines in order, name and amounts: seed, inputs, each sink."""
        if len(self.seed):
            yield "seed", self.seed
            yield "inputs", self.inputs
        yield from sorted(self.absorbed.items())

    def __str__(self) -> str:
        rows = dict(self.rows())
        finite = [abs(v) for row in rows.values() for v in row.tolist() if math.isfinite(v)]
        largest = max(finite, default=0.0)
        told = {name: row for name, row in rows.items() if name not in self.absorbed or _tells(row, largest)}
        return _table(told, self.largest_gap if len(self.seed) else None, self.mixed and self.samples > 1)


_AMOUNTS = ("seed", "inputs", "absorbed", "operations")


def _side_by_side(absorbed: Sequence[Mapping[str, Tensor]], ledgers: Sequence[Ledger]) -> dict[str, Tensor]:
    """What each sink absorbed in several batches; nothing in those whose ledger does not name it."""
    sinks = dict.fromkeys(sink for each in absorbed for sink in each)
    return {
        sink: torch.cat(
            [
                each.get(sink, torch.zeros_like(ledger.seed))
                for each, ledger in zip(absorbed, ledgers, strict=True)
            ]
        )
        for sink in sinks
    }


def _accumulate(absorbed: dict[str, Tensor], sink: str, amount: Tensor) -> None:
    known = absorbed.get(sink)
    absorbed[sink] = amount if known is None else known + amount.to(known.device)


def _tells(amount: Tensor, largest: float) -> bool:
    """Whether a sink took more than nothing; NaN and infinity are more."""
    return not bool((amount.abs() <= 1e-12 * largest).all())


def _wide(amount: Tensor) -> torch.dtype:
    # Sums of half precision are taken in single precision.
    return amount.dtype if amount.dtype == torch.float64 else torch.float32


def _table(rows: Mapping[str, Tensor], gap: float | None, mixed: bool) -> str:
    samples = max(map(len, rows.values()), default=0)
    shown, width = min(samples, 6), max(map(len, rows), default=0)
    lines = [
        f"{name:{width}s} " + " ".join(f"{v:12.6g}" for v in row[:shown].tolist())
        for name, row in rows.items()
    ]
    more = f"  (the first {shown} of {samples} samples)" if samples > shown else ""
    balance = "" if gap is None else f"balances to {gap:.1e} of the largest amount"
    balance += ", all samples together: the model mixes them" if mixed and gap is not None else ""
    return "\n".join([*lines, balance + more]).rstrip()
