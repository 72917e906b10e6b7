"""The errors that relprop raises. Each repeats the call, names the place and gives the remedy."""

import difflib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Call:
    """A call of the user, as errors repeat it.

    Attributes:
        name: the function: "plot".
        first: its first argument as it is written, if errors repeat it.
    """

    name: str
    first: str = ""

    def __str__(self) -> str:
        return f"{self.name}({self.first})" if self.first else self.name

    def __call__(self, argument: str) -> str:
        """Return the call with one more argument."""
        return f"{self.name}({self.first}{', ' if self.first else ''}{argument})"


def at_the_shell(warning: object) -> str:
    """Return the text of a warning, with what to type in the command line instead of what to write."""
    if isinstance(warning, ScoreWarning):
        return f"{warning.problem} {warning.at_the_shell}".strip()
    return str(warning)


def did_you_mean(
    name: str, known: Iterable[str], *, most: int = 2, written: Callable[[str], str] = repr
) -> str:
    """Return an offer of known names that are near to a name, " Did you mean 'a' or 'b'?", or ""."""
    if not isinstance(name, str):
        return ""
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f" Did you mean {' or '.join(map(written, near))}?" if near else ""


_JOINERS = "\u200c\u200d"


def visible(text: str, keep: str = "") -> str:
    r"""Replace characters that are invisible, or that control a terminal, by an escape such as "\x1b".

    Joiners within an emoji or a word stay, because they are part of what is seen.

    Args:
        text: the text.
        keep: characters that stay, such as the ends of lines.
    """
    return "".join(
        letter
        if letter.isprintable() or letter in keep or _joins(text, place)
        else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for place, letter in enumerate(text)
    )


def _joins(text: str, place: int) -> bool:
    """Whether there is a joiner between two signs, or letters beyond Latin, that it can join."""
    return (
        text[place] in _JOINERS
        and 0 < place < len(text) - 1
        and all(
            sign > "\u02ff" and unicodedata.category(sign)[0] in "LMS"
            for sign in (text[place - 1], text[place + 1])
        )
    )


def quoted(text: str) -> str:
    """Return a text in quotation marks as `repr` does, with the joiners that `visible` keeps."""
    stand_in = next(sign for sign in map(chr, range(0x2500, 0x2600)) if sign not in text)
    joiners = [letter for place, letter in enumerate(text) if _joins(text, place)]
    parts = "".join(stand_in if _joins(text, place) else letter for place, letter in enumerate(text))
    first, *rest = repr(parts).split(stand_in)
    return first + "".join(joiner + part for joiner, part in zip(joiners, rest, strict=True))
