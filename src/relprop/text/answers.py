"""Relevance of a text's tokens for what a model says of it: the numbers that pages and terminals show."""

from dataclasses import dataclass, field

from torch import Tensor

from relprop.text.tokens import Token


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
class TokenRelevance:
    """Relevance of a text's tokens, or words, with a row for each answer.

    Attributes:
        model: its name.
        task: what it is made for (see `LanguageModel`).
        rules: the preset.
        pieces: the tokens, or words, with all that is known of them: the prompt's, then what follows it.
        prompt: how many of them are the prompt's; of an encoder and a decoder, all but what is answered.
        relevance: of each token for the answer, (tokens,); of a generation (generated, tokens), a row for
            each generated token, which has zeros from this token on. On the CPU, unless it was moved.
        answers: what each row explains.
    """

    model: str
    task: str
    rules: str
    pieces: tuple[Token, ...]
    prompt: int
    relevance: Tensor
    answers: tuple[Answer, ...]

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


def as_share(probability: float) -> str:
    """Write a probability to two digits: 0.87, 0.004, 3e-05."""
    return f"{probability:.2f}" if probability >= 0.0995 else f"{probability:.2g}"


def _matters(amount: float, answer: Answer) -> bool:
    """Whether an amount is worth a line of text: a thousandth of the score, or NaN."""
    return not abs(amount) < 1e-3 * max(abs(answer.score), abs(answer.total))
