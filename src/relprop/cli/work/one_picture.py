"""One picture explained: its heatmap, and a line that says what was found."""

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import relprop
from relprop.cli.words import VIEWS
from relprop.cli.work.answers import Answer, answer_for, answers, class_named
from relprop.cli.work.profile import Profile, profiled
from relprop.cli.work.terminal import refuse_to_replace_others
from relprop.errors import InputError, at_the_shell
from relprop.models import Model, Prepared, errors_of, output_of
from relprop.results.explanation import Explanation
from relprop.view.arrays import Pixels
from relprop.view.mosaic import mosaic, save_png
from relprop.view.picture import read_picture
from relprop.view.plot import compare

# Each pixel of a digit and of its map becomes a square of this many pixels, 28 pixels 280.
ENLARGE = 10

# The most classes that are explained of one picture: each takes a backward, and a place in the plot.
MOST = 100


@dataclass(frozen=True)
class Wishes:
    """What to explain and how to show it, as the options of the command say."""

    target: str | None = None
    top: int = 1
    rules: str | None = None
    view: str = VIEWS[0]
    compile: bool = False
    profile: bool = False

    def check(self, model: Model) -> None:
        """Find out before any picture is read whether the options have a meaning.

        Raises:
            InputError: they have none.
        """
        if self.view not in VIEWS:
            raise InputError(f"--view {self.view}: there is no such view. Give {' or '.join(VIEWS)}.")
        if self.top < 1:
            raise InputError(f"--top {self.top}: give the number of classes to explain, 1 or more.")
        if self.top > MOST:
            raise InputError(f"--top {self.top}: give the number of classes to explain, at most {MOST}.")
        if self.target is not None:
            if self.top > 1:
                raise InputError(
                    "--target and --top: give one of them, a class or the number of best classes."
                )
            class_named(self.target, model)


class Explaining:
    """Explains one picture after the other, by graphs if that is wished.

    Args:
        model: which model.
        wishes: what to explain and how.
    """

    def __init__(self, model: Model, wishes: Wishes) -> None:
        self._model = model
        self._wishes = wishes
        self._explainer: relprop.Explainer | None = None
        self._first: tuple[torch.Tensor, Any] | None = None

    def __call__(self, x: torch.Tensor, target: Any) -> Explanation:
        """Explain a picture as the model takes it."""
        if self._explainer is None:
            model, wishes = self._model, self._wishes
            self._explainer = relprop.Explainer(model.module, rules=wishes.rules, bounds=model.bounds)
            if wishes.compile:
                self._explainer = self._explainer.compile(x, target=target)
        explanation = self._explainer(x, target=target)
        self._first = self._first or (x, target)
        return explanation

    def profile(self) -> Profile | None:
        """Explain the first picture again, and say where the time goes; None if there is none."""
        explainer, first = self._explainer, self._first
        if explainer is None or first is None:
            return None
        x, target = first
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they have been told
            return profiled(
                lambda: explainer(x, target=target), None if self._wishes.compile else self._model.module
            )


def explain_picture(
    model: Model, picture: Path, heatmap: Path, wishes: Wishes, notes: list[str], explaining: Explaining
) -> str:
    """Write the heatmap of one picture and say in a line, or one for each class, what was found.

    Args:
        model: which model.
        picture: the file to explain.
        heatmap: the file to write.
        wishes: what to explain, and how to show it.
        notes: warnings are added to it.
        explaining: computes explanations.

    Raises:
        InputError: the picture, or what the model says of it, cannot be explained.
        ModelError: the model fails, or has another number of classes than there are names.
        FileError: the picture cannot be read, or the heatmap not be written.
    """
    refuse_to_replace_others([heatmap])
    prepared = model.prepare(read_picture(picture), str(picture))
    found = answers(output_of(model, prepared.x), model)
    if wishes.target is None:
        chosen = found[: wishes.top]
    else:
        chosen = [answer_for(class_named(wishes.target, model), found, model)]
    explained = {}
    said: dict[str, list[str]] = {}
    for answer in chosen:
        with warnings.catch_warnings(record=True) as caught, errors_of(model, prepared.x, noted=True):
            warnings.simplefilter("always")
            explained[answer] = explaining(prepared.x, answer.target)
        for warning in caught:
            said.setdefault(at_the_shell(warning.message), []).append(answer.title)
    for message, titles in said.items():
        of = f" ({', '.join(dict.fromkeys(titles))})" if len(chosen) > 1 else ""
        notes.append(f"warning: {picture}{of}: {message}")
    pixels, about = _drawn(model, prepared, explained, wishes.view)
    save_png(heatmap, pixels, about | {"Predicted class": found[0].name or str(found[0].index)})
    return _lines(picture, heatmap, found[0], explained)


