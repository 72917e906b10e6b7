"""What a page says of an explanation, in words: title, target, prediction, caption and warnings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from relprop.pages.glossary import ARRIVED
from relprop.pages.look import Look
from relprop.pages.page import number
from relprop.rules.doubts import relevance_of_negative, unbalanced
from relprop.view.subject import Explained, relevance_of

MOST_NAMES = 4
"""The title names so many explanations at most."""


class Amounts(Protocol):
    """A ledger, as far as pages show it: see `relprop.results.ledger.Ledger`."""

    @property
    def mixed(self) -> bool:
        """Whether some amounts belong to the batch as a whole."""

    @property
    def gap(self) -> torch.Tensor:
        """How far each sample is from balancing, relative to its largest amount."""

    def rows(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Return names and amounts: "seed", "inputs", each sink."""


class Accounted(Explained, Protocol):
    """An explanation, as far as pages show it: see `relprop.results.explanation.Explanation`."""

    @property
    def output(self) -> Any:
        """The model's output."""

    @property
    def preset(self) -> str:
        """The name of the rules."""

    @property
    def rules(self) -> Sequence[Any]:
        """The rules applied, one for each operation."""

    @property
    def ledger(self) -> Amounts:
        """Where relevance went."""


@dataclass(frozen=True, kw_only=True)
class ToldOfMap:
    """What a page tells of one explanation of a sample.

    Attributes:
        target: what is explained, in words: "class 3" or the name of a class.
        aim: what positive relevance speaks for, in words: the class, or "a larger score".
        notes: warnings, in sentences.
        arrived: what the inputs' part of the ledger is, in sentences.
    """

    target: str
    aim: str
    notes: tuple[str, ...] = ()
    arrived: str = ARRIVED


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a page tells of one sample.

    Attributes:
        number: the number that the address of the page keeps, as in "#3".
        label: a text that names the sample.
        caption: a line below its thumbnail.
        maps: what is told of each explanation, by its name.
        facts: what else is known, in pairs of name and text.
        differs: whether the model predicts something else than is right.
    """

    number: int
    label: str
    caption: str
    maps: Mapping[str, ToldOfMap]
    facts: tuple[tuple[str, str], ...] = ()
    differs: bool = False


def title_of(given: Mapping[str, Accounted], look: Look) -> str:
    """Return a title that says what is explained."""
    first = next(iter(given.values()))
    who = look.model or "the model"
    samples = range(len(first.score)) if look.samples is None else look.samples
    of = f" ({' '.join(shown)})" if (shown := _shown(first, look)) else ""
    if len(given) > 1:
        named = ", ".join(given) if len(given) <= MOST_NAMES else f"{len(given)} explanations"
        return f"What {who} looks at{of}: {named}"
    targets = {target_of(first, sample, look) for sample in samples}
    if len(targets) > 1:
        return f"What {who} looks at, in {len(samples)} samples{of}"
    if _is_class(first, look):
        return f"What makes {who} say {targets.pop()}?{of}"
    return f"What {who} looks at{of}"


def _shown(explanation: Accounted, look: Look) -> tuple[str, str] | None:
    """Return "input" or "module" and the name, if a page shows one of several inputs or a recorded module."""
    _, name = relevance_of(explanation, look.of, look.call)
    return None if name is None else ("input" if name in explanation.inputs else "module", name)


def _arrived(explanation: Accounted, look: Look) -> str:
    """Say what the inputs' part of the ledger is, beside what the map shows."""
    match _shown(explanation, look):
        case ("input", name):
            names = ", ".join(explanation.inputs)
            return f"Inputs: what has arrived at all inputs together: {names}. This map shows {name} alone."
        case ("module", name):
            return (
                "Inputs: what has arrived at the model's input. This map shows relevance on its way there, "
                f"at the output of module {name}."
            )
    return ARRIVED


def target_of(explanation: Accounted, sample: int, look: Look) -> str:
    """Say what is explained of a sample: a class by its name, or another target in words."""
    if _is_class(explanation, look):
        return look.class_name(int(explanation.target[sample]))
    if isinstance(explanation.target, torch.Tensor):
        return "the only output"
    return explanation.described(None, [sample])["Target"]


