"""Checking a model and its arguments, and replacing the arguments that are explained by stand-ins."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from types import FunctionType, MethodType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from relprop.calls.site import every_module, original
from relprop.errors import InputError, ModelError, did_you_mean
from relprop.inputs.tokens import may_be_ids
from relprop.rules.elsewhere import ALSO_OF_MODELS, told, told_of

KEEP_OUT = (
    "To leave one out, bind it in a function: explain(lambda x: model(x, other=y), x). The function can also "
    "reshape an input whose samples are in another dimension."
)


class StandIns(Protocol):
    """Makes the stand-ins, which the model gets in place of its arguments."""

    def stand_in(self, name: str, tensor: Tensor) -> Tensor:
        """Return the stand-in for a floating-point input."""

    def stand_in_for_ids(self, name: str, tensor: Tensor) -> Tensor:
        """Return the stand-in for an integer input that the model may look up in an embedding."""

    def stand_in_for_lost(self, name: str, tensor: Tensor, reason: str) -> Tensor:
        """Return the stand-in for an integer input that cannot be explained, for this reason."""

    def other(self, value: Any) -> Any:
        """Return the stand-in for an argument that is not explained."""


def put_stand_ins(
    stand_ins: StandIns, model: Callable[..., Any], inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> tuple[dict[str, tuple[int, ...]], list[Any], dict[str, Any]]:
    """Check a model's arguments, and replace them by stand-ins.

    Args:
        stand_ins: makes the stand-ins.
        model: the user's model.
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.

    Returns:
        The shapes of the inputs to explain, by name; the positional arguments for the model; and its keyword
        arguments.

    Raises:
        InputError: no argument can be explained, or an input has no samples or values that are not finite.
    """
    given = _named(_parameters_of(model).values(), inputs, arguments)
    floats = {name: _checked(name, value) for name, value in given if _is_explained(name, value)}
    ids = {name: value for name, value in given if may_be_ids(name, value)}
    samples = {name: value.shape[0] for name, value in floats.items()}
    # Beside floating-point inputs, one number a sample is a category. Alone it may be a text without samples.
    # With offsets, the ids of all samples may be in one dimension, one after the other.
    in_bags = any("offset" in name.lower() and isinstance(value, Tensor) for name, value in given)
    lost = {n: v for n, v in ids.items() if v.dim() == 1 and floats and len(v) not in samples.values()}
    lost = {} if in_bags else lost
    ids = {name: value for name, value in ids.items() if name not in lost}
    for name, value in ids.items():
        _require_samples(name, value, least=1 if floats or in_bags else 2)
    if not floats and not ids:
        kinds = [f"{name}: {_kind(value)}" for name, value in given]
        raise InputError(
            "nothing to explain: explain(model, ...) needs a floating-point tensor, and got "
            f"{', '.join(kinds) or 'none'}." + _remedy([value for _, value in given])
        )
    if len(set(samples.values())) > 1:
        raise InputError(
            f"the inputs have different numbers of samples in their first dimension: {samples}. " + KEEP_OUT
        )
    _require_fitting_masks(dict(given))
    shapes = {name: tuple(value.shape) for name, value in given if name in floats or name in ids}
    standing = {name: stand_ins.stand_in(name, value) for name, value in floats.items()}
    standing |= {name: stand_ins.stand_in_for_ids(name, value) for name, value in ids.items()}
    for name, value in lost.items():
        reason = f"it has {len(value)} numbers, and the other inputs have {max(samples.values())} samples"
        standing[name] = stand_ins.stand_in_for_lost(name, value, reason)
    replaced = [
        (name, standing[name] if name in standing else stand_ins.other(value)) for name, value in given
    ]
    of_keywords = zip(arguments, replaced[len(inputs) :], strict=True)
    return shapes, [v for _, v in replaced[: len(inputs)]], {name: v for name, (_, v) in of_keywords}


def _named(
    parameters: Collection[inspect.Parameter], inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return each argument with its name in the model's forward; "rest0", "rest1" for those of `*rest`."""
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


def _require_fitting_masks(given: dict[str, Any]) -> None:
    """Refuse an attention mask whose shape is not that of the tokens."""
    for prefix in ("", "decoder_"):
        ids, mask = given.get(f"{prefix}input_ids"), given.get(f"{prefix}attention_mask")
        if isinstance(ids, Tensor) and isinstance(mask, Tensor) and ids.dim() == mask.dim() == 2:
            require_fitting_mask(mask, ids, prefix)


def require_fitting_mask(mask: Tensor, ids: Tensor, prefix: str = "") -> None:
    """Refuse a mask that does not have a number for each token.

    Args:
        mask: the mask, (samples, tokens).
        ids: the tokens, (samples, tokens).
        prefix: the beginning of both arguments' names, for errors.

    Raises:
        InputError: the shapes differ.
    """
    if ids.shape != mask.shape:
        raise InputError(
            f"{prefix}attention_mask of shape {tuple(mask.shape)} does not fit {prefix}input_ids of "
            f"shape {tuple(ids.shape)}: give a number for each token, 1 where it counts, 0 for padding."
        )


