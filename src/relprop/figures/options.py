"""How figures are drawn: the options of `plot`, and those that only figures have."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, SupportsFloat, SupportsIndex

from relprop.errors import InputError, did_you_mean
from relprop.view.entries import require_count
from relprop.view.options import Options


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What only figures have. `enlarge` of `Options` is for pixels and has no meaning for them.

    Attributes:
        sample: number of the sample to draw.
        features: names of the features of a table, or of the channels of a signal.
        values: the table that the model saw, (samples, features), or the row of the sample. The values are
            written beside the names.
        signal: the signal that the model saw, (samples, channels, time), or that of the sample.
        k: how many features have a bar of their own.
        width: width of the figure in inches; by default 3.4, a column of a paper with two, or 7, both
            columns, if there are more than two maps, or several samples of another kind.
    """

    sample: int | None = None
    features: Sequence[str] | None = None
    values: Any = None
    signal: Any = None
    k: int = 12
    width: float | None = None


def split(options: Mapping[str, Any], call: str) -> tuple[Options, Layout]:
    """Return the options that users give by name: those of `plot`, and those of figures alone.

    Args:
        options: by name.
        call: what was called, for errors.

    Raises:
        InputError: there is no option of such a name, or it is out of range.
    """
    common, own = ({option.name for option in fields(kind)} for kind in (Options, Layout))
    for name in options:
        if name not in common | own:
            known = [option.name for kind in (Options, Layout) for option in fields(kind)]
            hint = did_you_mean(name, known, most=1, written="{}=".format)
            raise InputError(
                f"{call}({name}=...): there is no such option.{hint} There are: {', '.join(known)}."
            )
    layout = Layout(**{name: value for name, value in options.items() if name in own})
    require_count(layout.k, call)
    require_width(layout.width, call)
    look = Options(**{name: value for name, value in options.items() if name in common})
    if layout.sample is not None and look.samples is not None:
        raise InputError(f"{call}: give sample= or samples=, and not both.")
    if not isinstance(look.opacity, SupportsFloat) or not 0 <= look.opacity <= 1:
        raise InputError(f"{call}(opacity={look.opacity!r}): give a number from 0 to 1.")
    require_title(look.title, call)
    for name, (right, kind) in _KINDS.items():
        value = getattr(look, name)
        if value is not None and not right(value):
            raise InputError(f"{call}({name}={value!r}): give {kind}.")
    return look, layout


def _is_whole(value: Any) -> bool:
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "samples": (lambda v: isinstance(v, Iterable) and all(map(_is_whole, v)), "a list of numbers"),
    "columns": (lambda v: _is_whole(v) and v >= 1, "a whole number, 1 or more"),
    "labels": (_is_list, "a list of texts, one for each sample"),
    "classes": (_is_list, "a list of the names of all classes"),
    "colour": (lambda v: isinstance(v, str) or callable(v), "the name of a colour map, or a function"),
}
"""What an option is, if it is given, and how errors say it."""


def require_title(title: Any, call: str) -> None:
    """Check a title.

    Raises:
        InputError: it is no text.
    """
    if not isinstance(title, str):
        raise InputError(f"{call}(title={title!r}): give a text.")


def require_width(width: Any, call: str) -> None:
    """Check the width of a figure.

    Raises:
        InputError: it is no number of inches, from 1 to 50.
    """
    if width is not None and not (isinstance(width, SupportsFloat) and 1 <= float(width) <= 50):
        raise InputError(f"{call}(width={width!r}): give the width in inches, from 1 to 50, such as 3.4.")
