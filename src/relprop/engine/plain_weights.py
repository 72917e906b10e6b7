"""Weights of tensor classes without memory of their own, such as int8 weights, as plain tensors.

The class of such a weight decides what a function does with it, and hides the weight's values from rules. So
while a module that has such parameters runs, functions get their plain values instead: `full_tensor()` of a
distributed weight, `dequantize()` of a quantised one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.calls.nested import map_tensors
from relprop.calls.site import every_module
from relprop.engine.constants import OfParameters
from relprop.engine.levels import aside
from relprop.engine.parameters import ParameterRelevance
from relprop.engine.seen import Seen

_WITH_MEMORY = (Tensor, nn.Parameter, Seen)


def is_foreign(tensor: Any) -> bool:
    """Whether a tensor is of a class that computes by code of its own, below the functions of torch."""
    kind = type(tensor)
    if kind in _WITH_MEMORY or not isinstance(tensor, Tensor) or isinstance(tensor, FakeTensor):
        return False
    dispatch: Any = kind.__torch_dispatch__
    return dispatch is not torch._C._disabled_torch_dispatch_impl


def plain_values(tensor: Tensor) -> Tensor | None:
    """Return the values of such a tensor as a plain one, or None if its class does not tell them."""
    with torch.no_grad(), aside():
        value = tensor
        while is_foreign(value):
            whole = getattr(value, "full_tensor", None)
            if whole is None and type(value).dequantize is not Tensor.dequantize:
                whole = value.dequantize
            value = tensor if whole is None else whole()
            if value is tensor:
                return None
        return value.to(tensor.dtype) if tensor.is_floating_point() else value


class PlainWeights(TorchFunctionMode):
    """Plain values of a run's parameters of other classes. As a mode, it gives them to functions.

    Args:
        of_parameters: where constants that were made of parameters are noted.
        parameters: what collects the relevance of parameters, or None.

    Attributes:
        distributed: names of the parameters of which each process has a part.
        among_activations: whether functions got distributed tensors that are no parameters.
        is_over: whether the run is over. Torch may put a mode back on its stack even then, if an interrupt
            came while the mode's own function ran. It does nothing there, and the next run takes it off.
    """

    def __init__(self, of_parameters: OfParameters, parameters: ParameterRelevance | None) -> None:
        self._of_parameters = of_parameters
        self._parameters = parameters
        self._plain: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.distributed: list[str] = []
        self.among_activations = False
        self.is_over = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # An attribute, such as a shape, needs no values.
        attribute = self.is_over or getattr(func, "__name__", "") == "__get__"
        if not attribute and self._takes((args, kwargs)):
            args, kwargs = self._given(args), self._given(kwargs)
        return func(*args, **kwargs)

    def look_at(self, module: nn.Module) -> bool:
        """Find the parameters of a module that are of other classes. Return whether there are any."""
        own = [p for each in every_module(module) for p in each._parameters.values() if p is not None]
        if not any(map(is_foreign, own)):
            return False  # naming them takes much longer
        found = False
        for name, parameter in module.named_parameters():
            if not is_foreign(parameter):
                continue
            found = True
            if parameter not in self._plain:
                self._plain[parameter] = None
                if hasattr(parameter, "full_tensor"):
                    self.distributed.append(name)
        return found

    def __len__(self) -> int:
        return len(self._plain)

    @property
    def remedy(self) -> str:
        """What helps if the model computes with distributed tensors itself; "" if it has none."""
        if not self.distributed:
            return ""
        return (
            f"Parameters such as {self.distributed[0]!r} are distributed, and so is what the model computes "
            "with them. Explain a model on one process with the whole weights: plain.load_state_dict("
            "{name: t.full_tensor() if hasattr(t, 'full_tensor') else t "
            "for name, t in model.state_dict().items()})."
        )

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the plain values of a tensor of another class, or None if its class does not tell them."""
        plain: Tensor | None = self._plain.get(tensor)  # type: ignore[no-untyped-call]
        if plain is None:
            plain = self._plain[tensor] = plain_values(tensor)
            if plain is not None:
                self._of_parameters.note_made([tensor], plain)
                if self._parameters is not None:
                    self._parameters.note_plain(tensor, plain)
        return plain

    def _given(self, value: Any) -> Any:
        """Return arguments of a function with the plain values of parameters in their place."""
        return map_tensors(self._or_itself, value)

    def _takes(self, arguments: Any) -> bool:
        """Whether all tensors of other classes among a function's arguments are parameters.

        A distributed parameter beside distributed activations stays what it is.
        """
        found: list[Tensor] = []
        map_tensors(lambda t: found.append(t) if is_foreign(t) else None, arguments)
        activations = [t for t in found if t not in self._plain]
        self.among_activations |= any(hasattr(t, "full_tensor") for t in activations)
        return bool(found) and not activations

    def _or_itself(self, tensor: Tensor) -> Tensor:
        if not is_foreign(tensor):
            return tensor
        plain = self.of(tensor)
        return tensor if plain is None else plain
