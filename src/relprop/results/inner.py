"""Relevance of inner values: of the outputs of recorded modules."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from relprop.errors import InputError, did_you_mean

Returned = Tensor | tuple[Tensor, ...]
"""The output of a module: one tensor, or several."""


@dataclass(frozen=True, eq=False)
class InnerRelevance(Mapping[str, Tensor]):
    """Relevance of the outputs of recorded modules, by path: `explanation.inner["layer3"]`.

    Attributes:
        calls: by path, an entry for each call of the module: the relevance of its output, of the output's
            shape, or a tuple where it returned several tensors.
    """

    calls: Mapping[str, tuple[Returned, ...]] = field(default_factory=dict)

    def __getitem__(self, path: str) -> Tensor:
        """Return the relevance of the output of a module that was called once and returned one tensor.

        Raises:
            InputError: no module of this path was recorded; or it was called several times or returned
                several tensors. `calls` has these.
        """
        if path not in self.calls:
            known = (
                f"recorded are {', '.join(map(repr, self.calls))}." if self.calls else "nothing is recorded."
            )
            near = did_you_mean(path, self.calls, most=1) if isinstance(path, str) else ""
            raise InputError(
                f"explanation.inner[{path!r}]: {known}{near} Modules are recorded by "
                f"explain(..., record=[{path!r}])."
            )
        calls = self.calls[path]
        if len(calls) != 1:
            raise InputError(
                f"explanation.inner[{path!r}]: the module was called {len(calls)} times; take one of "
                f"explanation.inner.calls[{path!r}]."
            )
        (returned,) = calls
        if not isinstance(returned, Tensor):
            raise InputError(
                f"explanation.inner[{path!r}]: the module returned {len(returned)} tensors; take one of "
                f"explanation.inner.calls[{path!r}][0]."
            )
        return returned

    def __contains__(self, path: object) -> bool:
        return path in self.calls

    def __iter__(self) -> Iterator[str]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        return f"InnerRelevance({', '.join(map(repr, self.calls))})"
