"""The errors that relprop raises. Each repeats the call, names the place and gives the remedy."""

import difflib
from collections.abc import Callable, Iterable


class RelpropError(Exception):
    """Base of all errors that relprop raises. The command line prints the message without a traceback."""


class InputError(RelpropError, ValueError):
    """An input, a target, an option or a picture that cannot be used as it is."""


class RuleError(RelpropError, ValueError):
    """A rule, composite or preset that is unknown, or whose parameters have no meaning."""


class ModelError(RelpropError, ValueError):
    """A model, or the name of a model, that cannot be explained as it is."""


class CoverageError(RelpropError, NotImplementedError):
    """Relevance reaches operations that relprop does not cover. The message lists all of them."""


class FileError(RelpropError, OSError):
    """A file that is missing, damaged, of the wrong kind or cannot be written."""


class ScoreWarning(UserWarning):
    """The explained score is negative, bounded or at padding, so its explanation is easily misread.

    Args:
        problem: what is doubtful, as whole sentences.
        remedy: what to write instead, in Python.
        at_the_shell: what to type instead in the command line.
    """

    def __init__(self, problem: str, remedy: str = "", at_the_shell: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem, self.at_the_shell = problem, at_the_shell or remedy


def at_the_shell(warning: object) -> str:
    """Return the text of a warning, with what to type in the command line instead of what to write."""
    if isinstance(warning, ScoreWarning):
        return f"{warning.problem} {warning.at_the_shell}".strip()
    return str(warning)


def did_you_mean(
    name: str, known: Iterable[str], *, most: int = 2, written: Callable[[str], str] = repr
) -> str:
    """Return an offer of known names that are near to a name, " Did you mean 'a' or 'b'?", or ""."""
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f" Did you mean {' or '.join(map(written, near))}?" if near else ""
