"""How figures are drawn: the options of `plot`, and those that only figures have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import numpy as np

from relprop.errors import Call, InputError
from relprop.view.entries import is_whole, list_of
from relprop.view.heatmaps import REDUCTIONS
from relprop.view.options import Options, require_known


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
        InputError: there is no option of such a name, or it is of another kind.
    """
    known = [option.name for kind in (Options, Layout) for option in fields(kind)]
    require_known(options, known, Call(call))
    given = {**options}
    for option in (*fields(Options), *fields(Layout)):
        if option.name in given and not (given[option.name] is None and option.default is None):
            given[option.name] = _checked(option.name, given[option.name], call)
    own = {option.name for option in fields(Layout)}
    layout = Layout(**{name: value for name, value in given.items() if name in own})
    look = Options(**{name: value for name, value in given.items() if name not in own})
    if layout.sample is not None and look.samples is not None:
        raise InputError(f"{call}: give sample= or samples=, and not both.")
    return look, layout


def _checked(name: str, value: Any, call: str) -> Any:
    """Return an option that a user gives, as what it is used as.

    Raises:
        InputError: it is of another kind.
    """
    right, kind, made = _KINDS.get(name, _ANY)
    given, value = value, list_of(value) if name == "samples" else value  # iterators are read once
    if not right(value):
        raise InputError(f"{call}({name}={given!r}): give {kind}.")
    return made(value)


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) <= high


def _is_count(value: Any) -> bool:
    return is_whole(value) and int(value) >= 1


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _same(value: Any) -> Any:
    return value


_Kind = tuple[Callable[[Any], bool], str, Callable[[Any], Any]]

_ANY: _Kind = (lambda value: True, "", _same)
_TEXT: _Kind = (_is_text, "a text", _same)
_SWITCH: _Kind = (lambda value: isinstance(value, bool | np.bool_), "True or False", bool)
_COUNT: _Kind = (_is_count, "a whole number, 1 or more", int)

_KINDS: dict[str, _Kind] = {
    "of": (_is_text, "the name of an input or of a recorded module", _same),
    "samples": (
        lambda value: isinstance(value, list) and all(map(is_whole, value)),
        "a list of numbers",
        lambda value: [int(sample) for sample in value],
    ),
    "channels": (_is_text, f"one of {', '.join(map(repr, REDUCTIONS))}", _same),
    "percentile": (lambda value: _is_number(value, 0, 100), "a number above 0, up to 100", _same),
    "shared": _SWITCH,
    "colour": (
        lambda value: isinstance(value, str) or callable(value),
        "the name of a colour map, or a function",
        _same,
    ),
    "enlarge": _COUNT,
    "smooth": _SWITCH,
    "beside": _SWITCH,
    "opacity": (lambda value: _is_number(value, 0, 1), "a number from 0 to 1", _same),
    "grey": _SWITCH,
    "columns": _COUNT,
    "labels": (_is_list, "a list of texts, one for each sample", _same),
    "classes": (_is_list, "a list of the names of all classes", _same),
    "title": _TEXT,
    "bar": _SWITCH,
    "model": _TEXT,
    "k": _COUNT,
    "width": (
        lambda value: _is_number(value, 1, 50),
        "the width in inches, from 1 to 50, such as 3.4",
        float,
    ),
}
"""What an option is, how errors say it, and what is made of it. Others are checked with the relevance."""


def require_option(name: str, value: Any, call: str) -> None:
    """Check an option of a call that is no option of `plot`, as that of the same name.

    Raises:
        InputError: it is of another kind.
    """
    _checked(name, value, call)
