"""`relprop explain`: pictures in, heatmaps out."""

from pathlib import Path
from typing import Annotated

import typer

from relprop.cli.model_options import (
    Classes,
    Device,
    Mean,
    ModelName,
    ModelOptions,
    Rules,
    Size,
    Std,
    Weights,
)
from relprop.cli.words import VIEWS


def explain(
    model: ModelName,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures of any size and mode. For the MNIST models, each shows one digit.",
            metavar="PICTURE",
            show_default=False,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="Explain this class, by number or name.",
            metavar="CLASS",
            show_default="the class with the highest score",
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Explain the N best classes, side by side.", metavar="N")] = 1,
    rules: Rules = None,
    view: Annotated[
        str,
        typer.Option(
            help="Draw relevance beside the picture ('heatmap') or over it, in grey ('overlay').",
            metavar="VIEW",
        ),
    ] = VIEWS[0],
    compile: Annotated[
        bool,
        typer.Option("--compile", help="For many pictures: trace the first one, and compute by its graph."),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Also print where the time goes, for another explanation of the first picture."
        ),
    ] = False,
    device: Device = None,
    weights: Weights = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the heatmaps into this folder or, for one picture, to this PNG file.",
            metavar="PATH",
            show_default="beside each picture",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write one page of HTML with all pictures, on which every value can be read. Heatmaps are "
            "then written with --out only.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show which pixels of a picture speak for the class that the model sees in it.

    cat-heatmap.png shows cat.jpg as the model sees it and, beside it, the
    relevance of its pixels: red speaks for the class, blue against it.
    Heatmaps of earlier runs are replaced, other pictures never. So *.png can be given again.

    With --profile there are tables of milliseconds: what Python and what torch
    takes in the forward and the backward; the modules and operations of the
    model, and the operations of torch, that take most. A convolution that is
    folded with a batch norm goes backward in the batch norm. With --device it is
    the time of the CPU, which does not wait for the device.

    The page of --html is one file that can be sent: thumbnails, predictions and
    warnings, and for each picture the relevance of every pixel. With --top there
    is a choice between the classes. After Ctrl-C it has what was done. An earlier
    page is then kept, and the new one is report-interrupted.html.

    Examples:
      relprop explain efficientnet-lite0 cat.jpg --target "Egyptian cat"
      relprop explain efficientnet-lite0 *.jpg --top 3 --html report.html
    """
    from relprop.cli.work.explain import explain_pictures
    from relprop.cli.work.one_picture import Wishes

    options = ModelOptions(model, weights, classes, size, mean, std, device)
    explain_pictures(options, files, out, html, Wishes(target, top, rules, view, compile, profile))