def require_arguments(ours: Callable[..., Any], model: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Refuse a keyword that is probably misspelled, or that is an argument of another library.

    A keyword that the model does not have is refused if it is an argument of another library, or similar to
    an option of `ours`. A model that takes any keyword may have one of this name. For such a model a keyword
    is refused if it is very similar to an option or to a named argument of the model, or if it is an argument
    of another library that no model has.

    Args:
        ours: the function with the options.
        model: the user's model.
        arguments: the keyword arguments that are not options of `ours`.

    Raises:
        InputError: a keyword is refused.
    """
    parameters = _parameters_of(model)
    unknown = [name for name in arguments if name not in parameters]
    if not parameters or not unknown:
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    options = [name for name, p in inspect.signature(ours).parameters.items() if p.kind is p.KEYWORD_ONLY]
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
    if not isinstance(kwargs, Mapping):
        raise InputError(f"kwargs={kwargs!r}: give the model's arguments by name, as a dictionary.")
    twice = sorted(kwargs.keys() & arguments.keys())
    if twice:
        raise InputError(f"{twice[0]}= is given twice, in kwargs and as an argument. Leave one out.")
    return arguments | dict(kwargs)


def _remedy(values: list[Any]) -> str:
    if any(isinstance(value, (tuple, list)) and _are_tensors(value) for value in values):
        return " Give several inputs one by one: explain(model, a, b)."
    if any(hasattr(value, "__array_interface__") for value in values):
        return " Make a tensor of an array: torch.from_numpy(x)."
    if any(isinstance(value, list) for value in values):
        return " Make a tensor of a list: torch.tensor(x); a tokenizer gives one by return_tensors='pt'."
    if any(isinstance(value, str) for value in values):
        return " relprop.explain_text explains a text."
    if any(isinstance(value, Mapping) for value in values):
        return " Spread what a tokenizer returns: explain(model, **tokens)."
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    if any(dtype.is_complex for dtype in types):
        return " Explain the real and the imaginary part of complex numbers: pass torch.view_as_real(x)."
    if types:
        return " Convert pixels by x.float(). For indices of an embedding, explain the embedding's output."
    return ""


def _are_tensors(values: Collection[Any]) -> bool:
    """Whether there are tensors in a list, and nothing else."""
    return bool(values) and all(isinstance(value, Tensor) for value in values)


def only_tokens(inputs: tuple[Any, ...], arguments: Mapping[str, Any]) -> bool:
    """Whether only tokens, or embeddings of tokens, are explained, and there is at least one of them."""
    given = [("", value) for value in inputs] + list(arguments.items())
    of_text = [may_be_ids(*each) or bool(_EMBEDDED.search(each[0])) for each in given]
    others = [_is_explained(*each) and not is_text for each, is_text in zip(given, of_text, strict=True)]
    return any(of_text) and not any(others)


_MASK = re.compile(r"(attention|attn|padding)_mask$")
_EMBEDDED = re.compile(r"(^|_)inputs?_embeds$")


def _is_explained(name: str, value: Any) -> bool:
    """Whether an argument is a floating-point tensor, and its name is not that of an attention mask."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided:  # a sparse matrix is a constant
        return False
    return value.is_floating_point() and not _MASK.search(name)


def _kind(value: Any) -> str:
    return f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__


def _checked(name: str, value: Tensor) -> Tensor:
    _require_samples(name, value)
    finite = value.isfinite()
    if not finite.all():
        where = tuple((~finite).nonzero()[0].tolist())
        raise InputError(
            f"input {name!r} has {int((~finite).sum())} values that are NaN or infinite, the first at "
            f"{where}; replace them before explaining."
        )
    return value.clone() if value.is_inference() else value


def _require_samples(name: str, value: Tensor, least: int = 2) -> None:
    if value.dim() < least:
        raise InputError(
            f"input {name!r} of shape {tuple(value.shape)} has no dimension for samples; give it one in "
            "front, as with x.unsqueeze(0)."
        )
    if value.numel() == 0:
        raise InputError(f"input {name!r} of shape {tuple(value.shape)} is empty. Give one sample or more.")


def require_evaluation_mode(model: Any) -> None:
    """Refuse a model that cannot be called, and a module in training mode.

    A part that computes the same in both modes may be in training mode.

    Raises:
        ModelError: the model cannot be called, is a class, or has a part in training mode.
    """
    if not callable(model):
        raise ModelError(
            f"the model is a {type(model).__name__}, which cannot be called; give a module or a function."
            + told_of(model)
        )
    if isinstance(model, type):
        raise ModelError(
            f"the model is the class {model.__name__}; make one, as in {model.__name__}(...).eval()."
        )
    if not isinstance(model, nn.Module):
        return
    if not _any_trains(model):
        return
    graph = isinstance(model, fx.GraphModule)
    itself = _trains(model) and _depends_on_mode(model, in_graph=graph)
    training = ["the model itself"] if itself else []
    training += [
        path
        for path, m in model.named_modules()
        if path and _trains(m) and _depends_on_mode(m, in_graph=graph)
    ]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        raise ModelError(
            f"the model is in training mode ({training[0]}{more}), where dropout and batch statistics "
            "change its output: call model.eval() before explaining."
        )


def _any_trains(model: nn.Module) -> bool:
    """Whether a module or one within it has `training` set."""
    return any([getattr(module, "training", False) for module in every_module(model)])


def _trains(module: nn.Module) -> bool:
    """Whether a module is in training mode.

    A frozen module has no mode. An exported module cannot leave training mode, and does not count.
    """
    return getattr(module, "training", False) and not isinstance(module, fx.GraphModule)


def _depends_on_mode(module: nn.Module, *, in_graph: bool) -> bool:
    """Whether a module may compute something else in training mode.

    A module of the user's own may. Of torch's modules, and of those in an exported graph, only a few do.
    """
    own = not in_graph and not type(module).__module__.startswith("torch.nn.modules")
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return own or module.dropout > 0
    return own or isinstance(
        module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    )
