"""Relevance of parameters: the relevance that the connections of each weight carry.

A weight w_ij carries the relevance that goes from output j to input i, summed over all places where it is
used. A rule sends relevance back with modified weights W, such as |w| or w⁺, which scale with w. So the
connections of a modified weight carry W·∂R/∂W.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.engine.observer import Observer
from relprop.errors import InputError
from relprop.linear.operation import Incoming, LinearOperation, Propagated


@dataclass
class _Traced(LinearOperation):
    """A linear operation that records the modified weights with which relevance is sent back."""

    leaves: list[Tensor] = field(default_factory=list)

    def sent_by(self, weight: Tensor) -> Tensor:
        self.leaves.append(weight.detach().clone().requires_grad_())
        return self.leaves[-1]

    def transpose_both(self, s: Tensor, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return self.transpose(s, one), self.transpose(s, other)

    def spread(self, s: Tensor) -> Tensor:
        return self.transpose(s, torch.ones_like(self.weight))


def _offer(glob: str, parameters: Collection[str]) -> str:
    near = difflib.get_close_matches(glob, parameters, n=2, cutoff=0.5)
    if near:
        return f"near it are {', '.join(map(repr, near))}."
    names = list(parameters)
    return f"they are called {', '.join(names[:4])}, ..." if names else "a function has no named ones."


def _name_of(given: Any, model: Any, parameters: Mapping[str, Tensor]) -> str:
    """The name of a parameter, or a glob for those of a module.

    Raises:
        InputError: it is none of the model's.
    """
    if isinstance(given, nn.Module) and isinstance(model, nn.Module):
        path = next((path for path, module in model.named_modules() if module is given), None)
        if path is not None:
            return f"{path}.*" if path else "*"
    found = next((name for name, parameter in parameters.items() if parameter is given), None)
    if found is None:
        what = f"the tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise InputError(
            f"parameters: {what} is no parameter of the model, nor a module of it; {_offer('', parameters)}"
        )
    return found


def _owner(name: str) -> str:
    """Return the path of the module that uses a parameter. Torch stores parametrised ones in submodules."""
    return name.rpartition(".")[0].partition("parametrizations.")[0].rstrip(".")


class ParameterRelevance(Observer):
    """Collects the relevance of weights of a model.

    Args:
        model: whose weights.
        names: which, by name or glob, or the parameters themselves.

    Attributes:
        relevance: by parameter name, of the parameter's shape, summed over samples and uses.

    Raises:
        InputError: a glob matches no parameter.
    """

    def __init__(self, model: Any, names: Collection[str | Tensor]) -> None:
        parameters = dict(model.named_parameters()) if names and isinstance(model, nn.Module) else {}
        self.relevance: dict[str, Tensor] = {}
        self._names: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._matching: dict[str, list[str]] = {}
        self._met: dict[str, Tensor] = {}
        self._matrices = {name for name, p in parameters.items() if p.dim() > 1}
        for given in names:
            glob = given if isinstance(given, str) else _name_of(given, model, parameters)
            self._matching[glob] = [name for name in parameters if fnmatchcase(name, glob)]
            if not self._matching[glob]:
                raise InputError(
                    f"parameters={glob!r} matches no parameter of the model; {_offer(glob, parameters)}"
                )
            for name in self._matching[glob]:
                self._names[parameters[name]] = name

    def meet(self, weight: Tensor) -> None:
        """Record that a linear operation with this weight runs."""
        if weight in self._names:
            self._met[self._names[weight]] = weight

    def note_plain(self, parameter: Tensor, plain: Tensor) -> None:
        """Record the plain values of a parameter, which take its place."""
        if parameter in self._names:
            self._names[plain] = self._names[parameter]

    def end_forward(self) -> None:
        for glob, names in self._matching.items():
            if not any(name in self._met for name in names):
                raise InputError(
                    f"parameters={glob!r}: no linear operation takes {', '.join(names[:3])} unchanged as its "
                    "weight. Relevance of a bias is in the ledger."
                )

    def changed(self, paths: Collection[str]) -> list[str]:
        """Return the wanted matrices that a module uses, but no linear operation takes unchanged.

        Args:
            paths: paths of modules in which a rule was applied.
        """
        wanted = dict.fromkeys(name for names in self._matching.values() for name in names)
        return [
            name
            for name in wanted
            # Vectors are biases, or part of a normalisation.
            if name in self._matrices and name not in self._met and _owner(name) in paths
        ]

    def begin(self) -> None:
        self.relevance = {
            name: torch.zeros_like(weight, requires_grad=False) for name, weight in self._met.items()
        }

    def wants(self, weight: Tensor) -> bool:
        """Whether the relevance of this weight is collected."""
        return weight in self._names

    def through(
        self,
        op: LinearOperation,
        rule: Callable[[LinearOperation, Incoming], Propagated],
        incoming: Incoming,
        weight: Tensor,
    ) -> Propagated:
        """Apply a rule, and add what the weight's connections carried to `relevance`."""
        traced = _Traced(op.map, op.x, op.z, op.weight, op.bias, op.nonnegative, op.scaled)
        with torch.enable_grad():
            result = rule(traced, incoming)
            carried = [op.x * c for c in (result.coefficient,) if c is not None]
            carried += [direct for direct in (result.direct,) if direct is not None]
            sums = [R.sum() for R in carried if R.requires_grad]
            gradients = torch.autograd.grad(sums, traced.leaves, allow_unused=True) if sums else ()
        name: str = self._names[weight]
        for leaf, gradient in zip(traced.leaves, gradients, strict=bool(sums)):
            if gradient is not None:
                self.relevance[name] = self.relevance[name] + leaf.detach() * gradient
        return Propagated(
            coefficient=None if result.coefficient is None else result.coefficient.detach(),
            direct=None if result.direct is None else result.direct.detach(),
            absorbed={sink: amount.detach() for sink, amount in result.absorbed.items()},
        )
