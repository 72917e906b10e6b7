"""Scales and shifts that a linear operation which follows takes into its weight and bias."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relprop.engine.known import Origin


@dataclass(eq=False, kw_only=True, slots=True)
class Affine(Origin):
    """scale·x + shift, with one scale and one shift for each channel, for a linear operation that follows.

    This is a batch norm, or the normalisation of pixels within a model, in one call or several.

    Attributes:
        channels: number of channels, dimension 1.
        steps: scales and shifts in order. Each constant is one number, or has one for each channel, and is
            shaped as in the model.
    """

    channels: int
    steps: tuple[tuple[Literal["scale", "shift"], Tensor | float], ...]

    def same_steps(self, other: "Affine") -> bool:
        """Whether another record has the same scales and shifts."""
        same = len(self.steps) == len(other.steps) and self.channels == other.channels
        return same and all(
            kind == other_kind and _equal(constant, other_constant)
            for (kind, constant), (other_kind, other_constant) in zip(self.steps, other.steps, strict=True)
        )

    def resolved(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift, each (channels,)."""
        scale = torch.ones(self.channels, dtype=self.recorded.dtype, device=self.recorded.device)
        shift = torch.zeros_like(scale)
        for kind, constant in self.steps:
            values = constant if isinstance(constant, float) else constant.detach().reshape(-1)
            if kind == "scale":
                scale, shift = scale * values, shift * values
            else:
                shift = shift + values
        return scale, shift


def _equal(one: Tensor | float, other: Tensor | float) -> bool:
    if isinstance(one, Tensor):
        return one is other or (isinstance(other, Tensor) and torch.equal(one, other))
    return not isinstance(other, Tensor) and one == other
