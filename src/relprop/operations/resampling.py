"""Resizing and sampling of images: linear in the image, with weights that depend on positions alone."""

from collections.abc import Mapping
from typing import Any

from relprop.calls.call import Call
from relprop.crossing.exact import Exact
from relprop.engine.interception import Entry
from relprop.engine.run import Run
from relprop.engine.seen import is_relevant, value_of
from relprop.operations.reshaping import with_zeros

_shared = Exact(keeps_sign=True, slot="share")
_of_any_sign = Exact(slot="share")  # bicubic weights may be negative


def grid_sample(run: Run, call: Call, x: Any, grid: Any, mode: int, *rest: Any) -> Any:
    """F.grid_sample. A grid that depends on the input gets no relevance: it only says where to sample."""
    if not is_relevant(x):
        run.gap("grid_sample", "only the grid depends on the input, and it gets no relevance")
        return Exact()(run, call)
    sampled = Call(call.signature, [x, value_of(grid), mode, *rest])
    return with_zeros(run, sampled, entry=Exact(keeps_sign=mode != _BICUBIC, slot="share"))


_BICUBIC = 2

TABLE: Mapping[str, Entry] = {
    **{f"upsample_{kind}": _shared for kind in ("linear1d", "bilinear2d", "trilinear3d")},
    **{f"{kind}{n}d": _shared for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)},
    "_upsample_bilinear2d_aa": _shared,
    **dict.fromkeys(("upsample_bicubic2d", "_upsample_bicubic2d_aa"), _of_any_sign),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), grid_sample),
    "affine_grid_generator": Exact(),
    "col2im": _shared,
}
