"""What is found once, for calls that are written alike."""

from collections.abc import Hashable
from typing import Any, ClassVar


class Found(dict[Hashable, Any]):
    """What was found, by a key. If there is too much, all is forgotten, and is found again.

    A model may compute the numbers in its calls, and so make new ones with each sample.

    Attributes:
        most: so much is kept.
    """

    most: ClassVar[int] = 10_000

    def note(self, key: Hashable, value: Any) -> Any:
        """Keep what was found, and return it."""
        if len(self) >= self.most:
            self.clear()
        self[key] = value
        return value
