"""What constants are made of: values of the samples, or parameters of the model."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls import tensors_in


class Constants:
    """Tensors off the way of relevance, by what they are made of."""

    def __init__(self) -> None:
        self._data: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._of_parameters: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def is_data(self, value: Any) -> bool:
        """Whether a constant was made of the samples' values, and so may differ between samples."""
        return isinstance(value, Tensor) and value in self._data

    def note_data(self, value: Any) -> None:
        """Note that a constant, or the tensors in it, belong to the samples."""
        for tensor in tensors_in(value):
            self._data[tensor] = True

    def is_parameter(self, value: Any) -> bool:
        """Whether a constant is a parameter or was made of one, as the embedding of positions is."""
        return isinstance(value, nn.Parameter) or (
            isinstance(value, Tensor) and len(self._of_parameters) > 0 and value in self._of_parameters
        )

    def note_made(self, operands: Iterable[Tensor], result: Any, *, relevant: bool = False) -> Any:
        """Note of the result of a call what holds of its operands; relevant: one of them was no constant."""
        operands = list(operands)
        if relevant or (len(self._data) and any(t in self._data for t in operands)):
            self.note_data(result)
        if not relevant and any(self.is_parameter(t) for t in operands):
            for tensor in tensors_in(result):
                if tensor.is_floating_point():
                    self._of_parameters[tensor] = True
        return result
