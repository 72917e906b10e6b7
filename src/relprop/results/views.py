"""How an explanation is drawn: as a plot, on axes, as a page and in notebooks."""

import dataclasses
from typing import TYPE_CHECKING, Any, overload

from relprop.results.summaries import Summaries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relprop.view.sheet import Plot


class Views(Summaries):
    """The part of `Explanation` that draws. What it draws with is loaded only by those who draw."""

    @overload
    def plot(self, picture: Any = None, *, ax: None = None, **options: Any) -> "Plot": ...

    @overload
    def plot(self, picture: Any = None, *, ax: "Axes", **options: Any) -> "Axes": ...

    def plot(self, picture: Any = None, *, ax: "Axes | None" = None, **options: Any) -> "Plot | Axes":
        """Draw a heatmap of each sample or, with a picture, relevance over it. Notebooks show the plot.

        Args:
            picture: the picture that the model saw: its input, or Pillow images, arrays, names of files.
            ax: axes of matplotlib, on which one sample is drawn (`sample=0`). They are returned.
            options: drawing options, such as percentile=99.5 or channels="norm": see
                `relprop.view.options.Options` and, for axes, `relprop.figures.options.Layout`.

        Raises:
            InputError: relevance that cannot be drawn, an option without meaning, a picture that does not
                fit, or no axes.
            FileError: a picture that cannot be read.
        """
        drawn = with_samples(self)
        if ax is not None:
            from relprop.figures.samples import on_axes  # matplotlib is loaded only by those who draw

            return on_axes(drawn, ax, picture, options)
        from relprop.view.plot import plot  # Pillow is loaded only by those who draw

        return plot(drawn, picture, **options)

    def to_html(self, picture: Any = None, **options: Any) -> str:
        """Return a page on which every value can be read. It needs no other file and no network.

        Args:
            picture: as for `plot`.
            options: such as labels=, classes= and truth=: see `relprop.pages.look.Look`.

        Raises:
            InputError: relevance that a page cannot show, an option without meaning, a picture that does not
            fit, more data than a page should have. FileError: a picture that cannot be read.
        """
        from relprop.pages.pictures import to_html  # as above

        return to_html(with_samples(self), picture, **options)

    def _repr_html_(self) -> str:
        from relprop.pages.fragment import for_notebook  # as above

        return for_notebook(with_samples(self))


def with_samples(explanation: Any) -> Any:
    """Return an explanation with an input without samples as one sample, as it is drawn."""
    if len(explanation) != 1:
        return explanation
    inputs = {name: R if len(R) == 1 else R[None] for name, R in explanation.inputs.items()}
    return dataclasses.replace(explanation, inputs=inputs)
