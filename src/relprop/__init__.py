"""Layer-wise relevance propagation for PyTorch models as they are.

`import relprop` alone is quick: torch is imported when the first name is used. The names are in
`relprop.public`.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from relprop.files import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from relprop.public import *
else:  # out of sight of type checkers, for which it would make any name right

    def __getattr__(name: str) -> Any:
        """Bring in all public names when the first one is asked for."""
        if name == "__all__" or not name.startswith("__"):
            public = import_module("relprop.public")
            globals().update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
            if name in globals():  # or a folder that came with them
                return globals()[name]
            if (
                name.isidentifier() and find_spec(f"relprop.{name}") is not None
            ):  # as relprop.testing, of which errors speak
                return import_module(f"relprop.{name}")
            # What other libraries call something is told what it is here.
            raise import_module("relprop.rules.elsewhere").no_attribute("relprop", name)
        raise AttributeError(f"module 'relprop' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({"__version__", *import_module("relprop.public").__all__})
