"""Models of timm by name, with timm's own preprocessing."""

import importlib
from typing import Any

from relprop.data.imagenet import class_names
from relprop.errors import ModelError, did_you_mean
from relprop.models.checkpoints import load_checkpoint
from relprop.models.model import Model, Normalisation, preparing_by
from relprop.models.request import Request, finished, seeded
from relprop.models.torchvision_models import import_torchvision

_IMAGENET = 1000


def timm_model(request: Request) -> Model:
    """Return the model that "timm:NAME" names. The user gives its weights, and nothing is downloaded.

    Raises:
        ModelError: timm is missing, torchvision does not work, timm has no such model, or no weights are
            given.
        FileError: the file of weights is missing or damaged, would run code on loading, or does not fit.
    """
    timm = _import_timm()
    name = request.name
    _require_known(timm, name)
    if request.weights is None:
        raise ModelError(
            f"{request.model}: the package timm has no weights. Give a file with --weights FILE, such as "
            "model.safetensors of timm's page for the model on the Hugging Face hub. --weights random takes "
            "the untrained network, for trying things out."
        )
    given = {} if request.classes is None else {"num_classes": len(request.classes)}
    with seeded():
        module = timm.create_model(name, pretrained=False, **given)
    if request.weights_file is not None:
        load_checkpoint(module, request.weights_file)
    settings = timm.data.resolve_data_config({}, model=module)
    normalisation = Normalisation(tuple(settings["mean"]), tuple(settings["std"]))
    classes = request.classes
    if classes is None and getattr(module, "num_classes", None) == _IMAGENET:
        classes = class_names()
    return finished(
        request,
        module,
        prepare=preparing_by(timm.data.create_transform(**settings), normalisation),
        classes=classes,
        bounds=normalisation.bounds,
        weights=None,
    )


def _import_timm() -> Any:
    try:
        timm = importlib.import_module("timm")
        importlib.import_module("timm.data")
    except ImportError as error:
        if error.name != "timm":
            raise
        raise ModelError("models of timm need timm, which is not installed: pip install timm") from None
    except RuntimeError:
        import_torchvision()  # timm needs torchvision, and this raises an error that says what is wrong
        raise
    return timm


def _require_known(timm: Any, name: str) -> None:
    if timm.is_model(name):
        return
    known = timm.list_models()
    offer = did_you_mean(name.lower(), known, most=3, written="timm:{}".format)
    raise ModelError(
        f"timm has no model called {name!r}.{offer} It has {len(known)}: timm.list_models('*resnet*') lists "
        "those with a name like that."
    )
