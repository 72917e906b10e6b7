"""The heatmap of one explained picture, as a PNG file."""

from pathlib import Path

import numpy as np
import torch

from relprop.cli.work.one_picture import Finding
from relprop.models import Model
from relprop.view.arrays import Pixels
from relprop.view.mosaic import mosaic, save_png
from relprop.view.plot import compare

# Each pixel of a digit and of its map becomes a square of this many pixels, 28 pixels 280.
ENLARGE = 10


def write_heatmap(found: Finding, model: Model, path: Path, view: str) -> None:
    """Draw the picture and the relevance of each class, and write it to a PNG file.

    Args:
        found: what was found of the picture.
        model: which model.
        path: the file to write.
        view: "heatmap", beside the picture, or "overlay".

    Raises:
        FileError: the file cannot be written.
    """
    pixels, about = _drawn(found, model, view)
    seen = found.best.name or str(found.best.index)
    save_png(path, pixels, about | {"Weights": model.weights, "Predicted class": seen})


def _drawn(found: Finding, model: Model, view: str) -> tuple[Pixels, dict[str, str]]:
    """Draw the picture and the relevance of each class, and say for the file's metadata what is drawn."""
    plot = compare(
        found.pixels, found.prepared.picture, beside=view == "heatmap", shared=True, model=model.name
    )
    pixels, about = plot.pixels, dict(plot.metadata)
    if len(found.explained) == 1:
        answer, explanation = next(iter(found.explained.items()))
        about = explanation.described(model.name) | {
            "Title": f"Relevance of the pixels for class {answer.name or answer.index}",
            "Class": answer.name or str(answer.index),
            "Target": answer.line,
        }
        if model.digits and view == "heatmap":
            pixels = _digit(found, found.relevance(explanation))
    return pixels, about


def _digit(found: Finding, relevance: torch.Tensor) -> Pixels:
    """Set a digit and its relevance side by side, in the tutorial's colours."""
    levels = 2 * (found.prepared.picture[None, ..., 0] / 255) - 1
    return np.hstack(
        [
            mosaic(levels, "grey", enlarge=ENLARGE, border=1, rescale=False),
            mosaic(relevance, "heatmap", enlarge=ENLARGE, border=1),
        ]
    )
