"""`relprop explain`: pictures in, heatmaps out."""

from pathlib import Path
from typing import Annotated

import typer

from relprop.cli.model_options import Classes, Mean, ModelName, ModelOptions, Rules, Size, Std, Weights
from relprop.cli.words import VIEWS


def explain(
    model: ModelName,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, of any size and mode; for the models of MNIST of one digit each.",
            metavar="PICTURE",
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
            metavar="PATH",
            show_default="beside each picture",
        ),
    ] = None,
) -> None:
    """Show which pixels of a picture speak for the class that the model sees in it.

    cat-heatmap.png shows cat.jpg as the model sees it and, beside it, the
    relevance of its pixels: red speaks for the class, blue against it.
    A heatmap of an earlier run is replaced, so *.png can be given again; other pictures never.

    Example:
      relprop explain efficientnet-lite0 cat.jpg --target "Egyptian cat"
    """
    from relprop.cli.work.explain import explain_pictures
    from relprop.cli.work.one_picture import Wishes

    options = ModelOptions(model, weights, classes, size, mean, std)
    explain_pictures(options, files, out, Wishes(target, top, rules, view))
