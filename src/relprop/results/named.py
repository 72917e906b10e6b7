"""Relevance by name, of inputs and of parameters; devices by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError, did_you_mean


class ByName(dict[str, Tensor]):
    """Relevance by the name of what has it. A name that is not there raises an `InputError` with all names.

    Args:
        attribute: the attribute of an explanation that has it, for errors.
        relevance: the tensors by name.
    """

    def __init__(self, attribute: str, relevance: Mapping[str, Tensor]) -> None:
        super().__init__(relevance)
        self._attribute = attribute

    def __missing__(self, name: object) -> Tensor:
        named = f"there are {', '.join(map(repr, self))}" if self else "there are none"
        raise InputError(
            f"explanation.{self._attribute}[{name!r}]: there is no such name; {named}."
            f"{did_you_mean(str(name), self)}"
        )

    def __reduce__(self) -> tuple[type["ByName"], tuple[str, dict[str, Tensor]]]:
        return ByName, (self._attribute, dict(self))


def device_named(given: Any, written: str) -> torch.device:
    """Return the device that a user gives.

    Args:
        given: the device, or its name.
        written: how the user wrote it, for errors.

    Raises:
        InputError: it is no device, or there is none here.
    """
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        why = "it is no device"
        if isinstance(given, torch.dtype):
            why = f"it is a type; tensors have types of their own, as in explanation.relevance.to({given})"
        elif not isinstance(error, TypeError) and str(given).partition(":")[0] in ("cuda", "mps", "xpu"):
            why = f"there is no such device here ({str(error).splitlines()[0].rstrip('.')})"
        raise InputError(f"{written}: {why}. Give one such as 'cpu' or 'cuda:0'.") from None
    return device
