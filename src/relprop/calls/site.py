"""The place of an operation in the model, and the rule that was applied there."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from torch import nn

Slots = Literal["none", "inputs", "all"]
"""Which tensors get a slot (see `relprop.engine.known.Tag`): none, those up to the first linear operations,
or all."""


class Kind(StrEnum):
    """Families of operations that a composite can choose rules for.

    Linear operations, dense and convolution, need a rule. The other kinds have a default.
    """

    CONVOLUTION = "convolution"
    DENSE = "dense"
    PRODUCT = "product"
    SUM = "sum"
    MAX_POOL = "max-pool"
    NORMALISATION = "normalisation"


LINEAR = frozenset({Kind.DENSE, Kind.CONVOLUTION})
"""The kinds of operations that a rule is for, unless the rule has an attribute `kinds`."""


def original(module: Any) -> Any:
    """The module that torch.compile wrapped; anything else is returned as it is."""
    return getattr(module, "_orig_mod", module)


def every_module(model: nn.Module) -> list[nn.Module]:
    """Return a module and those within it, each once. This is much faster than `nn.Module.modules`."""
    met, found = {model}, [model]
    for module in found:  # which grows
        if module._modules:
            inner = [m for m in module._modules.values() if m is not None and m not in met]
            met.update(inner)
            found += inner
    return found


@dataclass(frozen=True)
class Site:
    """The place of an operation in the model. A composite chooses a rule by it.

    Attributes:
        path: module path of the innermost running module, within the explained model.
        modules: the running modules, outermost first.
        operation: name of the operation in torch's documentation, such as "conv2d".
        kind: family of the operation: a `Kind`, or another word from an entry that a user registered.
        depth: number of linear operations between the explained inputs and this operation.
        plain: whether nothing but dense layers, pointwise functions, sums and what moves values lies between
            them, as in a multilayer perceptron.
    """

    path: str
    modules: tuple[nn.Module, ...]
    operation: str
    kind: str
    depth: int
    plain: bool = False

    @property
    def first(self) -> bool:
        """Whether no linear operation lies between the explained inputs and this operation."""
        return self.depth == 0


@dataclass(frozen=True)
class Applied:
    """A rule that was applied: the module path, the operation and the rule."""

    path: str
    operation: str
    rule: Any

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.operation}: {self.rule}"
