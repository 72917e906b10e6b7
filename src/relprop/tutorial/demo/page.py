"""The page with the tutorial's two networks, a hundred test digits, and scripts that explain drawings."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relprop.data.mnist import test_set, tutorial_indices
from relprop.pages.page import base64_of, data_block, page
from relprop.view.arrays import as_pixels
from relprop.view.colour import COLOURS
from relprop.zoo import bundled, load
from relprop.zoo.mnist import SumPool2d

NETWORKS = {"cnn": ("mnist-cnn", 4), "mlp": ("mnist-mlp", 3)}
"""The page's names of the networks: those of the package, and how many bytes each weight gets."""

TITLE = "Draw a digit: what makes a network read it as it does?"

SCRIPTS = ("lrp.js", "digit.js", "pen.js", "show.js", "page.js")

_EACH = 7
MISREAD = (247, 445, 582, 583, 659, 1014, 1226, 1232, 1247, 1319, 321, 449, 674, 1039, 495, 625, 900, 947)
"""Test digits that both networks, or one of them, take for others."""

_STEPS = 256


def demo() -> str:
    """Return the page as HTML, about 1.5 MB."""
    return page("relprop.tutorial.demo", "demo.html", TITLE, SCRIPTS, data=data_block("data", _data()))


def _data() -> dict[str, Any]:
    digits = _chosen()
    data = test_set()
    return {
        "networks": {short: network_data(*network) for short, network in NETWORKS.items()},
        "digits": {
            "labels": data.labels[digits].tolist(),
            "levels": base64_of(data.images[digits].numpy().tobytes()),
        },
        "colours": {name: _colour_table(name) for name in ("positive", "signed")},
    }


def network_data(name: str, size: int) -> dict[str, Any]:
    """Return a bundled network for the page's scripts: its layers in order, with weights as texts.

    Args:
        name: name of the network, a sequence of the tutorial's layers.
        size: bytes of each weight, 3 or 4.
    """
    layers = [_layer(module, size) for module in load(name).children() if not isinstance(module, nn.Flatten)]
    padded = bundled(name).prepare(torch.zeros(1, 1, 28, 28))
    return {"size": padded.shape[-1], "layers": layers}


def _layer(module: nn.Module, size: int) -> dict[str, Any]:
    match module:
        case nn.ReLU():
            return {"kind": "relu"}
        case SumPool2d():
            return {"kind": "pool"}
        case nn.Linear() | nn.Conv2d():
            assert module.bias is not None
            return {
                "kind": "dense" if isinstance(module, nn.Linear) else "convolution",
                "shape": list(module.weight.shape),
                "weight": packed(module.weight, size),
                # As many digits as single precision has.
                "bias": [float(f"{value:.9g}") for value in module.bias.tolist()],
            }
    raise TypeError(f"the page has no layer for {module}")


def packed(weight: Tensor, size: int) -> dict[str, Any]:
    """Return weights as whole numbers in base64, with their size in bytes and the largest weight.

    The error is at most 2^(-8·size) of the largest weight. With 3 bytes it is as large as that of single
    precision for this weight, and a page with both networks stays small enough to be sent by mail.
    """
    values = weight.detach().double().numpy().ravel()
    scale = float(np.abs(values).max())
    whole = np.rint(values / scale * (2 ** (8 * size - 1) - 1)).astype("<i8")
    return {
        "scale": scale,
        "size": size,
        "bytes": base64_of(whole.view(np.uint8).reshape(-1, 8)[:, :size].tobytes()),
    }


def _colour_table(name: str) -> str:
    """Return red, green and blue for `_STEPS` values from -1 to 1 as bytes in base64."""
    values = np.linspace(-1, 1, _STEPS)
    return base64_of(as_pixels(COLOURS[name](values)).tobytes())


def _chosen() -> list[int]:
    """Return the numbers of test digits: the tutorial's, some of each class, and some difficult ones."""
    labels = test_set().labels
    first = [n for digit in range(10) for n in torch.nonzero(labels == digit).flatten()[:_EACH].tolist()]
    return list(dict.fromkeys([*tutorial_indices(), *first, *MISREAD]))
