"""What an explanation of a text says in short: the largest tokens or words, and the score in steps."""

from typing import TYPE_CHECKING, Any, overload

from relprop.errors import quoted
from relprop.results.largest import Largest, entries_of
from relprop.results.waterfall import steps
from relprop.text.answers import TokenRelevance
from relprop.view.arrays import as_array, require_finite
from relprop.view.entries import Amounts, require_count, require_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relprop.figures.figure import Figure
    from relprop.figures.of_bars import Frame


class TextSummaries(TokenRelevance):
    """The part of `TextExplanation` that is about few numbers."""

    def top(self, k: int = 10, answer: int = 0) -> Largest:
        """Return the k tokens, or words, sentences and turns, with the largest relevance by size.

        Printing the result prints a table.

        Args:
            k: how many.
            answer: number of the answer; of a generation, that of the generated token.

        Raises:
            InputError: there is no such answer, `k` is less than 1, or relevance is NaN.
        """
        k = require_count(k, "explanation.top")
        amounts = row_of(self, answer, "explanation.top")
        told = self.answers[answer]
        return entries_of(
            amounts, k, told.score, told.measure, what=self.unit, names=names_of(self)[: len(amounts)]
        )

    @overload
    def bars(
        self,
        k: int = 12,
        answer: int = 0,
        *,
        ax: None = None,
        in_order: bool = True,
        title: str = "",
        width: float | None = None,
    ) -> "Figure": ...

    @overload
    def bars(
        self,
        k: int = 12,
        answer: int = 0,
        *,
        ax: "Axes",
        in_order: bool = True,
        title: str = "",
        width: float | None = None,
    ) -> "Axes": ...

    def bars(
        self,
        k: int = 12,
        answer: int = 0,
        *,
        ax: "Axes | None" = None,
        in_order: bool = True,
        title: str = "",
        width: float | None = None,
    ) -> "Figure | Axes":
        """Draw a bar for each of the k largest tokens, words, sentences or turns, and one for all others.

        Args:
            k: how many have a bar of their own.
            answer: number of the answer; of a generation, that of the generated token.
            ax: axes to draw on, in the style of the user.
            in_order: whether they are in the order of the text, and not the largest first.
            title: text above; by default the target and its score.
            width: of the figure in inches; by default 3.4, or 7 for sentences and turns.

        Returns:
            A figure, which notebooks show and `.save("x.pdf")` writes; or the axes, if they were given.

        Raises:
            InputError: no such answer, `k` is less than 1, relevance that is NaN, or no axes.
        """
        k = require_count(k, "explanation.bars")
        amounts = row_of(self, answer, "explanation.bars")
        from relprop.figures.of_bars import ranked_bars  # matplotlib is loaded only by those who draw

        frame = _frame(self, answer, "explanation.bars", ax, title, width)
        return ranked_bars(names_of(self)[: len(amounts)], amounts, k, frame, in_order=in_order)

    @overload
    def waterfall(
        self,
        k: int = 10,
        answer: int = 0,
        *,
        ax: None = None,
        title: str = "",
        width: float | None = None,
    ) -> "Figure": ...

    @overload
    def waterfall(
        self,
        k: int = 10,
        answer: int = 0,
        *,
        ax: "Axes",
        title: str = "",
        width: float | None = None,
    ) -> "Axes": ...

    def waterfall(
        self,
        k: int = 10,
        answer: int = 0,
        *,
        ax: "Axes | None" = None,
        title: str = "",
        width: float | None = None,
    ) -> "Figure | Axes":
        """Draw where the score came from: the largest tokens or words, all others, each sink of the ledger.

        Args:
            k: how many tokens have a bar of their own.
            answer: number of the answer; of a generation, that of the generated token.
            ax: axes to draw on, in the style of the user.
            title: text above; by default the target and its score.
            width: of the figure in inches; by default 3.4, or 7 for sentences and turns.

        Returns:
            A figure; or the axes, if they were given.

        Raises:
            InputError: no such answer, `k` is less than 1, relevance that is NaN, or no axes.
        """
        k = require_count(k, "explanation.waterfall")
        amounts = row_of(self, answer, "explanation.waterfall")
        told = self.answers[answer]
        call, names = "explanation.waterfall", names_of(self)
        found = steps(names.__getitem__, amounts, told.absorbed, told.score, k, call, what=f"{self.unit}s")
        from relprop.figures.waterfall import waterfall  # as above

        return waterfall(found, told.score, told.measure, _frame(self, answer, call, ax, title, width))


def _frame(
    explanation: TokenRelevance, answer: int, call: str, ax: Any, title: str, width: float | None
) -> "Frame":
    """Return what is around bars: above them is the target, with its score."""
    from relprop.figures.of_bars import Frame  # as above

    told = explanation.answers[answer]
    label = f"{told.target}, {told.measure} {told.score:.4g}"
    return Frame(
        call=call,
        ax=ax,
        title=title,
        label=label,
        width=width,
        about=about(explanation, answer),
        literal=True,
    )


def row_of(explanation: TokenRelevance, answer: int, call: str) -> Amounts:
    """Return the relevance of each piece for an answer, float64; of a generation, of those before it.

    Raises:
        InputError: there is no such answer, or relevance is NaN.
    """
    number = require_row(answer, len(explanation.answers), call, "answer")
    amounts = as_array(explanation.rows[number], call, "values")
    require_finite(amounts, call)
    place = explanation.answers[number].place
    # What is generated later is no part of what the model read.
    return amounts[:place] if explanation.relevance.dim() == 2 else amounts


def names_of(explanation: TokenRelevance) -> list[str]:
    """Return the name of each piece: a special token as it is, anything else in quotation marks."""
    return [
        piece.text if piece.special else quoted(piece.text.strip() or piece.text)
        for piece in explanation.pieces
    ]


def about(explanation: TokenRelevance, answer: int) -> dict[str, str]:
    """Return a description in words, for the metadata of files."""
    told = explanation.answers[answer]
    return {
        "Title": f"Relevance of the text for {told.target}",
        "Model": explanation.model,
        "Rules": explanation.rules,
        "Score": f"{told.score:.6g}",
        "Sum of relevance": f"{told.total:.6g}",
    }
