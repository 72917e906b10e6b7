"""One picture explained, and lines that say what was found."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import relprop
from relprop.cli.words import VIEWS
from relprop.cli.work.answers import Answer, answer_for, answers, class_named
from relprop.cli.work.profile import Profile, profiled
from relprop.errors import InputError, at_the_shell
from relprop.models import Model, Prepared, errors_of, output_of
from relprop.results.explanation import Explanation
from relprop.view.picture import read_picture

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


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found of one picture.

    Attributes:
        picture: the file.
        prepared: the picture as the model sees it.
        best: the class that the model sees in it.
        explained: the explanation of each class that was asked for.
        said: warnings, and the classes that each is about.
    """

    picture: Path
    prepared: Prepared
    best: Answer
    explained: Mapping[Answer, Explanation]
    said: Mapping[str, list[str]]

    @property
    def pixels(self) -> dict[str, Explanation]:
        """The explanations, by what is written above each, with the relevance of the pixels shown alone."""
        return {
            self._title(answer): replace(explanation, inputs={"pixels": self.relevance(explanation)})
            for answer, explanation in self.explained.items()
        }

    def relevance(self, explanation: Explanation) -> torch.Tensor:
        """Return the relevance of the pixels that are part of the picture."""
        return self.prepared.shown(explanation.relevance)

    def notes(self, answer: Answer) -> tuple[str, ...]:
        """The warnings about a class."""
        return tuple(message for message, titles in self.said.items() if answer.title in titles)

    @property
    def warnings(self) -> list[str]:
        """The warnings as lines for the terminal. If there are several classes, they are named."""
        several = len(self.explained) > 1
        named = {message: f" ({', '.join(dict.fromkeys(titles))})" for message, titles in self.said.items()}
        return [f"warning: {self.picture}{of if several else ''}: {message}" for message, of in named.items()]

    def lines(self, heatmap: Path | None) -> str:
        """Say what the model sees, what each explanation found and, if it was drawn, where."""
        lines = []
        for answer, explanation in self.explained.items():
            line = answer.line if answer is self.best else f"explained {answer.line}"
            lines.append(f"{line}; sum of relevance {_shared_out(explanation)} ({explanation.preset})")
        first = f"{self.best.line}; " if self.best not in self.explained else ""
        lines[0] = f"{self.picture}: {first}{lines[0]}"
        if heatmap is not None:
            lines[-1] = f"{lines[-1]}; {heatmap}"
        return "\n  ".join(lines)

    def _title(self, answer: Answer) -> str:
        """Label a class, with its number where another one has the same label."""
        same = [other for other in self.explained if other.label == answer.label]
        return answer.label if len(same) == 1 else f"{answer.label} ({answer.index})"


def explain_picture(model: Model, picture: Path, wishes: Wishes, explaining: Explaining) -> Finding:
    """Explain the classes of one picture that are asked for.

    Args:
        model: which model.
        picture: the file to explain.
        wishes: what to explain.
        explaining: computes explanations.

    Raises:
        InputError: the picture, or what the model says of it, cannot be explained.
        ModelError: the model fails, or has another number of classes than there are names.
        FileError: the picture cannot be read.
    """
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
    return Finding(picture, prepared, found[0], explained, said)


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
