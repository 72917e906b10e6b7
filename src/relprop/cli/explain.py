"""`relprop explain`: pictures in, heatmaps out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

import relprop
from relprop.cli.terminal import console, refuse_to_replace_others
from relprop.composites import DEFAULT
from relprop.errors import FileError, InputError
from relprop.view.digit import read_digit
from relprop.view.mosaic import made_by_relprop, mosaic, save_png
from relprop.zoo import Bundled, bundled

# Each pixel of the digit and of its map becomes a square of this many pixels, 28 pixels 280.
ENLARGE = 10

_OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")

# A picture takes some milliseconds: below this number a progress bar would only flicker.
MANY = 50


def explain(
    model: Annotated[str, typer.Argument(help="The model: mnist-cnn or mnist-mlp.", show_default=False)],
    files: Annotated[
        list[Path],
        typer.Argument(help="Pictures of one digit each, of any size and mode.", show_default=False),
    ],
    target: Annotated[
        int | None,
        typer.Option(help="The class to explain.", show_default="the one with the highest score"),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="The preset of rules, such as deep-taylor.",
            show_default=DEFAULT,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A file of weights that relprop train wrote for the model.",
            show_default="those of the package",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the heatmaps or, for a single picture, the name of a PNG file.",
            show_default="beside each picture",
        ),
    ] = None,
) -> None:
    """Show which pixels of a picture speak for the class that the model sees in it.

    my_digit-heatmap.png shows the digit as the model sees it and, beside it,
    the relevance of its pixels: red speaks for the class, blue against it.
    A heatmap of an earlier run is replaced, so *.png can be given again; other pictures never.
    """
    found = bundled(model)
    last = len(found.classes) - 1
    if target is not None and not 0 <= target <= last:
        raise InputError(
            f"--target {target}: the classes of {model} are numbered 0 to {last}. Give one of them."
        )
    pictures = [picture for picture in files if not _is_earlier_heatmap(picture, files, out)]
    destinations = plan(pictures, out)
    network = relprop.load(model, weights)
    terminal = console()
    quiet = len(destinations) < MANY or not terminal.is_terminal
    errors = []
    for picture, heatmap in track(
        destinations.items(), "Explaining", console=terminal, transient=True, disable=quiet
    ):
        try:
            terminal.print(_explain_one(network, found, picture, heatmap, target, rules))
        except (FileError, InputError) as error:
            errors.append(f"error: {error}")
    # At the end, where they are seen, and not between the lines of a progress bar.
    for line in errors:
        typer.echo(line, err=True)
    if errors and len(destinations) > 1:
        typer.echo(f"{len(errors)} of {len(destinations)} pictures could not be explained.", err=True)
    if errors:
        raise typer.Exit(2)


def _is_earlier_heatmap(picture: Path, files: Sequence[Path], out: Path | None) -> bool:
    """Whether a picture is what an earlier run made of another one of the files, as in `*.png`."""
    if not picture.name.endswith("-heatmap.png") or picture.parent != (out or picture.parent):
        return False
    stem = picture.name.removesuffix("-heatmap.png")
    sources = [f for f in files if f.stem == stem and (out or f.parent) == picture.parent]
    return bool(sources) and made_by_relprop(picture)


def plan(files: Sequence[Path], out: Path | None) -> dict[Path, Path]:
    """Decide where the heatmap of each picture goes, before any is made.

    Raises:
        InputError: a heatmap would replace one of the pictures, or another heatmap.
    """
    if out is not None and out.suffix.lower() in _OTHER_PICTURES and not out.is_dir():
        raise InputError(f"--out {out}: heatmaps are PNG files. Give a name that ends in .png, or a folder.")
    pictures = list(dict.fromkeys(files))
    single = out is not None and out.suffix.lower() == ".png" and not out.is_dir()
    if single and len(pictures) > 1:
        raise InputError(
            f"--out {out} names one picture, but there are {len(pictures)} to explain. Give a folder."
        )
    destinations: dict[Path, Path] = {}
    makers: dict[Path, Path] = {}
    given = {picture.resolve() for picture in pictures}
    for picture in pictures:
        name = f"{picture.stem}-heatmap.png"
        heatmap = out if out is not None and single else (out or picture.parent) / name
        place = heatmap.resolve()
        if place in given:
            raise InputError(
                f"the heatmap of {picture} would replace {heatmap}, one of the pictures given. "
                "Leave that picture out, or choose another folder with --out."
            )
        if place in makers:
            raise InputError(
                f"the heatmaps of {makers[place]} and {picture} would both be {heatmap}. "
                "Rename one of the pictures, or explain them one after the other with different --out."
            )
        makers[place] = picture
        destinations[picture] = heatmap
    return destinations


def _explain_one(
    network: torch.nn.Module,
    model: Bundled,
    picture: Path,
    heatmap: Path,
    target: int | None,
    rules: str | None,
) -> str:
    """Write the heatmap of one picture and say in a line what was found."""
    refuse_to_replace_others([heatmap])
    digit = read_digit(picture)
    x = model.prepare(torch.from_numpy(digit)[None, None])
    explanation = relprop.explain(network, x, target=target, rules=rules)
    predicted = int(explanation.output[0].argmax())
    explained = int(explanation.target[0])
    score = float(explanation.score[0])
    assert isinstance(explanation.relevance, torch.Tensor)  # the model has one input
    total = float(explanation.relevance.sum())
    relevance = explanation.relevance[0, 0].numpy()
    # The margin that the model's preparation adds shows nothing of the picture.
    margin = (len(relevance) - len(digit)) // 2
    relevance = relevance[margin : margin + len(digit), margin : margin + len(digit)]
    side_by_side = np.hstack(
        [
            mosaic(digit[None], "grey", enlarge=ENLARGE, border=1, rescale=False),
            mosaic(relevance[None], "heatmap", enlarge=ENLARGE, border=1),
        ]
    )
    described = {
        "Title": f"Relevance of the pixels for class {model.classes[explained]}",
        "Software": f"relprop {relprop.__version__}",
        "Model": model.name,
        "Rules": explanation.preset,
        "Predicted class": model.classes[predicted],
        "Score": f"{score:.6g}",
        "Sum of relevance": f"{total:.6g}",
    }
    save_png(heatmap, side_by_side, described)
    line = f"{picture}: class {model.classes[predicted]}, score {float(explanation.output[0, predicted]):.2f}"
    if explained != predicted:
        line += f"; explained class {model.classes[explained]}, score {score:.2f}"
    sinks = {name: float(amount[0]) for name, amount in explanation.ledger.absorbed.items()}
    kept = "".join(f", {name} {amount:.2f}" for name, amount in sinks.items() if abs(amount) >= 0.005)
    return f"{line}; sum of relevance {total:.2f}{kept} ({explanation.preset}); {heatmap}"
