"""The parameters of the user's model, its arguments by name, and the options of relprop beside them."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from relprop.calls.site import original
from relprop.errors import InputError, did_you_mean
from relprop.rules.elsewhere import ALSO_OF_MODELS, told


def named(
    model: Callable[..., Any], inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return each argument with its name in the model's forward; "rest0", "rest1" for those of `*rest`."""
    parameters = _parameters_of(model).values()
    positional = [p.name for p in _by_position(parameters)]
    several = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    more = [f"{several}{i}" for i in range(len(inputs) - len(positional))]
    given = [*zip([*positional, *more], inputs, strict=False)]
    taken = {name for name, _ in given}
    # If a model takes any keyword, one may have the name of an argument that was given by position.
    names = {name: name if name not in taken else f"{name}=" for name in arguments}
    return [*given, *((names[name], value) for name, value in arguments.items())]


def _by_position(parameters: Collection[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return the parameters that take one positional argument each."""
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _parameters_of(model: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a model's forward by name; none if it has no signature, as a traced model."""
    model = original(model)
    forward = model.forward if isinstance(model, nn.Module) else model
    if not isinstance(forward, MethodType) or not isinstance(forward.__func__, FunctionType):
        return _read_parameters_of(forward)
    known = _methods.get(forward.__func__)  # reading a signature takes longer than running a small model
    if known is None:
        known = _methods[forward.__func__] = _read_parameters_of(forward)
    return known


def _read_parameters_of(forward: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        return {}


_methods: WeakKeyDictionary[FunctionType, dict[str, inspect.Parameter]] = WeakKeyDictionary()


def without_cache(model: Any, positional: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments, with `use_cache=False` if the model has it and it is not given.

    A language model needs its cache to generate text. Here the cache would only use memory.
    """
    if not isinstance(model, nn.Module) or "use_cache" in arguments:
        return arguments
    names = _parameters_of(model)
    return arguments | {"use_cache": False} if "use_cache" in list(names)[positional:] else arguments


def options_of(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's arguments that are given by name alone."""
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]


def require_arguments(options: Sequence[str], model: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Refuse a keyword that is probably misspelled, or that is an argument of another library.

    A keyword that the model does not have is refused if it is an argument of another library, or similar to
    an option. A model that takes any keyword may have one of this name. For such a model a keyword
    is refused if it is very similar to an option or to a named argument of the model, or if it is an argument
    of another library that no model has.

    Args:
        options: the names of relprop's options.
        model: the user's model.
        arguments: the keyword arguments that are no options.

    Raises:
        InputError: a keyword is refused.
    """
    parameters = _parameters_of(model)
    unknown = [name for name in arguments if name not in parameters]
    if not parameters or not unknown:
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    of_model = [n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for name in unknown:
        said = "" if takes_any and name in ALSO_OF_MODELS else told(name, "arguments")
        if said:
            raise InputError(
                f"explain(..., {name}=...): neither explain nor the model has such an argument.{said}"
            )
        known = [*options, *of_model] if takes_any else options
        if takes_any and not difflib.get_close_matches(name, known, n=1, cutoff=_VERY_NEAR):
            continue
        offer = did_you_mean(name, known, most=1, written="{}=...".format)
        if name == "targets":
            offer = " relprop.explain_each(model, ..., targets=[...]) explains several targets."
        if offer:
            raise InputError(
                f"explain(..., {name}=...): neither explain nor the model has such an argument.{offer}"
            )


_VERY_NEAR = 0.8


def require_known(
    call: str, options: Mapping[str, Any], ours: Callable[..., Any], explain: Callable[..., Any], model: Any
) -> None:
    """Refuse an option that is probably a misspelled option of the function that passes it on.

    Args:
        call: name of the function that passes the options on, for errors.
        options: the options that it passes on.
        ours: the function that passes them on.
        explain: the function that gets them.
        model: the user's model, which may get them too.

    Raises:
        InputError: an option is neither known to `explain` nor to the model, and very similar to one of
            `ours`.
    """
    forward = model.forward if isinstance(model, nn.Module) else model
    passed_on = {*inspect.signature(explain).parameters, *inspect.signature(forward).parameters}
    for name in options.keys() - passed_on:
        near = difflib.get_close_matches(name, inspect.signature(ours).parameters, n=1, cutoff=_VERY_NEAR)
        if near:
            raise InputError(
                f"{call}(..., {name}=...): there is no such argument. Did you mean {near[0]}=...?"
            )


def takes(model: Callable[..., Any], name: str) -> bool:
    """Whether a model has an argument of this name."""
    return name in _parameters_of(model)


def require_positional(model: Callable[..., Any], positional: int) -> None:
    """Refuse more positional arguments than a model takes. One of them may be meant as an option.

    Raises:
        InputError: there are more positional arguments.
    """
    parameters = _parameters_of(model).values()
    count = len(_by_position(parameters))
    if parameters and positional > count and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise InputError(
            f"{positional} arguments are given by position, and the model takes {count}. Options go by name: "
            "target=..., rules=..."
        )


def require_clear(
    call: str,
    model: Callable[..., Any],
    positional: int,
    options: Mapping[str, Any],
    kwargs: Mapping[str, Any] | None,
) -> None:
    """Refuse an option that has the name of an argument of the model, unless `kwargs` is given.

    Args:
        call: name of the function that has the options.
        model: the user's model.
        positional: number of positional arguments that the model gets.
        options: the values of the options. None, False and an empty tuple mean that an option is not given.
        kwargs: arguments of the model, of any name, or None.

    Raises:
        InputError: it is not clear whether the option or the model's argument is meant.
    """
    given = {n for n, v in options.items() if not (v is None or v is False or (type(v) is tuple and not v))}
    if kwargs is not None or not given:
        return
    parameters = _parameters_of(model).values()
    open_ = [p.name for p in _by_position(parameters)[positional:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    for name in [*open_, *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)]:
        if name in given:
            raise InputError(
                f"{name}= is an option of {call} and an argument of the model. If the model is to get it, "
                f"write kwargs={{{name!r}: ...}}. If {call} is to get it, add kwargs={{}}."
            )


def joined_arguments(kwargs: Mapping[str, Any] | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return all keyword arguments of a model: those in `kwargs`, and the others.

    Raises:
        InputError: an argument is given twice, or `kwargs` is not a mapping.
    """
    if kwargs is None:
        return arguments
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise InputError(f"kwargs={kwargs!r}: give the model's arguments by name, as a dictionary.")
    twice = sorted(kwargs.keys() & arguments.keys())
    if twice:
        raise InputError(f"{twice[0]}= is given twice, in kwargs and as an argument. Leave one out.")
    return arguments | dict(kwargs)
