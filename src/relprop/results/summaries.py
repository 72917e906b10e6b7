"""What an explanation says in short: its largest entries, sums over parts, and where the score came from."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, overload

import torch

from relprop.errors import Call
from relprop.results.largest import Largest, largest_of
from relprop.results.ledger import Ledger
from relprop.results.parts import Parts
from relprop.results.segments import places_of
from relprop.results.waterfall import in_samples, steps_of
from relprop.view.arrays import as_array, require_finite
from relprop.view.entries import feature_names, require_sample
from relprop.view.options import Options
from relprop.view.subject import Explained, described_as, labels_of, relevance_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relprop.figures.figure import Figure


class Accounted(Explained, Protocol):
    """An explanation with a ledger: see `relprop.results.explanation.Explanation`."""

    @property
    def ledger(self) -> Ledger:
        """The amounts of inputs and sinks."""


class Summaries:
    """The part of `Explanation` that is about few numbers instead of tensors."""

    def top(
        self: Accounted,
        k: int = 10,
        sample: int = 0,
        *,
        of: str | None = None,
        channels: str | None = "sum",
        features: Sequence[str] | None = None,
        values: Any = None,
    ) -> Largest:
        """Return the k entries with the largest relevance by size. Printing the result prints a table.

        Entries are the pixels of an image, the steps of a signal or the features of a table.

        Args:
            k: how many.
            sample: number of the sample.
            of: the input, if there are several, or the recorded module, by name.
            channels: how the channels of an image or signal become one value, as for `plot`; None if each is
                an entry of its own.
            features: names of the features of a table.
            values: the input that the model saw, of all samples or of this one, to be listed, too.

        Raises:
            InputError: there is no such sample, input or reduction, `k` is less than 1, relevance is NaN, or
                names or values do not fit.
        """
        R, _ = relevance_of(self, of, Call("explanation.top"))
        R, whole = in_samples(R, len(self.score), "explanation.top")
        sample = require_sample(sample, len(R), "explanation.top")
        score = float(self.score[sample])
        return largest_of(
            R,
            sample,
            k,
            score,
            self.measure,
            channels=None if whole else channels,
            features=features,
            values=values,
        )

    def aggregate(
        self: Accounted,
        segments: Any,
        names: Any = None,
        *,
        of: str | None = None,
        features: Sequence[str] | None = None,
    ) -> Parts:
        """Return the sums of relevance over parts of the input, such as superpixels.

        The sums of the parts and of the rest are the relevance of the input.

        Args:
            segments: a map of integers, such as scikit-image's `slic` gives it: (H, W), (N, H, W) or of the
                input's shape, negative where there is no part; a boolean mask of such a shape; parts by name,
                `{"cat": mask}`; spans of a signal, `[(0, 100), (100, 250)]`, alone or by name; groups of
                columns of a table, `{"address": [0, 1, 5]}`.
            names: names of the parts in their order, or by the integer of the map.
            of: the input, if there are several, or the recorded module, by name.
            features: names of the columns of a table, by which groups may name them.

        Raises:
            InputError: parts of another shape, that overlap or are empty; names that do not fit; relevance
                that is NaN.
        """
        R, name = relevance_of(self, of, Call("explanation.aggregate"))
        R, whole = in_samples(R, len(self.score), "explanation.aggregate")
        R = R[:, None] if whole else R  # as if it were the only channel
        amounts = torch.from_numpy(as_array(R, "explanation.aggregate", "values"))
        require_finite(amounts.numpy(), "explanation.aggregate")
        columns = feature_names(features, R.shape[-1], "explanation.aggregate")
        told, places = places_of(segments, names, tuple(R.shape), columns)
        sums = torch.zeros(len(R), len(told) + 1, dtype=torch.float64)
        sums.scatter_add_(1, places.reshape(len(R), -1) + 1, amounts.reshape(len(R), -1))
        score = self.score.detach().cpu()
        labels = tuple(labels_of(self, len(score), Options()))
        return Parts(
            told,
            sums[:, 1:],
            sums[:, 0],
            score,
            self.measure,
            places,
            labels,
            partial(_described, self, name),
        )

    @overload
    def waterfall(
        self: Accounted,
        k: int = 10,
        sample: int = 0,
        *,
        ax: None = None,
        features: Sequence[str] | None = None,
        values: Any = None,
        title: str = "",
        width: float | None = None,
    ) -> "Figure": ...

    @overload
    def waterfall(
        self: Accounted,
        k: int = 10,
        sample: int = 0,
        *,
        ax: "Axes",
        features: Sequence[str] | None = None,
        values: Any = None,
        title: str = "",
        width: float | None = None,
    ) -> "Axes": ...

    def waterfall(
        self: Accounted,
        k: int = 10,
        sample: int = 0,
        *,
        ax: "Axes | None" = None,
        features: Sequence[str] | None = None,
        values: Any = None,
        title: str = "",
        width: float | None = None,
    ) -> "Figure | Axes":
        """Draw where a score came from: the largest entries, all others, each sink of the ledger, the score.

        Each bar begins where the one above it ends, so that all amounts add up to the score.

        Args:
            k: how many entries have a bar of their own. Those of several inputs are drawn together.
            sample: number of the sample.
            ax: axes to draw on, in the style of the user.
            features: names of the features of a table.
            values: the table that the model saw, or its row. The values are written beside the names.
            title: text above; by default what is explained, and the score.
            width: of the figure in inches; by default 3.4, or 7 for long names.

        Returns:
            A figure, which notebooks show and `.save("x.pdf")` writes; or the axes, if they were given.

        Raises:
            InputError: no such sample, `k` is less than 1, names or values that do not fit, relevance that is
                NaN, or no axes.
        """
        call = "explanation.waterfall"
        sample = require_sample(sample, len(self.score), call)
        steps = steps_of(self.inputs, self.ledger, sample, k, call, features=features, values=values)
        from relprop.figures.of_bars import Frame  # matplotlib is loaded only by those who draw
        from relprop.figures.waterfall import waterfall

        label, about = labels_of(self, len(self.score), Options())[sample], self.described(None, [sample])
        frame = Frame(call=call, ax=ax, title=title, label=label, width=width, about=about)
        return waterfall(steps, float(self.ledger.seed[sample]), self.measure, frame)


def _described(explained: Explained, name: str | None, sample: int) -> dict[str, str]:
    """Return the description of one sample. Those of all samples would take long."""
    return described_as(explained.described(None, [sample]), name)
