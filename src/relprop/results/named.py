"""Relevance by name: of inputs and of parameters."""

from collections.abc import Mapping

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
