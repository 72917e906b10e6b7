"""Importing torchvision, also where its compiled part does not fit torch.

The wheel of the package index is built for CUDA; with a torch for CPUs its operators are missing, and the
import fails at the first that it describes. Classifiers and segmentation networks need none of them.
"""

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

import torch

_MISSING = "operator torchvision::nms does not exist"

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_libraries: list[Any] = []  # declarations last as long as their library


def import_torchvision() -> ModuleType:
    """Import torchvision, and with it what timm needs of it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return _import()
    except RuntimeError as error:
        if str(error) != _MISSING:
            raise
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return _import()


def _import() -> ModuleType:
    with warnings.catch_warnings():
        # Reading image files is compiled too, and nothing here reads any.
        warnings.filterwarnings("ignore", "Failed to load image Python extension", UserWarning)
        return importlib.import_module("torchvision")
