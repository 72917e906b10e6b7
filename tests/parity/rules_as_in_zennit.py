"""A rule of relprop's interface that computes what zennit does where relprop's own rule decides otherwise."""

from dataclasses import dataclass
from typing import Literal

import torch

from relprop.linear import weights
from relprop.linear.numerics import divide
from relprop.linear.operation import Incoming, LinearOperation, Propagated


@dataclass(frozen=True)
class AlphaBetaWithoutExchange:
    """αβ where an output with contributions of one sign only gives α, or -β, of its relevance to these.

    What is too much or missing, (1-α)R or (1+β)R, is put in the ledger.
    """

    alpha: float
    beta: float
    bias: Literal["absorb", "ignore"] = "ignore"
    puts_relevance = False

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        R = incoming.relevance
        P, minus_N = op.parts()
        N = -minus_N
        if op.b is not None and self.bias == "absorb":
            P, N = P + op.b.clamp(min=0), N + op.b.clamp(max=0)
        p, n = self.alpha * divide(R, P), -self.beta * divide(R, N)
        c = op.transpose((p + n) / 2, op.weight)
        c = c + op.x.sign() * op.transpose((p - n) / 2, weights.absolute(op.weight))
        absorbed = {"one sign only": R - p * P - n * N}
        if op.b is not None and self.bias == "absorb":
            absorbed["bias"] = torch.where(op.b > 0, p, n) * op.b
        return Propagated(c, absorbed=absorbed)
