"""Softmax: its first-order Taylor expansion, which is the plain gradient. Achtibat et al. 2024, prop. 3.1.

R_i = x_i (R_i - s_i Σ R_j). It does not conserve relevance. The difference is in the ledger under "softmax".
"""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

import torch
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.names import aten_names
from relprop.crossing.chains import attach_to_root, chained
from relprop.crossing.exact import Exact, as_function
from relprop.crossing.parts import of_value
from relprop.crossing.ruled import plain
from relprop.crossing.samples import step_after
from relprop.engine.gaps import reason_of
from relprop.engine.interception import Entry
from relprop.engine.known import Origin, Softmaxed, Tag, Total, merge_tags
from relprop.engine.roles import Role
from relprop.engine.run import Outgoing, Run
from relprop.engine.seen import Seen, is_relevant, value_of
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
        c_in = _gradient(lambda x: function([x]), kept_x.value, c)
        # The coefficients sum to zero, so x may be shifted. Masked scores carry nothing, whatever their size.
        largest = kept_x.value.amax(dim, keepdim=True)
        # If a large number masks a whole row, rounding has erased its scores: the weights are constants.
        c_in = c_in.masked_fill(largest < -1 / torch.finfo(largest.dtype).eps, 0)
        shifted = kept_x.value - largest
        # Rows that are masked as a whole may be NaN. The model replaces them afterwards.
        carried = (shifted * c_in).masked_fill_((c_in == 0) | kept_y.value.isnan(), 0)
        run.ledger.add("softmax", times(c, kept_y.value) - carried, path, name, step)
        return [(c_in, direct)]

    behind, known = x.tag.behind.after(plain=False), Tag()
    if name == "log_softmax":
        known = Tag(behind, role=Role.LOG_SOFTMAX, step=step)
    else:
        origin = Softmaxed(recorded=x.recorded, tag=x.tag, dim=dim)
        known = Tag(behind, nonnegative=True, origin=origin, role=Role.SOFTMAX, step=step)
    return run.cross(value, [x], back, known)


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor, c: Tensor) -> Tensor:
    """Return the plain gradient of Σ function(x)·c with respect to x."""
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        output = function(leaf)
    return torch.autograd.grad(output, leaf, c)[0]


def softmax_of_groups(run: Run, call: Call, scores: Origin, total: Total) -> Seen:
    """exp(x) over sums of exp(x), as of the edges that end in each node of a graph: crossed as softmax.

    Args:
        run: the run.
        call: the quotient, or the product.
        scores: x.
        total: the denominator, or one over it, with the calls that give it from exp(x).
    """
    path, step, kept_x = run.modules.path, scores.tag.step, run.keep(scores.recorded)
    value, steps, inverted = run.value(call), total.steps, total.inverted
    kept_y = run.keep(value)

    def weights(x: Tensor) -> Tensor:
        raised = divisor = x.exp()
        for each in steps:
            divisor = each([divisor])
        return raised * divisor if inverted else raised / divisor

    def back(incoming: Incoming) -> list[Outgoing]:
        c, direct = incoming.c, incoming.direct
        if c is None:
            return [(None, direct)]
        c_in = _gradient(weights, kept_x.value, c)
        run.ledger.add("softmax", times(c, kept_y.value) - times(c_in, kept_x.value), path, "softmax", step)
        return [(c_in, direct)]

    known = Tag(scores.tag.behind.after(plain=False), nonnegative=True, role=Role.SOFTMAX, step=step)
    return run.cross(value, [scores], back, known)


def log_sum_exp(run: Run, call: Call, x: Seen, *_options: Any) -> Any:
    """log Σ exp(x), over dimensions or cumulative: R_i = x_i s_i R_j/z_j, with the softmax s of the terms.

    The difference, the entropy of s, is in the ledger under "softmax". So x - logsumexp(x) is log_softmax.
    """
    name, path, function = call.name, run.modules.path, as_function(run, call)
    value, kept_x, step = run.value(call), run.keep(x.recorded), x.tag.step
    kept_y, known = run.keep(value), merge_tags([x.tag])
    known.behind = known.behind.after(plain=False)
    known.step = after = step_after(run, call, [x], value, "share")

    def back(incoming: Incoming) -> list[Outgoing]:
        def by_terms(arriving: Tensor | None) -> Tensor | None:
            if arriving is None:
                return None
            with torch.enable_grad():
                leaf = kept_x.value.clone().requires_grad_()
                output = function([leaf])
            (gradient,) = torch.autograd.grad(output, leaf, arriving)
            return gradient.nan_to_num(0)  # where all terms are masked

        c, c_in = incoming.c, by_terms(incoming.c)
        if c is not None and c_in is not None:
            run.ledger.add("softmax", times(c, kept_y.value), path, name, after)
            run.ledger.add("softmax", -times(c_in, kept_x.value), path, name, step)
        return [(c_in, by_terms(incoming.direct))]

    return run.cross(value, [x], back, known)