def _drawn(
    model: Model, prepared: Prepared, explained: dict[Answer, Explanation], view: str
) -> tuple[Pixels, dict[str, str]]:
    """Draw the picture and the relevance of each class, and say for the file's metadata what is drawn."""
    shown = {
        _unique(answer, explained): dataclasses.replace(
            explanation, inputs={"pixels": _shown(prepared, explanation)}
        )
        for answer, explanation in explained.items()
    }
    plot = compare(shown, prepared.picture, beside=view == "heatmap", shared=True, model=model.name)
    pixels, about = plot.pixels, dict(plot.metadata)
    if len(explained) == 1:
        answer, explanation = next(iter(explained.items()))
        about = explanation.described(model.name) | {
            "Title": f"Relevance of the pixels for {_title(answer)}",
            "Class": answer.name or str(answer.index),
            "Target": answer.line,
        }
        if model.digits and view == "heatmap":
            pixels = _digit(prepared, _shown(prepared, explanation))
    return pixels, about | {"Weights": model.weights}


def _title(answer: Answer) -> str:
    return f"class {answer.name or answer.index}"


def _unique(answer: Answer, explained: dict[Answer, Explanation]) -> str:
    """Label a class, with its number where another one has the same label."""
    same = [other for other in explained if other.label == answer.label]
    return answer.label if len(same) == 1 else f"{answer.label} ({answer.index})"


def _shown(prepared: Prepared, explanation: Explanation) -> torch.Tensor:
    return prepared.shown(explanation.relevance)


def _digit(prepared: Prepared, relevance: torch.Tensor) -> Pixels:
    """Set a digit and its relevance side by side, in the tutorial's colours."""
    levels = 2 * (prepared.picture[None, ..., 0] / 255) - 1
    return np.hstack(
        [
            mosaic(levels, "grey", enlarge=ENLARGE, border=1, rescale=False),
            mosaic(relevance, "heatmap", enlarge=ENLARGE, border=1),
        ]
    )


def _lines(picture: Path, heatmap: Path, best: Answer, explained: dict[Answer, Explanation]) -> str:
    """Say what the model sees and what each explanation found."""
    lines = []
    for answer, explanation in explained.items():
        line = answer.line if answer is best else f"explained {answer.line}"
        lines.append(f"{line}; sum of relevance {_shared_out(explanation)} ({explanation.preset})")
    first = f"{best.line}; " if best not in explained else ""
    lines[0] = f"{picture}: {first}{lines[0]}"
    lines[-1] = f"{lines[-1]}; {heatmap}"
    return "\n  ".join(lines)


def _shared_out(explanation: Explanation) -> str:
    """Say how much relevance arrived, what was absorbed, and that it was, where that is most of it."""
    assert isinstance(explanation.relevance, torch.Tensor)
    total, seed = float(explanation.relevance.sum()), float(explanation.ledger.seed[0])
    sinks = {name: float(amount[0]) for name, amount in explanation.ledger.absorbed.items()}
    kept = ", ".join(f"{name} {amount:.2f}" for name, amount in sinks.items() if abs(amount) >= 0.005)
    arrived = f"{round(total, 2) + 0:.2f}"
    if not kept:
        return arrived
    # A plain gradient absorbs nothing: it does not conserve, and says so.
    if abs(seed - total) <= abs(seed) / 2 or "not conserved" in sinks:
        return f"{arrived}, {kept}"
    return f"{arrived}; the rest was absorbed on the way (docs/ledger.md): {kept}"
