"""Models of torchvision by name, with its own preprocessing: classifiers and segmentation networks."""

import importlib
import inspect
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from relprop.errors import ModelError, did_you_mean
from relprop.models.checkpoints import load_checkpoint, read_checkpoint
from relprop.models.model import Model, Normalisation, preparing_by
from relprop.models.request import Request, finished, seeded

_HOW_TO_INSTALL = "pip install torchvision"


def torchvision_model(request: Request) -> Model:
    """Return the model that "torchvision:NAME" names.

    If the user gives no weights, they are read from the cache of torch's hub. Nothing is downloaded.

    Raises:
        ModelError: torchvision is missing or does not work, has no such model, or the cache does not have its
            weights.
        FileError: the file of weights is missing or damaged, would run code on loading, or does not fit.
    """
    name = request.name
    models = import_torchvision().models
    builder = _builder(models, name)
    editions = list(models.get_model_weights(name))
    default = models.get_model_weights(name).DEFAULT
    official = None
    if request.weights is None:
        official = next((e for e in [default, *editions] if _cached(e.url).is_file()), None)
        if official is None:
            raise ModelError(
                f"{request.model}: its trained weights are not on this machine: there is no "
                f"{_cached(default.url)}. Download {default.url} to that path, or give a file with --weights "
                "FILE. --weights random takes the untrained network, for trying things out."
            )
    edition = official or default
    transforms = edition.transforms()
    normalisation = Normalisation(tuple(transforms.mean), tuple(transforms.std))
    path = _cached(official.url) if official else request.weights_file
    arguments = _arguments(builder, request, list(read_checkpoint(path)) if path else [])
    with seeded():
        module = builder(**arguments)
    if path is not None:
        load_checkpoint(module, path)
    return finished(
        request,
        module,
        prepare=preparing_by(transforms, normalisation),
        classes=request.classes or tuple(edition.meta["categories"]),
        bounds=normalisation.bounds,
        weights=f"torchvision's {official}" if official else None,
    )


def import_torchvision() -> Any:
    """Import torchvision and return it.

    Raises:
        ModelError: torchvision is not installed, or was built for another torch.
    """
    try:
        torchvision = importlib.import_module("torchvision")
        importlib.import_module("torchvision.models.segmentation")
    except ImportError as error:
        if error.name != "torchvision":
            raise
        raise ModelError(
            f"models of torchvision need torchvision, which is not installed: {_HOW_TO_INSTALL}"
        ) from None
    except RuntimeError as error:
        raise ModelError(
            f"torchvision is installed but does not work with torch {torch.__version__}: {error}. It was "
            "built for another torch, for instance one with CUDA. Install matching builds of both: "
            "https://pytorch.org/get-started/locally."
        ) from error
    return torchvision


def _builder(models: Any, name: str) -> Any:
    known = models.list_models(module=models) + models.list_models(module=models.segmentation)
    if name in known:
        return models.get_model_builder(name)
    if name in models.list_models():
        offer = " Its model of this name is for another task, which is not covered."
    else:
        offer = did_you_mean(name.lower(), known, most=3, written="torchvision:{}".format)
    raise ModelError(
        f"torchvision has no model for classification or segmentation called {name!r}.{offer} It has "
        f"{len(known)}: {', '.join(known[:4])}, ...; torchvision.models.list_models() lists them."
    )


def _arguments(builder: Any, request: Request, names: list[str]) -> dict[str, Any]:
    """Return the builder's arguments for a network without weights, with the parts that these weights need.

    Args:
        builder: torchvision's function that builds the network.
        request: the user's request.
        names: names of the weights that will be loaded, or [] for random weights.
    """
    given: dict[str, Any] = {"weights": None}
    if request.classes is not None:
        given["num_classes"] = len(request.classes)
    takes = inspect.signature(builder).parameters
    if "weights_backbone" in takes:
        given["weights_backbone"] = None
    if "aux_loss" in takes:
        given["aux_loss"] = any("aux_classifier." in name for name in names)
    if builder.__name__ in ("googlenet", "inception_v3"):
        # The trained networks themselves change the normalisation of their input.
        auxiliary = any("aux" in name.lower() for name in names)
        given |= {"transform_input": True, "init_weights": False, "aux_logits": auxiliary}
    return given


def _cached(url: str) -> Path:
    """Return the path at which torch's hub stores the file of this URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
