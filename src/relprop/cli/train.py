"""`relprop train`: the tutorial's networks from scratch."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    network: Annotated[
        str,
        typer.Argument(
            help="The network: mlp (fully connected) or cnn (convolutional).",
            metavar="NETWORK",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Read MNIST's training set from this folder: train-images-idx3-ubyte and "
            "train-labels-idx1-ubyte, gzipped or not.",
            metavar="FOLDER",
            show_default="the folder in $RELPROP_MNIST, or a download",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the weights to this file.",
            metavar="FILE",
            show_default="./mnist-NETWORK.safetensors",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Write the weights into this folder too, in the tutorial's text format.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed the random numbers. The same seed gives the same weights.", metavar="N")
    ] = 0,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Train for N passes over the training set.",
            metavar="N",
            show_default="as in the tutorial: mlp 100, cnn 10",
        ),
    ] = None,
    holdout: Annotated[
        int,
        typer.Option(
            help="Train without the last N images, and measure the error on them instead of the test set.",
            metavar="N",
        ),
    ] = 0,
) -> None:
    """Train one of the tutorial's two networks on MNIST, in one to two minutes on two cores.

    The weights are written when the training is done. Ctrl-C leaves no file behind.
    """
    from relprop.cli.work.train import train_and_save

    train_and_save(network, data, out, text, seed=seed, epochs=epochs, holdout=holdout)