def aim_of(explanation: Accounted, sample: int, look: Look) -> str:
    """Say what positive relevance speaks for."""
    return target_of(explanation, sample, look) if _is_class(explanation, look) else "a larger score"


def _is_class(explanation: Accounted, look: Look) -> bool:
    """Whether classes are explained, and not the only output of a model, such as that of a regression."""
    target = explanation.target
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.dim() != 1:
        return False
    return not _is_only_output(explanation) or look.classes is not None


def _is_only_output(explanation: Accounted) -> bool:
    output = explanation.output
    return isinstance(output, torch.Tensor) and (output.dim() == 1 or output.shape[1] == 1)


def _label(sample: int, labels: Sequence[Any] | None, count: int) -> str:
    """Return a text that names a sample; "" for the only one."""
    if labels is not None:
        return str(labels[sample])
    return f"sample {sample}" if count > 1 else ""


def classes_of(given: Mapping[str, Accounted], count: int) -> int | None:
    """Return the number of classes; None where the outputs are not those of a classifier."""
    output = next(iter(given.values())).output
    if not isinstance(output, torch.Tensor) or output.dim() != 2 or len(output) != count:
        return None
    return output.shape[1] if output.shape[1] > 1 and output.is_floating_point() else None


def _predicted(given: Mapping[str, Accounted], sample: int, count: int) -> int | None:
    """Return the class with the largest output, of a classifier."""
    if classes_of(given, count) is None:
        return None
    return int(next(iter(given.values())).output[sample].argmax())


def _caption(given: Mapping[str, Accounted], sample: int, predicted: int | None, look: Look) -> str:
    """Return what is explained, its score and, if it is another class, what the model predicts."""
    first = next(iter(given.values()))
    target, score = target_of(first, sample, look), f"{first.measure} {number(float(first.score[sample]))}"
    said = f"{target}, {score}" if len(given) == 1 else ""
    if predicted is None or look.class_name(predicted) == target:
        return said
    return f"{said}; predicted {look.class_name(predicted)}".removeprefix("; ")


def told_of(
    given: Mapping[str, Accounted], sample: int, look: Look, labels: Sequence[Any] | None, truth: int | None
) -> Told:
    """Say of a sample what its explanations know.

    Args:
        given: the explanations, by name.
        sample: its number.
        look: options.
        labels: a text for each sample.
        truth: its right class.
    """
    count = len(next(iter(given.values())).score)
    predicted = _predicted(given, sample, count)
    return Told(
        number=sample,
        label=_label(sample, labels, count),
        caption=_caption(given, sample, predicted, look),
        maps={
            name: ToldOfMap(
                target=target_of(explanation, sample, look),
                aim=aim_of(explanation, sample, look),
                notes=tuple(_notes(explanation, sample)),
                arrived=_arrived(explanation, look),
            )
            for name, explanation in given.items()
        },
        facts=tuple(_facts(given, predicted, truth, look)),
        differs=truth is not None and predicted is not None and truth != predicted,
    )


def _facts(
    given: Mapping[str, Accounted], predicted: int | None, truth: int | None, look: Look
) -> Iterator[tuple[str, str]]:
    if predicted is not None:
        yield "Predicted", look.class_name(predicted)
    if truth is not None:
        yield "Label", look.class_name(truth)
    if shown := _shown(next(iter(given.values())), look):
        kind, name = shown
        yield kind.title(), name
    if any(explanation.ledger.mixed for explanation in given.values()):
        yield "Ledger", "of all samples together: the model mixes them"


def _notes(explanation: Accounted, sample: int) -> Iterator[str]:
    """Say what makes an explanation doubtful, as it is told when it is computed."""
    of_one_output = isinstance(explanation.target, torch.Tensor) and explanation.measure == "score"
    if of_one_output and float(explanation.score[sample]) < 0:
        what = "output" if _is_only_output(explanation) else "score"
        yield f"the explained score is negative. {relevance_of_negative(what)}"
    dtype = next(iter(explanation.inputs.values())).dtype
    told = unbalanced(float(explanation.ledger.gap[sample]), dtype)
    if told:
        yield f"{told}."
