"""Which constants are parameters of the model, or were computed from parameters."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls.call import Call
from relprop.calls.moving import COPYING, MOVING
from relprop.calls.nested import tensors_in

_PICKING = frozenset((*MOVING, *COPYING))

_LAYERS = frozenset(
    ("linear", "addmm", "convolution", "_convolution", "conv1d", "conv2d", "conv3d"),
)
_PRODUCTS = frozenset(("mm", "matmul"))
_SUMS = frozenset(("add", "sub"))


def picks(call: Call) -> bool:
    """Whether a call picks values of the model's own constants, possibly by indices made of the samples."""
    first = call.args[0]
    return call.operation in _PICKING and isinstance(first, Tensor) and getattr(first, "picked", True)


class OfParameters:
    """The plain tensors of a run that are computed from parameters, such as an embedding of positions.

    They are listed here because nothing is written on tensors of the model.
    """

    def __init__(self) -> None:
        self._known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._casts: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._outputs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def has(self, value: Any) -> bool:
        """Whether a constant is a parameter or was computed from one."""
        if not isinstance(value, Tensor):
            return False
        if _is_parameter(value) or getattr(value, "of_parameters", False):
            return True
        base = value if value._base is None else value._base
        return _is_parameter(base) or (len(self._known) > 0 and (value in self._known or base in self._known))

    def is_output(self, constant: Any) -> bool:
        """Whether a constant is the output of a linear operation on constants, such as on a first state.

        It is a term of its own beside the outputs of other linear operations, as it would be if the operand
        depended on the samples, and no bias of theirs.
        """
        if type(constant) is not Tensor or not len(self._outputs):
            return False
        return constant in self._outputs or (constant._base is not None and constant._base in self._outputs)

    def note_output(self, name: str, operands: Sequence[Any], result: Any) -> None:
        """Record the results of a linear operation, and of what moves them or adds a bias."""
        made = name in _LAYERS or (name in _PRODUCTS and not _picks_rows(operands[0]))
        if not made and len(self._outputs):
            before = operands if name in _SUMS else operands[:1] if name in _PICKING else ()
            made = any([self.is_output(operand) for operand in before])
        if made:
            for tensor in tensors_in(result):
                self._outputs[tensor] = True

    def note_cast(self, tensor: Any, result: Any) -> None:
        """Record that a constant was cast to another type, as autocast casts weights."""
        if isinstance(tensor, Tensor) and result is not tensor:
            self._casts[result] = tensor

    def before_cast(self, constant: Tensor) -> Tensor:
        """Return the floating-point tensor that a constant was cast from; the constant if there is none."""
        if not len(self._casts):
            return constant
        original: Tensor = self._casts.get(constant, constant)  # type: ignore[no-untyped-call]
        return original if original.is_floating_point() else constant

    def note_made(self, operands: Sequence[Any], result: Any) -> None:
        """Record the floating-point results of a call if an operand is a parameter or was made of one."""
        if any([self.has(operand) for operand in tensors_in(operands)]):
            for tensor in tensors_in(result):
                if tensor.is_floating_point():
                    self._known[tensor] = True


def _picks_rows(matrix: Any) -> bool:
    """Whether a matrix picks rows of another one in a product, as one-hot numbers do."""
    if isinstance(matrix, FakeTensor) or not isinstance(matrix, Tensor) or not matrix.dim():
        return True  # it is not known
    return bool(((matrix != 0).sum(-1) == 1).all())


def _is_parameter(tensor: Tensor) -> bool:
    # isinstance() with nn.Parameter takes longer than most calls, so plain tensors are excluded first.
    return type(tensor) is not Tensor and isinstance(tensor, nn.Parameter)
