"""Pooling and sums: linear, or winner takes all. Exact under the plain gradient."""

from collections.abc import Mapping

from relprop.intercept import Entry
from relprop.operations.exact import Exact

_shared = Exact(keeps_sign=True, slot="share")

TABLE: Mapping[str, Entry] = {
    "sum": _shared,
    "mean": _shared,
    **{f"avg_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"max_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _shared for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": _shared for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d_with_indices": _shared for n in (1, 2, 3)},
}
