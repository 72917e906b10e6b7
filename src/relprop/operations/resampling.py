"""Resizing and sampling of images: linear in the image, with weights that positions alone decide."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.operations.exact import Exact
from relprop.operations.reshaping import with_zeros

_shared = Exact(keeps_sign=True, slot="share")


def interpolate(run: Interception, call: Call) -> Any:
    """F.interpolate in every mode; bicubic weights may be negative."""
    cubic = "bicubic" in (*(a for a in call.args if isinstance(a, str)), call.kwargs.get("mode"))
    return Exact(keeps_sign=not cubic, slot="share")(run, call)


def grid_sample(run: Interception, call: Call) -> Any:
    """F.grid_sample. A grid that depends on the input says where to look, and gets no relevance."""

    def arguments(input: Tensor, grid: Tensor, *rest: Any, **options: Any) -> Any:
        return input, grid, rest, options

    x, grid, rest, options = arguments(*call.args, **call.kwargs)
    mode = rest[0] if rest else options.get("mode", "bilinear")
    if not run.relevant(x):
        run.gap("grid_sample", "only the grid depends on the input, and it gets no relevance")
        return Exact()(run, call)
    sampled = replace(call, args=(x, grid.detach(), *rest), kwargs=options)
    return with_zeros(run, sampled, Exact(keeps_sign=mode != "bicubic", slot="share"))


TABLE: Mapping[str, Entry] = {
    "interpolate": interpolate,
    "upsample": interpolate,
    "upsample_nearest": _shared,
    "upsample_bilinear": _shared,
    "grid_sample": grid_sample,
    "affine_grid": Exact(),
    "fold": _shared,
}
