"""Importing transformers when it is needed. The import takes seconds, and the library may be missing."""

import importlib
from typing import Any

from relprop.errors import ModelError


def import_transformers(who: str, needed: str) -> Any:
    """Import the library transformers and return it.

    Args:
        who: subject and verb of the error, such as "MiniLM runs".
        needed: a name in the library. If it can be imported, models can be made.

    Raises:
        ModelError: transformers is not installed, or cannot be imported.
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
