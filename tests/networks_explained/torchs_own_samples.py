"""Torch's own list of its functions, `op_db`, with the sample inputs by which torch tests them."""

import sys
import unittest
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from relprop.calls.nested import tensors_in

MOST = 6
"""How many samples of a function are used."""


def functions() -> dict[str, Any]:
    """Torch's descriptions of its functions, by name and variant."""
    absent = find_spec("expecttest") is None
    if absent:  # which torch's list imports, for tests that do not run here
        stand_in: Any = ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase
        sys.modules["expecttest"] = stand_in
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.testing._internal.common_methods_invocations import op_db
    finally:
        if absent:
            del sys.modules["expecttest"]
    return {op.formatted_name: op for op in op_db}


@dataclass(frozen=True)
class Sampled:
    """A call of a function as a model of one sample.

    Attributes:
        op: torch's description of the function.
        sample: torch's sample input.
    """

    op: Any
    sample: Any

    @property
    def first(self) -> Any:
        """The first argument, or the first of a list of tensors."""
        given = self.sample.input
        return given[0] if isinstance(given, (list, tuple)) and given else given

    @property
    def x(self) -> Tensor:
        """The first tensor, as a batch of one sample."""
        tensor: Tensor = self.first
        return tensor.detach().reshape(1, *(tensor.shape or (1,)))

    def __call__(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        given, args = x.reshape(self.first.shape).clone(), self.sample.args
        if self.first is not self.sample.input:
            given = [given, *self.sample.input[1:]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self.op(given, *args, **self.sample.kwargs)
        outputs = [t.abs() if t.is_complex() else t for t in tensors_in(result)]
        floating = [t for t in outputs if t.is_floating_point()] or outputs
        return torch.cat([t.double().reshape(1, -1) for t in floating], 1)

    def has_gradient(self) -> bool:
        """Whether torch's own gradient of the call is somewhere not zero."""
        leaf = self.x.clone().requires_grad_()
        try:
            (gradient,) = torch.autograd.grad(weighed(self(leaf)).sum(), leaf)
        except RuntimeError:
            return False
        return bool(gradient.any())


def weighed(y: Tensor) -> Tensor:
    """A score of all outputs, in which each has another weight."""
    return (y * torch.linspace(1, 2, y.shape[1], dtype=y.dtype, device=y.device)).sum(1)


def samples(op: Any) -> Iterator[Sampled]:
    """The calls of a function that have a finite floating-point input and a finite output."""
    if torch.float64 not in op.supported_dtypes("cpu") or op.name.startswith("jiterator"):  # on GPUs only
        return
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usable = filter(_is_usable, (Sampled(op, s) for s in op.sample_inputs("cpu", torch.float64)))
        yield from islice(usable, MOST)


def _is_usable(sampled: Sampled) -> bool:
    x = sampled.first
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        return False
    if x.layout is not torch.strided or not bool(x.isfinite().all()):
        return False
    try:
        output = sampled(sampled.x)
    except (RuntimeError, TypeError, ValueError):  # it returns no tensors, or needs a leaf
        return False
    return bool(output.numel() and output.isfinite().all())
