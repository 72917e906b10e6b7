"""Relevance of inner values: of the outputs of recorded modules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from relprop.calls.nested import tensors_in
from relprop.calls.site import original
from relprop.errors import InputError, did_you_mean
from relprop.results.samples import same

NOT_STORED = {"stored": False}
"""Metadata of fields that files do not have."""

Returned = Tensor | tuple[Tensor, ...]
"""The output of a module: one tensor, or several."""


@dataclass(frozen=True, eq=False)
class InnerRelevance(Mapping[str, Tensor]):
    """Relevance of the outputs of recorded modules, by path: `explanation.inner["layer3"]`.

    Attributes:
        calls: by path, an entry for each call of the module: the relevance of its output, of the output's
            shape, or a tuple where it returned several tensors.
        samples: likewise, which dimension of each tensor the samples are, or None where they are none.
    """

    calls: Mapping[str, tuple[Returned, ...]] = field(default_factory=dict)
    samples: Mapping[str, tuple[tuple[int | None, ...], ...]] = field(default_factory=dict)
    _paths: Mapping[nn.Module, str] = field(
        default_factory=WeakKeyDictionary, repr=False, metadata=NOT_STORED
    )

    def __getitem__(self, module: str | nn.Module) -> Tensor:
        """Return the relevance of the output of a module that was called once and returned one tensor.

        Args:
            module: its path, or the module itself, as long as the explanation is not stored.

        Raises:
            InputError: no module of this path was recorded; or it was called several times or returned
                several tensors. `calls` has these.
        """
        path = self._path(module)
        if path not in self.calls:
            known = (
                f"recorded are {', '.join(map(repr, self.calls))}." if self.calls else "nothing is recorded."
            )
            near = did_you_mean(path, self.calls, most=1)
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
            if not returned:
                raise InputError(
                    f"explanation.inner[{path!r}]: the module returned nothing that depends on the inputs."
                )
            raise InputError(
                f"explanation.inner[{path!r}]: the module returned {len(returned)} tensors; take one of "
                f"explanation.inner.calls[{path!r}][0]."
            )
        return returned

    def get(self, module: Any, default: Any = None) -> Any:
        """As `inner[module]`, or the default where the module was not recorded."""
        if module not in self:
            return default
        return self[module]

    def of_samples(self, numbers: Tensor) -> "InnerRelevance":
        """Relevance of some samples, by number, (chosen,) int64. Tensors without samples stay whole."""

        def of(tensor: Tensor, dimension: int | None) -> Tensor:
            return tensor if dimension is None else tensor.index_select(dimension, numbers.to(tensor.device))

        return self._mapped([self.calls], lambda parts, dimension: of(parts[0], dimension))

    @staticmethod
    def concatenate(several: "Sequence[InnerRelevance]") -> "InnerRelevance":
        """Relevance of several batches, one after the other.

        Raises:
            InputError: other modules were recorded, or called as many times, or tensors have no samples.
        """
        first = several[0]
        same("recorded modules", [sorted(inner.calls) for inner in several])
        for path in first.calls:
            same(f"calls of {path!r}", [_sizes(inner.calls[path]) for inner in several])

        def of(parts: list[Tensor], dimension: int | None) -> Tensor:
            if dimension is None and len(parts) > 1:
                raise InputError(
                    f"explanations cannot be joined: relevance of the shape {tuple(parts[0].shape)}, of a "
                    "recorded module, has no dimension of samples. Record other modules."
                )
            shapes = [[n for d, n in enumerate(part.shape) if d != dimension] for part in parts]
            same("shapes of inner values", shapes)
            return torch.cat([part.to(parts[0].device) for part in parts], dimension or 0)

        return first._mapped([inner.calls for inner in several], of)

    def _mapped(
        self,
        calls: "Sequence[Mapping[str, tuple[Returned, ...]]]",
        function: Callable[[list[Tensor], int | None], Tensor],
    ) -> "InnerRelevance":
        """Put a function of all parts, and of the dimension of samples, in the place of each tensor."""

        def of_call(path: str, number: int) -> Returned:
            parts = [list(tensors_in(each[path][number])) for each in calls]
            dimensions = self.samples.get(path, ((0,) * len(parts[0]),) * (number + 1))[number]
            found = tuple(function(list(p), d) for *p, d in zip(*parts, dimensions, strict=True))
            return found[0] if isinstance(calls[0][path][number], Tensor) else found

        mapped = {path: tuple(of_call(path, i) for i in range(len(each))) for path, each in calls[0].items()}
        return replace(self, calls=mapped)

    def __getstate__(self) -> dict[str, Any]:
        # Without the modules, which are not stored with what explains them.
        return {name: value for name, value in vars(self).items() if name != "_paths"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _paths=WeakKeyDictionary())

    def _path(self, module: Any) -> str:
        if isinstance(module, nn.Module):
            return self._paths.get(original(module), f"<{type(module).__name__}>")
        return module if isinstance(module, str) else repr(module)

    def __contains__(self, module: object) -> bool:
        return self._path(module) in self.calls

    def __iter__(self) -> Iterator[str]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        return f"InnerRelevance({', '.join(map(repr, self.calls))})"


def _sizes(calls: tuple[Returned, ...]) -> list[int]:
    """How many tensors each call returned."""
    return [len(list(tensors_in(returned))) for returned in calls]
