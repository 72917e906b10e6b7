"""The errors that relprop raises: each repeats the call, names the place and gives the remedy."""

import difflib
from collections.abc import Callable, Iterable


class RelpropError(Exception):
    """Whatever relprop refuses to do. The command line prints the message without a traceback."""


class InputError(RelpropError, ValueError):
    """An input, a target or a picture that cannot be explained as it is."""


class RuleError(RelpropError, ValueError):
    """A rule, composite or preset with parameters that have no meaning."""


class ModelError(RelpropError, ValueError):
    """A model, or a name of one, that cannot be explained as it is."""


class CoverageError(RelpropError, NotImplementedError):
    """Operations on the way of relevance that no entry of the table covers. Lists all of them at once."""


class FileError(RelpropError, OSError):
    """A file that is missing, damaged, of the wrong kind or cannot be written."""


class ScoreWarning(UserWarning):
    """The explained score is one whose explanation is easily misread: negative, or behind a softmax."""


def did_you_mean(
    name: str, known: Iterable[str], *, most: int = 2, written: Callable[[str], str] = repr
) -> str:
    """Offer names near to one that is not known: " Did you mean 'a' or 'b'?", or nothing."""
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f" Did you mean {' or '.join(map(written, near))}?" if near else ""
