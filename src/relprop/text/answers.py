"""Relevance of a text's tokens for a model's answers: the numbers that pages and terminals show."""

from dataclasses import dataclass, field

from torch import Tensor

from relprop.text.tokens import Token


@dataclass(frozen=True)
class Answer:
    """An answer of the model, which one row of relevance explains.

    Attributes:
        target: the target in words: a label, or a token in quotation marks.
        score: the explained score, from which relevance started.
        measure: the name of the score, as in `Explanation.measure`.
        probability: that of the target among all labels or tokens, or None if it is not one of them.
        place: number of the token that the answer is about: the generated token, the mask, or the token whose
            label or next token is explained; None for the whole text.
        total: sum of the tokens' relevance.
        absorbed: the amounts of the ledger's sinks, by name.
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
        """The answer as a line of text: target, score, probability, sum of relevance, large sinks."""
        share = "" if self.probability is None else f", probability {as_share(self.probability)}"
        kept = "".join(
            f", {name} {amount:.3g}" for name, amount in self.absorbed.items() if _matters(amount, self)
        )
        return (
            f"{self.target}, {self.measure} {self.score:.4g}{share}; sum of relevance {self.total:.4g}{kept}"
        )


@dataclass(frozen=True, eq=False)
class TokenRelevance:
    """Relevance of a text's tokens, or words, with a row for each answer.

    Attributes:
        model: name of the model.
        task: the model's task (see `LanguageModel`).
        rules: name of the rules.
        pieces: the tokens, or words, of the prompt and then of the text that follows it.
        prompt: number of pieces in the prompt; for an encoder and a decoder, of all but the answer.
        relevance: relevance of each token for the answer, (tokens,); for a generation (generated, tokens),
            a row for each generated token, with zeros from this token on. On the CPU, unless it was moved.
        answers: the answer that each row explains.
        unit: what a piece of the prompt is: "token", "word", "sentence", "turn" or "part".
    """

    model: str
    task: str
    rules: str
    pieces: tuple[Token, ...]
    prompt: int
    relevance: Tensor
    answers: tuple[Answer, ...]
    unit: str = field(default="token", kw_only=True)

    @property
    def tokens(self) -> list[str]:
        """The text of each token, with the white space before it."""
        return [piece.text for piece in self.pieces]

    @property
    def rows(self) -> Tensor:
        """Relevance with a row for each answer, (answers, tokens), also where there is only one."""
        return self.relevance if self.relevance.dim() == 2 else self.relevance[None]


def as_share(probability: float) -> str:
    """Return a probability as text with two digits, such as 0.87, 0.004 or 3e-05."""
    return f"{probability:.2f}" if probability >= 0.0995 else f"{probability:.2g}"


def _matters(amount: float, answer: Answer) -> bool:
    """Whether an amount is a thousandth of the score or of the sum of relevance, or more, or NaN."""
    return not abs(amount) < 1e-3 * max(abs(answer.score), abs(answer.total))