def log_add_exp(run: Run, call: Call, a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)), as a log_sum_exp, or with powers of 2.

    Of one value, and constants, it is a pointwise function such as softplus.
    """
    relevant = [t for t in (a, b) if is_relevant(t)]
    value = run.value(call)
    chain = chained(run, call, relevant) if all([t.shape == value.shape for t in relevant]) else None
    if chain is not None:
        return attach_to_root(run, call, chain)
    terms = [t if is_relevant(t) else run.source(t, call.name) for t in (a, b)]
    base = log(2) if call.operation == "logaddexp2" else 1.0
    terms = terms if base == 1 else [run.perform(torch.mul, t, base) for t in terms]
    both = run.perform(torch.stack, run.perform(torch.broadcast_tensors, *terms), -1)
    result = run.perform(torch.logsumexp, both, -1)
    return of_value(run, value, result if base == 1 else run.perform(torch.div, result, base))


def negative_log_likelihood(run: Run, call: Call, *_args: Any) -> Any:
    """F.nll_loss, also of F.cross_entropy, in a target: a sum of log-probabilities, which is linear."""
    return _exact(run, call) if run.scores else _loss(run, call)


def connectionist(run: Run, call: Call, x: Seen, _targets: Any, lengths: Any, *_options: Any) -> Any:
    """F.ctc_loss in a target: -log Σ exp(log-probability of a path), as a log_sum_exp over paths.

    The log-probabilities x are (steps, samples, classes). The entropy of the paths is in the ledger under
    "softmax".
    """
    if not run.scores:
        return _loss(run, call)
    name, path, function = call.name, run.modules.path, as_function(run, call)
    loss, *beside = run.value(call)
    kept_x, kept_loss = run.keep(x.recorded), run.keep(loss)
    steps = torch.arange(len(x.recorded), device=x.device)
    within = (steps[:, None] < torch.as_tensor(value_of(lengths), device=x.device)).unsqueeze(2)

    def back(incoming: Incoming) -> list[Outgoing]:
        c, x = incoming.c, kept_x.value
        if c is None:
            return [(None, None)]
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            output = function([leaf])[0]
        (gradient,) = torch.autograd.grad(output, leaf, c)
        # Torch adds exp(x), as is right only if a log_softmax follows in the backward.
        possible = within & kept_loss.value.isfinite()[:, None]
        c_in = torch.where(possible, gradient - x.exp() * c[:, None], 0)
        left = times(c, kept_loss.value).nan_to_num(0, 0, 0) - times(c_in, x).sum((0, 2))
        run.ledger.add("softmax", left, path, name)
        return [(c_in, None)]

    known = merge_tags([x.tag])
    known.behind = known.behind.after(plain=False)
    result = run.cross(loss, [x], back, known, slot=False)
    return (result, *(run.seen(t, None) for t in beside))


def _loss(run: Run, call: Call) -> Any:
    """A loss that the model itself computes."""
    run.gap(call.name, reason_of(call.name))
    return plain(run, call)


_exact = Exact(slot="none")

TABLE: Mapping[str, Entry] = {
    **dict.fromkeys((*aten_names("softmax"), *aten_names("log_softmax")), softmax),
    **dict.fromkeys(("logsumexp", "logcumsumexp"), log_sum_exp),
    **dict.fromkeys(("logaddexp", "logaddexp2"), log_add_exp),
    **dict.fromkeys(("nll_loss_forward", "nll_loss2d_forward"), negative_log_likelihood),
    "_ctc_loss": connectionist,
}
