"""What an explanation starts from: a model in evaluation mode, and inputs that can be explained."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError, ModelError, RelpropError, did_you_mean


def put_stand_ins(
    stand_in: Callable[[Tensor], Tensor],
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    arguments: dict[str, Any],
) -> tuple[list[str], list[Any], dict[str, Any]]:
    """Put stand-ins in the place of the inputs to explain.

    Returns:
        The names of the explained inputs, and the model's positional and keyword arguments.

    Raises:
        InputError: there is none to explain, or one that cannot be; or an argument is misspelt.
    """
    with torch._C.DisableTorchFunction():  # these looks at the inputs are not the model's
        forward = model.forward if isinstance(model, nn.Module) else model
        try:
            parameters = dict(inspect.signature(forward).parameters)
        except (TypeError, ValueError):
            parameters = {}
        named = list(parameters)
        _require_arguments_of(parameters, arguments)
        given = [*zip([*named, *(f"input{i}" for i in range(len(named), len(inputs)))], inputs, strict=False)]
        given += arguments.items()
        explained = {name: _checked(name, value) for name, value in given if _is_explained(value)}
        if not explained:
            kinds = [f"{name}: {_kind(value)}" for name, value in given]
            raise InputError(
                "nothing to explain: explain(model, ...) needs a floating-point tensor, and got "
                f"{', '.join(kinds) or 'none'}." + _remedy([value for _, value in given])
            )
        samples = {name: value.shape[0] for name, value in explained.items()}
        if len(set(samples.values())) > 1:
            raise InputError(
                f"the inputs have different numbers of samples in their first dimension: {samples}."
            )
    standing = {name: stand_in(value) for name, value in explained.items()}
    replaced = [(name, standing.get(name, value)) for name, value in given]
    return list(standing), [v for _, v in replaced[: len(inputs)]], dict(replaced[len(inputs) :])


def _require_arguments_of(parameters: dict[str, inspect.Parameter], arguments: dict[str, Any]) -> None:
    """Refuse a keyword argument that is neither the model's nor one of ours, but nearly."""
    if not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    from relprop.explain import explain  # which begins here

    for name in arguments.keys() - parameters.keys():
        offer = did_you_mean(name, inspect.signature(explain).parameters, most=1, written="{}=...".format)
        if offer:
            raise InputError(
                f"explain(..., {name}=...): neither explain nor the model has such an argument.{offer}"
            )


def _remedy(values: list[Any]) -> str:
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    if any(dtype.is_complex for dtype in types):
        return " Of complex numbers explain the real and the imaginary part: pass torch.view_as_real(x)."
    if types:
        return " Pixels are made numbers by x.float(); for indices of an embedding explain what it returns."
    return ""


def _is_explained(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _kind(value: Any) -> str:
    return f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__


def _checked(name: str, value: Tensor) -> Tensor:
    if value.dim() < 2:
        raise InputError(
            f"input {name!r} of shape {tuple(value.shape)} has no dimension for samples; give it one in "
            "front, as with x.unsqueeze(0)."
        )
    if value.numel() == 0:
        raise InputError(f"input {name!r} of shape {tuple(value.shape)} is empty.")
    finite = value.isfinite()
    if not finite.all():
        where = tuple((~finite).nonzero()[0].tolist())
        raise InputError(
            f"input {name!r} has {int((~finite).sum())} values that are NaN or infinite, the first at "
            f"{where}; replace them before explaining."
        )
    return value.clone() if value.is_inference() else value


def require_evaluation_mode(model: Any) -> None:
    """Refuse what is no model, and a module of which any part is in training mode.

    Raises:
        ModelError: it is one of these.
    """
    if not callable(model):
        raise ModelError(
            f"the model is a {type(model).__name__}, which cannot be called; give a module or a function."
        )
    if not isinstance(model, nn.Module):
        return
    training = ["the model itself"] if model.training else []
    training += [path for path, m in model.named_modules() if path and m.training and _depends_on_mode(m)]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        raise ModelError(
            f"the model is in training mode ({training[0]}{more}), where dropout and batch statistics "
            "change its output: call model.eval() before explaining."
        )


def _depends_on_mode(module: nn.Module) -> bool:
    """Whether a module may do another thing in training; of torch's own, few do."""
    own = not type(module).__module__.startswith("torch.nn.modules")
    return own or isinstance(
        module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    )


@contextmanager
def naming_inputs(model: Any, names: list[str], shapes: list[tuple[int, ...]]) -> Iterator[None]:
    """Add to the model's own errors what it was called with."""
    try:
        yield
    except RelpropError:
        raise
    except Exception as error:
        called_with = ", ".join(f"{name} of shape {shape}" for name, shape in zip(names, shapes, strict=True))
        error.add_note(
            f"This is the model's own error: explain called it with {called_with}. Does model(...) run on it?"
            + _without_samples(model, names, shapes)
        )
        raise


def _without_samples(model: Any, names: list[str], shapes: list[tuple[int, ...]]) -> str:
    """Advice where an input looks like one picture, and no batch of them."""
    pictures = isinstance(model, nn.Module) and any(isinstance(m, nn.Conv2d) for m in model.modules())
    single = [name for name, shape in zip(names, shapes, strict=True) if len(shape) == 3]
    return f" Samples are the first dimension: {single[0]}.unsqueeze(0)." if pictures and single else ""
