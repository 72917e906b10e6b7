"""Make the pictures of docs/photographs.md: photographs explained by five presets.

python tools/photographs.py

The motorcycle is not part of this repository; its picture is made where scikit-image is installed.
"""

import importlib.util
import io
import sys
from pathlib import Path

import torch
from PIL import Image

import relprop
from relprop.files import write_whole
from relprop.models import Model, resolve
from relprop.view.arrays import Pixels
from relprop.view.grid import captioned, grid
from relprop.view.heatmaps import paint, reduce_channels, scale
from relprop.view.picture import read_picture

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "images"

PRESETS = ("epsilon-gamma-box", "epsilon-plus-flat", "deep-taylor", "epsilon-alpha2-beta1-flat", "epsilon")
COLUMNS = 3

PHOTOGRAPHS = {
    "cat": ROOT / "examples/photographs/cat.png",
    "coffee": ROOT / "examples/photographs/coffee.jpg",
    "camera": ROOT / "examples/photographs/camera.jpg",
}

# Enough that single pixels of relevance stay sharp.
QUALITY = 80


def main() -> int:
    """Write the pictures, and print a line for each preset; return the exit status."""
    torch.set_num_threads(1)
    model = resolve("efficientnet-lite0")
    found = dict(PHOTOGRAPHS)
    motorcycle = _in_scikit_image("motorcycle_left.png")
    if motorcycle is None:
        print("motorcycle: left out, scikit-image is not installed", file=sys.stderr)
    else:
        found["motorcycle"] = motorcycle
    for name, path in found.items():
        sheet = _explained(model, name, path, show=path in PHOTOGRAPHS.values())
        content = io.BytesIO()
        Image.fromarray(sheet).save(content, format="JPEG", quality=QUALITY, optimize=True)
        write_whole(OUT / f"photograph-{name}.jpg", content.getvalue())
    return 0


def _explained(model: Model, name: str, path: Path, *, show: bool) -> Pixels:
    """Draw the best class's relevance by each preset; before it, if `show`, what the model sees."""
    prepared = model.prepare(read_picture(path), str(path))
    with torch.no_grad():
        scores = model.module(prepared.x)[0]
    best = int(scores.argmax())
    assert model.classes is not None
    said = f"{model.classes[best]}, {float(scores.softmax(0)[best]):.2f}"
    cells = [captioned(prepared.picture, above=said)] if show else []
    for preset in PRESETS:
        explanation = relprop.explain(
            model.module, prepared.x, target=best, rules=preset, bounds=model.bounds
        )
        scaled = scale(reduce_channels(explanation.relevance))
        cells.append(captioned(paint(scaled.values)[0], above=preset))
        total, gap = float(explanation.relevance.sum()), float(explanation.ledger.gap.max())
        size = float(explanation.relevance.abs().sum())
        kept = {sink: round(float(amount), 2) for sink, amount in explanation.ledger.absorbed.items()}
        print(
            f"{name}: {said}; {preset}: sum {total:.2f} of {float(scores[best]):.2f}, {size:.2f} in all, ",
            end="",
        )
        print(f"closes to {gap:.0e}; {kept}")
    return grid([cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)])


def _in_scikit_image(file: str) -> Path | None:
    """Find one of scikit-image's pictures, without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / file
    return path if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
