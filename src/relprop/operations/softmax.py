"""Softmax: its first-order Taylor expansion, which is the plain gradient. Achtibat et al. 2024, prop. 3.1.

R_i = x_i (R_i - s_i Σ R_j). It does not conserve relevance; what is missing is in the ledger under "softmax".
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.attach import attach_with_slot
from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear.numerics import times
from relprop.operations.exact import as_function
from relprop.provenance import merge_tags


def softmax(run: Interception, call: Call) -> Any:
    """softmax, softmin, log_softmax over a dimension."""

    def arguments(input: Tensor, dim: int = -1, *_rest: Any, **_options: Any) -> int:
        return dim

    x, dim = call.target, arguments(*call.args, **call.kwargs)
    name, path, function = call.name, run.modules.path, as_function(run, call)
    value, kept_x = call.value(), run.keep(x)
    kept_y = run.keep(value)

    def backward(c: Tensor | None, direct: Tensor | None) -> tuple[Tensor | None, ...]:
        if c is None:
            return None, direct
        with torch.enable_grad():
            leaf = kept_x.value.clone().requires_grad_()
            output = function([leaf])
        c_in = torch.autograd.grad(output, leaf, c)[0]
        # Its coefficients sum to zero, so that x may be shifted; hidden scores, of any size, carry nothing.
        largest = kept_x.value.amax(dim, keepdim=True)
        # Where all is hidden by a large number, rounding has eaten the scores: the weights are constants.
        c_in = c_in.masked_fill(largest < -1 / torch.finfo(largest.dtype).eps, 0)
        shifted = kept_x.value - largest
        # Rows that are hidden as a whole are NaN, which the model replaces afterwards.
        carried = (shifted * c_in).masked_fill_((c_in == 0) | kept_y.value.isnan(), 0)
        run.ledger.add("softmax", times(c, kept_y.value) - carried, path, name)
        return c_in, direct

    output, slot = attach_with_slot(value, x, run.slot(x), backward)
    tag = merge_tags([run.tag(x)], nonnegative=name != "log_softmax", slot=slot)
    run.set_tag(output, replace(tag, gate=name))
    return output


TABLE: Mapping[str, Entry] = {"softmax": softmax, "softmin": softmax, "log_softmax": softmax}
