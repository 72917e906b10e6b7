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
from relprop.operations.exact import as_function
from relprop.provenance import merge_tags


def softmax(run: Interception, call: Call) -> Any:
    """softmax, softmin, log_softmax over a dimension."""
    x = call.target
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
        run.ledger.add("softmax", c * kept_y.value - kept_x.value * c_in, path, name)
        return c_in, direct

    output, slot = attach_with_slot(value, x, run.slot(x), backward)
    tag = merge_tags([run.tag(x)], nonnegative=name != "log_softmax", slot=slot)
    run.set_tag(output, replace(tag, gate=name))
    return output


TABLE: Mapping[str, Entry] = {"softmax": softmax, "softmin": softmax, "log_softmax": softmax}
