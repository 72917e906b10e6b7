"""Models by the names that users give them at the shell, with their preprocessing, classes and weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from relprop.errors import InputError, ModelError, did_you_mean
from relprop.models.checkpoints import load_checkpoint
from relprop.models.language import PREFIX
from relprop.models.model import Model, Prepared, preparing_digits, preparing_photographs
from relprop.models.own_file import own_model
from relprop.models.request import RANDOM, Request, finished, seeded
from relprop.models.running import errors_of, output_of
from relprop.models.timm_models import timm_model
from relprop.models.torchvision_models import torchvision_model
from relprop.zoo import BUNDLED, fit
from relprop.zoo.efficientnet import RESIZED

__all__ = ["FORMS", "RANDOM", "Model", "Prepared", "errors_of", "load_checkpoint", "output_of", "resolve"]

FAMILIES: Mapping[str, Callable[[Request], Model]] = MappingProxyType(
    {"torchvision": torchvision_model, "timm": timm_model}
)
"""The functions that make models of other libraries, by the word before the colon."""

FORMS = ", ".join([*BUNDLED, *(f"{family}:NAME" for family in FAMILIES), "path.py:function"])
"""The forms of a model's name, for errors and help texts."""


def resolve(
    model: str,
    *,
    weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Model:
    """Return the model that a user names, with its preprocessing, classes and bounds.

    Args:
        model: a name of `relprop.zoo.BUNDLED`; "torchvision:NAME" or "timm:NAME"; or "path.py:function", a
            function in a Python file, which is run (see `relprop.models.own_file`).
        weights: a file, safetensors or a checkpoint (see `relprop.models.checkpoints`); "random"; or None for
            the trained weights on this machine.
        classes: names of the classes. Models of torchvision and timm get as many outputs.
        size: height and width of the input in pixels, for a model of your own.
        mean: the mean by which values from 0 to 1 are normalised, one number or one for each channel, for a
            model of your own.
        std: the standard deviation, in the same form.

    Raises:
        ModelError: there is no such model, it does not work here, or its weights are missing.
        InputError: an argument is given that this model does not take.
        FileError: the file of weights is missing or damaged, would run code on loading, or does not fit.
    """
    request = Request(
        model,
        weights,
        tuple(classes) if classes is not None else None,
        size,
        tuple(mean) if mean is not None else None,
        tuple(std) if std is not None else None,
    )
    kind = model.partition(":")[0]
    elsewhere = kind in FAMILIES or model.startswith(PREFIX)
    if not elsewhere and (kind.endswith(".py") or "/" in model or "\\" in model):
        return own_model(request)
    if not (size is mean is std is None):
        raise InputError(
            f"{model} has its own preprocessing. Leave out size, mean and std: they are for models of your "
            "own, path.py:function."
        )
    if kind in FAMILIES:
        return FAMILIES[kind](request)
    if model.startswith(PREFIX):
        raise InputError(f"{model} is a language model and reads no pictures. Use relprop text {model} TEXT.")
    return _bundled_model(request)


def _bundled_model(request: Request) -> Model:
    found = BUNDLED.get(request.model)
    if found is None:
        raise ModelError(_unknown(request.model))
    if request.classes is not None and len(request.classes) != len(found.classes):
        raise InputError(
            f"{found.name} has {len(found.classes)} classes, but {len(request.classes)} names are given. "
            "Give a name for each class."
        )
    with seeded():
        module = found.build()
    if request.weights_file is not None:
        load_checkpoint(module, request.weights_file)
    elif request.weights is None:
        fit(module, found.trained(), f"the package of {found.name}")
    digits = found.picture == "digit"
    channels, *crop = found.shape
    return finished(
        request,
        module,
        prepare=preparing_digits(found)
        if digits
        else preparing_photographs(RESIZED, (crop[0], crop[1]), channels, found.prepare),
        classes=request.classes or found.classes,
        bounds=(found.low, found.high),
        weights="the trained ones that relprop provides" if request.weights is None else None,
        digits=digits,
    )


def _unknown(name: str) -> str:
    kind, colon, rest = name.partition(":")
    if colon:
        offer = did_you_mean(kind, FAMILIES, most=1, written=lambda near: f"{near}:{rest}")
    else:
        offer = did_you_mean(name, BUNDLED, written=str)
        offer = offer or f" Did you mean {' or '.join(f'{family}:{name}' for family in FAMILIES)}?"
    return f"there is no model {name!r}.{offer} A model is one of: {FORMS}."
