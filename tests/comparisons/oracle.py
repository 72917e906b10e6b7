"""The tutorial's way of computing, in NumPy: the code of docs/from-scratch.md, run once.

relprop's maps are compared with these. What is computed, and how, is told and written there alone.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import markdown

PAGE = Path(__file__).parents[2] / "docs" / "from-scratch.md"

Name = Literal["mlp", "cnn"]
Method = Literal["sensitivity", "deep-taylor", "alpha2-beta1"]


@cache
def page() -> dict[str, Any]:
    """Run the page and give all names that it defines: `Dense`, `z_plus`, `mlp`, ..."""
    namespace, _ = markdown.execute(PAGE)
    return namespace


def network(
    name: Name,
    parameters: Mapping[str, ArrayLike],
    method: Method = "sensitivity",
    dtype: DTypeLike = np.float64,
) -> Any:
    """Build one of the page's networks with the rules that a method needs.

    Args:
        name: which of the two.
        parameters: tensors or arrays with torch's names and shapes, as a state dict has them.
        method: sensitivity needs no rules, and such a network has none.
        dtype: in which everything is computed, if the images are of it as well.
    """
    names = page()
    rules = {
        "sensitivity": (None, None),
        "deep-taylor": (names["z_box"], names["z_plus"]),
        "alpha2-beta1": (names["z_box"], names["alpha_beta"]),
    }[method]
    return names[name]({key: np.asarray(value, dtype=dtype) for key, value in parameters.items()}, *rules)


def maps(
    name: Name,
    method: Method,
    parameters: Mapping[str, ArrayLike],
    images: ArrayLike,
    labels: ArrayLike,
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Explain the scores of the classes `labels` (N,).

    `images` are what the network takes, within [-1, 1]: (N, 784) or (N, 1, 28, 28) for the MLP,
    and (N, 1, 32, 32), padded with -1, for the CNN. The maps have the shape of the images.
    """
    x = np.asarray(images, dtype=dtype)
    explain = page()["sensitivity" if method == "sensitivity" else "relevance"]
    built = network(name, parameters, method, dtype)
    result: NDArray[Any] = explain(built, arranged(name, x), np.asarray(labels))
    return result.reshape(x.shape)


def scores(name: Name, parameters: Mapping[str, ArrayLike], images: ArrayLike) -> NDArray[np.float64]:
    """Give the scores (N, 10) of images of the shapes that `maps` takes."""
    x = np.asarray(images, dtype=np.float64)
    result: NDArray[np.float64] = network(name, parameters).forward(arranged(name, x))
    return result.reshape(len(x), 10)


def arranged(name: Name, images: NDArray[Any]) -> NDArray[Any]:
    """Give the images the shape that the page's networks take: rows of pixels, or one channel at the end."""
    pixels = images.reshape(len(images), -1)
    if name == "mlp":
        return pixels
    assert pixels.shape[1] == 32 * 32, (
        f"the CNN takes images (N, 1, 32, 32), not {images.shape}: pad them with -1"
    )
    return pixels.reshape(-1, 32, 32, 1)
