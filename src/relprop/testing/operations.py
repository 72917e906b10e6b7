"""A check of entries of the operation table, by a function that uses the operation."""

import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import RelpropError
from relprop.results.explanation import Explanation
from relprop.rules.composite import Composite
from relprop.rules.first_layer import Flat
from relprop.rules.linear import Epsilon, ZPlus
from relprop.runs.explain import explain

_GAP = 1e-9
"""Largest gap of a ledger, in double precision."""


class _Between(nn.Module):
    """A function between two linear layers, or only before the second. The second takes any shape."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator, *, alone: bool
    ) -> None:
        super().__init__()
        self.function = function
        with torch.no_grad():
            features = function(x).reshape(len(x), -1).shape[1]
        self.first = nn.Identity() if alone else nn.Linear(x.shape[-1], x.shape[-1]).double()
        self.last = nn.Linear(features, 3).double()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        return self.last(self.function(self.first(x)).double().reshape(len(x), -1))


def check_operation(
    function: Callable[[Tensor], Tensor], x: Tensor, *, like_gradient: bool = False, seed: int = 0
) -> None:
    """Check how relevance crosses an operation, as relprop checks its own entries.

    The function is explained in three places: between two linear layers, alone before one (where it gets the
    zeros of x), and as 2·f(x/2) + 1. This is done by rules that carry coefficients, and by one that puts
    relevance on zeros. It is checked that

    - the output is the model's own, to the last bit;
    - every call is covered, and relevance arrives at the input;
    - the ledger balances, also where inputs are zero;
    - samples do not influence each other, unless the function itself mixes them.

    Args:
        function: from one tensor to one tensor, samples first.
        x: an input, float64, two samples or more. The layer before maps its last dimension.
        like_gradient: whether the plain gradient is right for the operation, because it is linear or scales
            with its input. If so, relevance is compared with the gradient.
        seed: seed of the random numbers.

    Raises:
        AssertionError: a check failed; the error says which.
    """
    if x.dtype != torch.float64 or x.dim() < 2 or len(x) < 2:
        raise AssertionError(
            f"x has shape {tuple(x.shape)} and dtype {x.dtype}; give float64, samples first, two or more."
        )
    generator = torch.Generator().manual_seed(seed)
    model = _Between(function, x, generator, alone=False).eval()
    models = {
        "between two linear layers": model,
        "before a linear layer": _Between(function, x, generator, alone=True).eval(),
        "within 2·f(x/2) + 1": _Between(
            lambda x: 2 * function(0.5 * x) + 1, x, generator, alone=False
        ).eval(),
    }
    with_zeros = x.clone()
    with_zeros.flatten()[::3] = 0
    for (place, tried), (given, kind) in product(models.items(), ((x, "x"), (with_zeros, "x with zeros"))):
        by_themselves = [n for n in range(len(given)) if _runs_alone(tried, given, n)]
        for rule in (Epsilon(0), Epsilon(0.1), ZPlus(), Flat()):
            where = f"{place}, by {rule}, on {kind}"
            explanation = _explained(tried, given, rule, where)
            for n in by_themselves:
                alone = _explained(tried, given[n : n + 1], rule, where)
                _require_close(alone, explanation, n, where)
    if like_gradient:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
        found = _explained(model, x, Epsilon(0), "compared with the gradient").relevance
        assert isinstance(found, Tensor)
        apart = float((found - gradient * x).abs().max())
        if not apart <= 1e-9 * float((gradient * x).abs().max()):
            raise AssertionError(
                f"relevance by Epsilon(0) is not the gradient times the input: they are {apart:.2g} apart. "
                "If the entry has another slope than the gradient, leave out like_gradient."
            )


def _runs_alone(model: nn.Module, x: Tensor, n: int) -> bool:
    """Whether the model computes the same for a sample alone as in the batch."""
    try:
        with torch.no_grad():
            return torch.allclose(model(x[n : n + 1])[0], model(x)[n])
    except RuntimeError:  # the model is written for this number of samples
        return False


def _explained(model: nn.Module, x: Tensor, rule: Any, where: str) -> Explanation:
    with torch.no_grad():
        output = model(x)
    if not bool(output.isfinite().all()):
        raise AssertionError(
            f"{where}: the function gives NaN or infinity. Map its input into its domain first, as in lambda "
            "x: function(x.abs())."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scores are random, and the ledger is looked at below
        try:
            explanation = explain(model, x, target=1, rules=Composite([("*", rule)]))
        except RelpropError as error:
            raise AssertionError(f"{where}: {error}") from error
    if not torch.equal(explanation.output, output):
        apart = float((explanation.output - output).abs().max())
        raise AssertionError(f"{where}: the output differs from the model's own by {apart:.2g}.")
    relevance = explanation.relevance
    if not bool(relevance.isfinite().all()):
        raise AssertionError(f"{where}: relevance is NaN or infinite.")
    if not bool(relevance.any()) and rule == Epsilon(0):
        raise AssertionError(f"{where}: no relevance arrives at the input.")
    gap = explanation.ledger.largest_gap
    if not gap <= _GAP:
        raise AssertionError(f"{where}: the ledger does not balance, by {gap:.2g}:\n{explanation.ledger}")
    return explanation


def _require_close(alone: Explanation, together: Explanation, n: int, where: str) -> None:
    one, all_ = alone.relevance, together.relevance
    assert isinstance(one, Tensor)
    assert isinstance(all_, Tensor)
    apart = float((one[0] - all_[n]).abs().max())
    if not apart <= 1e-9 * (float(all_[n].abs().max()) or 1.0):
        raise AssertionError(
            f"{where}: the relevance of sample {n} alone differs from that in the batch by {apart:.2g}."
        )
