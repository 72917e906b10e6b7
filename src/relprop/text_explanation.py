"""The result of explaining a text: its tokens, and what each of them spoke for."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.explanation import Explanation
from relprop.files import write_whole
from relprop.models.text_tokens import Token, merged

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Answer:
    """What one row of relevance explains.

    Attributes:
        target: in words: a label, or a token in quotation marks.
        score: of it, where relevance started.
        measure: what the score is, as in `Explanation.measure`.
        probability: of the target among all labels or tokens, or None where the target is none of them.
        place: number of the token that this is about: the generated one, the mask, the one whose label or
            following token is explained; None where it is the whole text.
        total: sum of the tokens' relevance.
        absorbed: what the ledger's sinks took, by name.
    """

    target: str
    score: float
    measure: str
    probability: float | None
    place: int | None
    total: float
    absorbed: dict[str, float] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """All of it, for a line of text."""
        share = "" if self.probability is None else f", probability {as_share(self.probability)}"
        kept = "".join(
            f", {name} {amount:.3g}" for name, amount in self.absorbed.items() if _matters(amount, self)
        )
        return (
            f"{self.target}, {self.measure} {self.score:.4g}{share}; sum of relevance {self.total:.4g}{kept}"
        )


@dataclass(frozen=True, eq=False)
class TextExplanation:
    """What in a text made a model say what it says. Shows itself in notebooks.

    Attributes:
        model: its name.
        task: what it is made for (see `LanguageModel`).
        rules: the preset.
        pieces: the tokens, or words, with all that is known of them: the prompt's, then what follows it.
        prompt: how many of them are the prompt's; of an encoder and a decoder, all but what is answered.
        relevance: of each token for the answer, (tokens,); of a generation (generated, tokens), a row for
            each generated token, which has zeros from this token on. On the CPU.
        answers: what each row explains.
        explanations: the explanations behind it, with their ledgers.
    """

    model: str
    task: str
    rules: str
    pieces: tuple[Token, ...]
    prompt: int
    relevance: Tensor
    answers: tuple[Answer, ...]
    explanations: tuple[Explanation, ...] = ()

    @property
    def tokens(self) -> list[str]:
        """Each token as it stands in the text, with the white space before it."""
        return [piece.text for piece in self.pieces]

    @property
    def rows(self) -> Tensor:
        """Relevance with a row for each answer, (answers, tokens), also where there is only one."""
        return self.relevance if self.relevance.dim() == 2 else self.relevance[None]

    @property
    def unit(self) -> str:
        """What the pieces of the prompt are called: "token", or "word" where some are several tokens."""
        return "word" if any(piece.id is None for piece in self.pieces[: self.prompt]) else "token"

    def words(self) -> "TextExplanation":
        """Merge tokens into words: their relevance is summed. A word ends at white space at the latest.

        Generated tokens stay as they are: each has an answer of its own.
        """
        places: list[int] = []
        apart = self.prompt if self.relevance.dim() == 2 else len(self.pieces)
        for number, piece in enumerate(self.pieces):
            same = 0 < number < apart and piece.word == self.pieces[number - 1].word
            same = same and number != self.prompt
            places.append(places[-1] + (not same) if places else 0)
        grouped: list[list[Token]] = [[] for _ in range(places[-1] + 1)]
        for place, piece in zip(places, self.pieces, strict=True):
            grouped[place].append(piece)
        summed = torch.zeros(*self.relevance.shape[:-1], len(grouped), dtype=self.relevance.dtype)
        summed = summed.index_add(-1, torch.tensor(places), self.relevance)
        answers = [
            replace(answer, place=None if answer.place is None else places[answer.place])
            for answer in self.answers
        ]
        prompt = places[self.prompt] if self.prompt < len(places) else len(grouped)
        return replace(
            self,
            pieces=tuple(merged(group) for group in grouped),
            prompt=prompt,
            relevance=summed,
            answers=tuple(answers),
        )

    def print(self, console: "Console | None" = None) -> None:
        """Write it to the terminal: coloured, or, where there are no colours, as a table."""
        from relprop.view.text_terminal import to_terminal

        to_terminal(self, console)

    def html(self) -> str:
        """Write it as a page of HTML that needs nothing from outside."""
        from relprop.view.text import to_html

        return to_html(self)

    def as_data(self) -> dict[str, Any]:
        """Everything as numbers, text, lists and dicts. What is not finite is None."""
        return {
            "model": self.model,
            "task": self.task,
            "rules": self.rules,
            "prompt": self.prompt,
            "tokens": [
                {"text": p.text, "id": p.id, "word": p.word, "special": p.special} for p in self.pieces
            ],
            "answers": [
                {
                    "target": answer.target,
                    "place": answer.place,
                    "score": _finite(answer.score),
                    "measure": answer.measure,
                    "probability": _finite(answer.probability),
                    "sum": _finite(answer.total),
                    "absorbed": {name: _finite(amount) for name, amount in answer.absorbed.items()},
                    "relevance": [_finite(value) for value in row],
                }
                for answer, row in zip(self.answers, self.rows.tolist(), strict=True)
            ],
        }

    def to_json(self) -> str:
        """Write it as JSON: see `as_data`."""
        return json.dumps(self.as_data(), ensure_ascii=False, indent=2, allow_nan=False)

    def save(self, path: Path | str) -> None:
        """Write a file, whole or not at all: `.html`, the page, or `.json`, the data.

        Raises:
            InputError: another suffix.
            FileError: the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in (".html", ".json"):
            raise InputError(
                f"explanation.save({str(path)!r}): give a name that ends in .html, for a page, or in .json, "
                "for programs."
            )
        # A lone surrogate, as of a path in another encoding, has no form in UTF-8.
        content = self.html() if suffix == ".html" else self.to_json() + "\n"
        write_whole(Path(path), content.encode("utf-8", "replace"))

    def _repr_html_(self) -> str:
        from relprop.view.text import to_fragment

        return to_fragment(self)

    def __repr__(self) -> str:
        more = f" and {len(self.answers) - 1} more" if len(self.answers) > 1 else ""
        return f"TextExplanation({self.model}: {self.answers[0].line}{more}; {len(self.pieces)} tokens)"


def as_share(probability: float) -> str:
    """Write a probability to two digits: 0.87, 0.004, 3e-05."""
    return f"{probability:.2f}" if probability >= 0.0995 else f"{probability:.2g}"


def _matters(amount: float, answer: Answer) -> bool:
    """Whether an amount is worth a line of text: a thousandth of the score, or NaN."""
    return not abs(amount) < 1e-3 * max(abs(answer.score), abs(answer.total))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
