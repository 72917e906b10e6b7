"""The 2017 tutorial on real MNIST, from one command."""

from pathlib import Path

from relprop.cli.work.terminal import console, progress_bar, refuse_to_replace_others
from relprop.errors import FileError
from relprop.files import VERSION, whole_file
from relprop.tutorial.report import NETWORKS, described, percent, pictures, report
from relprop.tutorial.steps import PUBLISHED, STEPS, TASKS, Tutorial, compute, load_networks
from relprop.view.mosaic import save_png


def make_tutorial(out: Path, weights: Path | None) -> None:
    """Compute the tutorial, write its pictures and report into a folder, and say what was found.

    Raises:
        FileError: something cannot be read or written.
    """
    if out.exists() and not out.is_dir():
        raise FileError(f"cannot write into {out}: it is a file. Name a folder with --out.")
    networks = load_networks(weights)
    origin = "the package’s own weights" if weights is None else f"the weights in the folder {weights}"
    names = ["report.html", "data.png", *(f"{step.name}.png" for step in STEPS)]
    refuse_to_replace_others([out / name for name in names], "another place with --out")
    terminal = console()
    # The report is opened first, so that a folder that cannot be written to is known before anything is
    # computed, and finished last.
    with whole_file(out / "report.html") as page:
        with progress_bar(terminal) as bar:
            task = bar.add_task("", total=TASKS)
            result = compute(networks, lambda step: bar.update(task, description=step, advance=1))
        files = _write_pictures(result, out)
        page.write_text(report(result, files, origin), encoding="utf-8")
    terminal.print(_summary(result, out, list(files)))


def _write_pictures(result: Tutorial, out: Path) -> dict[str, bytes]:
    """Write every picture, and give the files' content by name."""
    files = {}
    for name, rgb in pictures(result).items():
        path = out / f"{name}.png"
        save_png(path, rgb, {"Title": described(name, result), "Software": f"relprop {VERSION}"})
        files[name] = path.read_bytes()
    return files


def _summary(result: Tutorial, out: Path, names: list[str]) -> str:
    """Say what was found, where to look and what to try next."""
    errors = [
        f"Test error of the {NETWORKS[name]}: {percent(error.rate)}, {error.wrong} of {error.digits} digits "
        f"(the tutorial's: {percent(PUBLISHED[name])})."
        for name, error in result.errors.items()
    ]
    return "\n".join(
        [
            *errors,
            f"Open {out / 'report.html'} in a browser: every step with its formula, picture and figures.",
            f"The pictures are beside it: {', '.join(f'{name}.png' for name in names)}.",
            "What to try next:",
            "  relprop explain mnist-cnn my_digit.png   a digit of your own",
            "  relprop train cnn                        the network from scratch, in one to two minutes",
            "  docs/tutorial.md                         the same steps in Python, for models of your own",
        ]
    )
