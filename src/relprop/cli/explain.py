"""`relprop explain`: pictures in, heatmaps out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import rich.progress
import typer

from relprop.cli.model_options import Classes, Mean, ModelName, Rules, Size, Std, Weights, named_model
from relprop.cli.one_picture import VIEWS, Wishes, explain_picture
from relprop.cli.status import INTERRUPTED
from relprop.cli.terminal import console, progress_bar
from relprop.errors import FileError, InputError
from relprop.view.mosaic import made_by_relprop

_OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")

# Seconds after which a progress bar appears: earlier it would only flicker.
PATIENCE = 2.0


def explain(
    model: ModelName,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, of any size and mode; for the models of MNIST of one digit each.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to explain, by number or name.",
            metavar="CLASS",
            show_default="the one with the highest score",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(help="How many classes to explain, the best ones, side by side.", metavar="N")
    ] = 1,
    rules: Rules = None,
    view: Annotated[
        str, typer.Option(help="heatmap, beside the picture, or overlay, over it in grey.", metavar="VIEW")
    ] = VIEWS[0],
    weights: Weights = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the heatmaps or, for a single picture, the name of a PNG file.",
            show_default="beside each picture",
        ),
    ] = None,
) -> None:
    """Show which pixels of a picture speak for the class that the model sees in it.

    cat-heatmap.png shows cat.jpg as the model sees it and, beside it, the
    relevance of its pixels: red speaks for the class, blue against it.
    A heatmap of an earlier run is replaced, so *.png can be given again; other pictures never.

    relprop explain efficientnet-lite0 cat.jpg --target "Egyptian cat"
    """
    pictures = [picture for picture in files if not _is_earlier_heatmap(picture, files, out)]
    destinations = plan(pictures, out)
    wishes = Wishes(target, top, rules, view)
    found = named_model(model, weights, classes, size, mean, std)
    wishes.check(found)
    terminal = console()
    errors: list[str] = []
    warnings: list[str] = []
    done, interrupted = 0, False
    begun = time.monotonic()
    bar = progress_bar(terminal, rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn())
    task = bar.add_task("", total=len(destinations))
    try:
        for picture, heatmap in destinations.items():
            if time.monotonic() - begun > PATIENCE:
                bar.start()
            bar.update(task, description=picture.name)
            try:
                terminal.print(explain_picture(found, picture, heatmap, wishes, warnings))
            except (FileError, InputError) as error:
                errors.append(f"error: {error}")
            done += 1
            bar.advance(task)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.stop()
    # At the end, where they are seen, and not between the lines of a progress bar.
    for line in [*dict.fromkeys(warnings), *errors]:
        typer.echo(line, err=True)
    if interrupted:
        typer.echo(f"interrupted: {done - len(errors)} of {len(destinations)} pictures done", err=True)
        raise typer.Exit(INTERRUPTED)
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
