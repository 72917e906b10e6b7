"""What is found once, for calls that are written alike."""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class Found(dict[Hashable, T]):
    """What was found, by a key. If there is too much, all is forgotten, and is found again.

    A model may compute the numbers in its calls, and so make new ones with each sample.

    Attributes:
        most: so much is kept.
    """

    most: ClassVar[int] = 10_000

    def of(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return what is known by a key. If nothing is, find and keep it."""
        known: Any = self.get(key, _UNKNOWN)  # at once, because another thread may forget all in between
        if known is _UNKNOWN:
            known = find()
            if len(self) >= self.most:
                self.clear()
            self[key] = known
        found: T = known
        return found


_UNKNOWN: Any = object()
