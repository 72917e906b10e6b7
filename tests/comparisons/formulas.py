"""The rules for linear operations, each beside its slow replica."""

from typing import Any

import torch
from torch import Tensor

import replica
from relprop import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

BIAS_MODES = ["absorb", "ignore", "distribute"]


# name: rule, replica, the replica's parameters
RULES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "LRP-0": (Epsilon(0), replica.epsilon, {"epsilon": 0.0, "bias": "absorb"}),
    "w²": (WSquare(), replica.w_square, {}),
    "flat": (Flat(), replica.flat, {}),
    **{
        f"{name}, bias {bias}": (rule(*values, bias=bias), function, {**parameters, "bias": bias})
        for bias in BIAS_MODES
        for name, rule, values, function, parameters in [
            ("ε", Epsilon, (0.3,), replica.epsilon, {"epsilon": 0.3}),
            ("γ", Gamma, (0.25,), replica.gamma, {"gamma": 0.25}),
            ("large γ", Gamma, (100.0,), replica.gamma, {"gamma": 100.0}),
            ("α2β1", AlphaBeta, (2.0, 1.0), replica.alpha_beta, {"alpha": 2.0, "beta": 1.0}),
            ("α1.5β0.5", AlphaBeta, (1.5, 0.5), replica.alpha_beta, {"alpha": 1.5, "beta": 0.5}),
            ("z+", ZPlus, (), replica.z_plus, {}),
            ("|z|", Absolute, (), replica.absolute, {}),
        ]
    },
}

# Those of hidden layers, where relevance lands on activations that are zero.
HIDDEN: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "flat": (Flat(), replica.flat, {}),
    "w²": (WSquare(), replica.w_square, {}),
    "zB": (
        ZBox(-4.0, 4.0),
        replica.z_box,
        {"low": torch.tensor(-4.0).double(), "high": torch.tensor(4.0).double()},
    ),
    "ε, distributed": (Epsilon(0.3, "distribute"), replica.epsilon, {"epsilon": 0.3, "bias": "distribute"}),
    "γ": (Gamma(0.25), replica.gamma, {"gamma": 0.25, "bias": "absorb"}),
    "αβ": (AlphaBeta(2, 1), replica.alpha_beta, {"alpha": 2.0, "beta": 1.0, "bias": "ignore"}),
}


def assert_agree(actual: Tensor, desired: Tensor) -> None:
    """To a relative 1e-10 of the largest value: rounding errors of float64 and nothing more."""
    assert (actual - desired).abs().max() <= 1e-10 * desired.abs().max()
