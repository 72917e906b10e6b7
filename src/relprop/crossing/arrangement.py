"""Rows of a dense operation, arranged with the samples first for a rule, and as they are in the model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.engine.known import Watch
from relprop.engine.run import Run
from relprop.linear.maps import LinearMap


@dataclass(frozen=True)
class Arrangement:
    """An arrangement of the rows of a dense operation with the samples first.

    Attributes:
        rows: shape of the rows in the model.
        samples: number of samples.
        step: number of rows between one sample and the next; None if the rows stay as they are.
    """

    rows: tuple[int, ...]
    samples: int
    step: int | None

    @staticmethod
    def of(run: Run, map_: LinearMap, x: Tensor, step: int | None) -> "Arrangement":
        if not map_.by_rows or run.ledger.samples == 1:
            return _AS_IT_IS
        rows, samples = tuple(x.shape[:-1]), run.ledger.samples
        count = torch.Size(rows).numel()
        if count % samples:
            return Arrangement(rows, samples, None)
        if step is None and (rows[0] == samples or rows[0] % samples):
            return Arrangement(rows, samples, None)
        apart = count // samples if step is None else step // x.shape[-1]
        return Arrangement(rows, samples, apart if apart and count % (samples * apart) == 0 else None)

    def __call__(self, t: Tensor) -> Tensor:
        """Return rows arranged as (samples, rows of each sample, features)."""
        if self.step is None:
            return t
        grouped = t.reshape(-1, self.samples, self.step, t.shape[-1]).transpose(0, 1)
        return grouped.reshape(self.samples, -1, t.shape[-1])

    def back(self, t: Tensor | None) -> Tensor | None:
        """Return arranged rows as they are in the model."""
        if self.step is None or t is None:
            return t
        grouped = t.reshape(self.samples, -1, self.step, t.shape[-1]).transpose(0, 1)
        return grouped.reshape(*self.rows, t.shape[-1])

    def watched(
        self, watch: Watch, c: Tensor | None, direct: Tensor | None, value: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Call a watch with tensors as they are in the model, and return arranged what it passes on."""
        if self.step is None:
            return watch(c, direct, value)
        as_in_model = self.back(value)
        assert as_in_model is not None
        c, direct = watch(self.back(c), self.back(direct), as_in_model)
        return None if c is None else self(c), None if direct is None else self(direct)


_AS_IT_IS = Arrangement((), 1, None)
