"""Softmax: its first-order Taylor expansion, which is the plain gradient. Achtibat et al. 2024, prop. 3.1.

R_i = x_i (R_i - s_i Σ R_j). It does not conserve relevance. The difference is in the ledger under "softmax".
"""

from collections.abc import Mapping
from typing import Any

import torch

from relprop.calls.call import Call
from relprop.calls.names import aten_names
from relprop.crossing.exact import as_function
from relprop.engine.interception import Entry
from relprop.engine.known import Tag
from relprop.engine.roles import Role
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen
from relprop.linear.numerics import times
from relprop.linear.operation import Incoming


def softmax(run: Run, call: Call, x: Seen, dim: int, *_options: Any) -> Any:
    """softmax and log_softmax over a dimension."""
    name, path, function = call.name, run.modules.path, as_function(run, call)
    value, kept_x = run.value(call), run.keep(x.recorded)
    kept_y, step = run.keep(value), x.tag.step

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        if c is None:
            return [(None, direct)]
        with torch.enable_grad():
            leaf = kept_x.value.clone().requires_grad_()
            output = function([leaf])
        c_in = torch.autograd.grad(output, leaf, c)[0]
        # The coefficients sum to zero, so x may be shifted. Masked scores carry nothing, whatever their size.
        largest = kept_x.value.amax(dim, keepdim=True)
        # If a large number masks a whole row, rounding has erased its scores: the weights are constants.
        c_in = c_in.masked_fill(largest < -1 / torch.finfo(largest.dtype).eps, 0)
        shifted = kept_x.value - largest
        # Rows that are masked as a whole may be NaN. The model replaces them afterwards.
        carried = (shifted * c_in).masked_fill_((c_in == 0) | kept_y.value.isnan(), 0)
        run.ledger.add("softmax", times(c, kept_y.value) - carried, path, name, step)
        return [(c_in, direct)]

    role = Role.LOG_SOFTMAX if name == "log_softmax" else Role.SOFTMAX
    behind = x.tag.behind.after(plain=False)
    return run.cross(value, [x], back, Tag(behind, name != "log_softmax", role=role, step=step))


TABLE: Mapping[str, Entry] = dict.fromkeys((*aten_names("softmax"), *aten_names("log_softmax")), softmax)
