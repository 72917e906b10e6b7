"""The result of explaining a text: its tokens and their relevance."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.files import path_of, write_whole
from relprop.results.explanation import Explanation, as_numpy, require_fields
from relprop.results.named import device_named
from relprop.results.store import load_record, save_record
from relprop.rules.book import cited
from relprop.text.answers import Answer
from relprop.text.html import to_fragment, to_html
from relprop.text.merging import merge, sentence_places, span_places, turn_places, word_places
from relprop.text.summaries import TextSummaries
from relprop.text.terminal import to_terminal
from relprop.text.tokens import Token

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console


@dataclass(frozen=True, eq=False)
class TextExplanation(TextSummaries):
    """Relevance of a text's tokens for a model's answer. Notebooks show it as coloured text.

    Attributes:
        explanations: the explanation of each answer, with its ledger.
    """

    explanations: tuple[Explanation, ...] = ()

    def __len__(self) -> int:
        return len(self.pieces)

    def numpy(self) -> "np.ndarray[Any, Any]":
        """`relevance` as a NumPy array. Half precision becomes float32."""
        return as_numpy(self.relevance)

    def to(self, device: torch.device | str) -> "TextExplanation":
        """The explanation with all of its tensors on a device.

        Raises:
            InputError: there is no such device.
        """
        device = device_named(device, f"explanation.to({device!r})")
        explanations = tuple(explanation.to(device) for explanation in self.explanations)
        return replace(self, relevance=self.relevance.to(device), explanations=explanations)

    def cite(self) -> str:
        """BibTeX entries of the papers that the rules come from, and of the preset, to be cited."""
        return cited(self.rules, [a.rule for explanation in self.explanations for a in explanation.rules])

    def words(self) -> "TextExplanation":
        """Return the explanation with tokens merged into words, and their relevance summed.

        A word ends at white space, or before that if the tokenizer says so. Generated tokens are not merged,
        since each has an answer of its own.

        Raises:
            InputError: tokens are merged into sentences or turns already.
        """
        return merge(self, word_places(self), "word")

    def sentences(self) -> "TextExplanation":
        """Return the explanation with tokens merged into sentences, and their relevance summed.

        A sentence ends with ".", "!", "?" or "…" before white space, or with a line break. Special tokens
        stay by themselves, and generated tokens are not merged.

        Raises:
            InputError: tokens are merged into turns already.
        """
        return merge(self, sentence_places(self), "sentence")

    def turns(self) -> "TextExplanation":
        """Return the explanation with tokens merged into the turns of a chat, and their relevance summed.

        A turn begins with the special token of the model's template, such as "<|im_start|>" or "[INST]", or
        with a line that begins with a role, such as "User:". Generated tokens are not merged.

        Raises:
            InputError: there is no sign of a turn in the text.
        """
        return merge(self, turn_places(self), "turn")

    def merge(self, spans: Sequence[tuple[int, int]]) -> "TextExplanation":
        """Return the explanation with the tokens of each span merged, and their relevance summed.

        Args:
            spans: the numbers of the first token and of the one after the last, in the order of the text.
                Tokens between spans stay by themselves.

        Raises:
            InputError: spans overlap, are beyond the text, or are no whole numbers.
        """
        return merge(self, span_places(spans, len(self.pieces)), "part")

    def print(self, console: "Console | None" = None) -> None:
        """Print the coloured text to the terminal or, if the terminal has no colours, a table."""
        to_terminal(self, console)

    def html(self) -> str:
        """Return a page of HTML that needs no other file and no network."""
        return to_html(self)

    def as_data(self) -> dict[str, Any]:
        """Return everything as numbers, texts, lists and dicts. Numbers that are not finite become None."""
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
        """Return `as_data` as JSON."""
        return json.dumps(self.as_data(), ensure_ascii=False, indent=2, allow_nan=False)

    def save(self, path: Path | str) -> None:
        """Write a file, whole or not at all. The suffix decides what it has.

        `.html` has the page, `.json` the data (see `as_data`), and `.safetensors` everything.
        `TextExplanation.load` reads a `.safetensors` file.

        Raises:
            InputError: the file has another suffix.
            FileError: the file cannot be written.
        """
        suffix = path_of(path, "explanation.save").suffix.lower()
        if suffix == ".safetensors":
            about = {"Title": f"Relevance of the text for {self.answers[0].target}", "Model": self.model}
            save_record(path, self, about, _PARTS)
            return
        if suffix not in (".html", ".json"):
            raise InputError(
                f"explanation.save({str(path)!r}): give a name that ends in .html, for a page, in .json, for "
                "programs, or in .safetensors, for everything. Figures are saved by "
                "explanation.bars().save('x.pdf') and explanation.waterfall().save('x.pdf')."
            )
        # A lone surrogate, such as that of a path in another encoding, cannot be written in UTF-8.
        content = self.html() if suffix == ".html" else self.to_json() + "\n"
        write_whole(Path(path), content.encode("utf-8", "replace"))

    @staticmethod
    def load(path: Path | str) -> "TextExplanation":
        """Read a `.safetensors` file that `save` wrote. Nothing in it is executed.

        Raises:
            FileError: the file is missing, damaged or not of an explained text, or another version wrote it.
        """
        return load_record(path, TextExplanation, _require_fields, _PARTS)

    def _repr_html_(self) -> str:
        return to_fragment(self)

    def __repr__(self) -> str:
        more = f" and {len(self.answers) - 1} more" if len(self.answers) > 1 else ""
        return f"TextExplanation({self.model}: {self.answers[0].line}{more}; {len(self.pieces)} tokens)"


_PARTS = (Answer, Token, Explanation)
"""Classes whose objects are stored with an explanation of a text."""


def _require_fields(explanation: TextExplanation) -> None:
    right = (
        isinstance(explanation.relevance, Tensor)
        and all(isinstance(piece, Token) for piece in explanation.pieces)
        and all(isinstance(answer, Answer) for answer in explanation.answers)
        and explanation.rows.shape == (len(explanation.answers), len(explanation.pieces))
        and isinstance(explanation.rules, str)
        and isinstance(explanation.unit, str)
        and all(isinstance(answer.score, float) for answer in explanation.answers)
        and all(isinstance(answer.absorbed, dict) for answer in explanation.answers)
        and all(answer.place in (None, *range(len(explanation))) for answer in explanation.answers)
        and all(isinstance(each, Explanation) for each in explanation.explanations)
    )
    if not right:
        raise ValueError("fields of another kind")
    for each in explanation.explanations:
        require_fields(each)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
