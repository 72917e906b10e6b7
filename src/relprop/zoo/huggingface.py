"""transformers, imported where it is needed and not before: it takes seconds, and may be missing."""

import importlib
from typing import Any

from relprop.errors import ModelError


def import_transformers(who: str, needed: str) -> Any:
    """Import the library.

    Args:
        who: in the error's words, what needs it: "MiniLM runs".
        needed: a name in it whose import shows that models can be made.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    try:
        transformers = importlib.import_module("transformers")
        getattr(transformers, needed)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "transformers":
            raise ModelError(
                f"{who} in transformers, which is not installed: pip install transformers"
            ) from None
        raise ModelError(
            f"{who} in transformers, which cannot be imported: {error.__cause__ or error}. A frequent cause "
            "is a torchvision that does not fit the installed torch. relprop does not need torchvision here: "
            "pip uninstall torchvision, or install the one that fits."
        ) from error
    return transformers
