"""Pictures in, heatmaps out."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import rich.progress
import typer

from relprop.cli.model_options import ModelOptions
from relprop.cli.status import INTERRUPTED
from relprop.cli.work.heatmap import write_heatmap
from relprop.cli.work.named_model import named_model
from relprop.cli.work.one_picture import Explaining, Wishes, explain_picture
from relprop.cli.work.report import Report, check_report
from relprop.cli.work.terminal import console, counted, progress_bar, refuse_to_replace_others, tell
from relprop.errors import FileError, InputError, visible
from relprop.view.mosaic import made_by_relprop

_OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")

# Seconds after which a progress bar appears: earlier it would only flicker.
PATIENCE = 2.0


def explain_pictures(
    options: ModelOptions, files: Sequence[Path], out: Path | None, html: Path | None, wishes: Wishes
) -> None:
    """Make a heatmap of each picture, or a page of all, and say in a line what was found.

    Args:
        options: which model.
        files: the pictures.
        out: where heatmaps go.
        html: the page to write, if there is to be one. Heatmaps are then written only if `out` is given.
        wishes: what to explain, and how to show it.

    Raises:
        InputError: the options have no meaning, a heatmap would replace another picture, or the page would be
            too large.
        ModelError: there is no such model, or it does not work here.
        FileError: a file that belongs to the model is missing, damaged or does not fit.
        Exit: with status 2, where pictures cannot be explained; with 130, after Ctrl-C.
    """
    pictures = [picture for picture in files if not _is_earlier_heatmap(picture, files, out)]
    destinations: Mapping[Path, Path | None]
    destinations = dict.fromkeys(pictures) if html is not None and out is None else plan(pictures, out)
    if html is not None:
        check_report(html, files)
    found = named_model(options)
    wishes.check(found)
    explaining = Explaining(found, wishes)
    report = None if html is None else Report(html, found, list(destinations))
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
            bar.update(task, description=visible(picture.name))
            try:
                if heatmap is not None:
                    refuse_to_replace_others([heatmap], "another place with --out")
                finding = explain_picture(found, picture, wishes, explaining)
                warnings += finding.warnings
                if heatmap is not None:
                    write_heatmap(finding, found, heatmap, wishes.view)
                if report is not None:
                    report.add(finding)
                terminal.print(finding.lines(heatmap))
            except (FileError, InputError) as error:
                errors.append(f"error: {error}")
                if report is not None:
                    report.add_error(picture, error)
            done += 1
            if report is not None:
                report.require_room()
            bar.advance(task)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.stop()
    if wishes.profile and not interrupted and (profile := explaining.profile()) is not None:
        tell(f"\n{profile}")
    # At the end, where they are seen, and not between the lines of a progress bar.
    for line in [*dict.fromkeys(warnings), *errors]:
        tell(line, err=True)
    if report is not None:
        page = report.write(interrupted)
        if page is not None:
            terminal.print(str(page))
        if page != report.path:
            tell(_not_written(report.path, page), err=True)
    if interrupted:
        tell(f"interrupted: {counted(done - len(errors), len(destinations))} done", err=True)
        raise typer.Exit(INTERRUPTED)
    if errors and len(destinations) > 1:
        tell(f"{counted(len(errors), len(destinations))} could not be explained.", err=True)
    if errors:
        raise typer.Exit(2)


def _not_written(path: Path, instead: Path | None) -> str:
    """Say why there is no page at a path, or that an earlier one is still there."""
    why = "no picture was explained" if instead is None else f"what was done is in {instead}"
    return f"{path} is still that of an earlier run: {why}." if path.exists() else f"no {path}: {why}."


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
    makers: dict[str, Path] = {}
    given = {os.path.realpath(picture) for picture in pictures}
    for picture in pictures:
        name = f"{picture.stem}-heatmap.png"
        heatmap = out if out is not None and single else (out or picture.parent) / name
        place = os.path.realpath(heatmap)  # which takes links that lead in a circle, too
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
