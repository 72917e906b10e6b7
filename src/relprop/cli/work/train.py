"""The tutorial's networks from scratch."""

import tempfile
from pathlib import Path

import rich.progress
import typer
from rich.console import Console

from relprop.cli.status import INTERRUPTED
from relprop.cli.work.terminal import console, progress_bar
from relprop.data.mnist import MNIST, test_set, training_set
from relprop.errors import FileError
from relprop.tutorial.train import Progress, error_rate, save, settings_for
from relprop.tutorial.train import train as train_network
from relprop.zoo import bundled, text_format


def train_and_save(
    network: str,
    data: Path | None,
    out: Path | None,
    text: Path | None,
    *,
    seed: int,
    epochs: int | None,
    holdout: int,
) -> None:
    """Train a network and write its weights, and say how many digits it does not recognise.

    Raises:
        InputError: there is no such network, or the options have no meaning.
        FileError: the training set cannot be had, or the weights could not be written.
        Exit: with status 130, after Ctrl-C.
    """
    settings = settings_for(network, epochs)
    found = bundled(settings.model)
    out = out if out is not None else Path(f"{settings.model}.safetensors")
    _check_outputs(out, text / found.archive if text else None)
    terminal = console()
    try:
        with progress_bar(terminal, rich.progress.TimeRemainingColumn()) as bars:
            training = _read(data, bars)
            test = test_set()
            watch = _Watch(terminal, bars, network, "held-out error" if holdout else "test error")
            model = train_network(
                network, training, seed=seed, epochs=epochs, holdout=holdout, test=test, progress=watch
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: the training of {network} stopped, and nothing was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    save(model, out, settings, seed=seed, holdout=holdout)
    if text is not None:
        text_format.write(text, settings.model, model)
    if holdout:
        measured, among = MNIST(training.images[-holdout:], training.labels[-holdout:]), "held-out digits"
    else:
        measured, among = test, "test digits"
    error = error_rate(model, found.prepare, measured)
    terminal.print(
        f"{error:.2%} error: {round(error * len(measured))} of {len(measured)} {among} not recognised"
    )
    terminal.print(f"weights in {out}" + (f" and, as text, in {text / found.archive}" if text else ""))
    terminal.print(_what_next(found.name, out, text))


class _Watch:
    """Shows the training's progress: a bar on a terminal, else a line for each epoch."""

    def __init__(self, terminal: Console, bars: rich.progress.Progress, network: str, measure: str) -> None:
        self.terminal = terminal
        self.bars = bars
        self.measure = measure
        self.network = network
        self.task = bars.add_task(network, total=None)

    def __call__(self, progress: Progress) -> None:
        state = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
        if progress.error is not None:
            state += f", {self.measure} {progress.error:.2%}"
        self.bars.update(
            self.task, description=f"{self.network} {state}", completed=progress.step, total=progress.steps
        )
        ended = progress.step * progress.epochs == progress.epoch * progress.steps
        if ended and not self.terminal.is_terminal:
            self.terminal.print(f"{self.network} {state}")


def _read(folder: Path | None, bars: rich.progress.Progress) -> MNIST:
    """Read the training set, with a bar for each file that has to be downloaded."""
    tasks = {}

    def show(name: str, done: int, total: int | None) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(f"downloading {name}", total=total)
        bars.update(tasks[name], completed=done)

    training = training_set(folder, show)
    for task in tasks.values():
        bars.remove_task(task)
    return training


def _check_outputs(out: Path, text: Path | None) -> None:
    """Find out before the training whether its result can be written.

    Raises:
        FileError: it cannot.
    """
    if out.suffix != ".safetensors":
        raise FileError(
            f"--out {out}: weights are written as safetensors. Give a name that ends in .safetensors."
        )
    if out.is_dir():
        raise FileError(
            f"cannot write {out}: it is a folder. Name a file with --out, such as {out}/weights.safetensors."
        )
    for folder, option in ((out.parent, "--out"), (text, "--text")):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise FileError(
                f"cannot write into {folder}: {error.strerror}. Choose another folder with {option}."
            ) from error


def _what_next(model: str, out: Path, text: Path | None) -> str:
    if text is None:
        return f"Next: relprop explain {model} my_digit.png --weights {out}"
    other = {"mnist-mlp": "cnn", "mnist-cnn": "mlp"}[model]
    return (
        f"Next: relprop tutorial --weights {text} makes the tutorial's pictures with them; "
        f"it needs both networks (relprop train {other} --text {text})."
    )
