"""The result of an explanation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from relprop.calls.site import Applied
from relprop.errors import InputError
from relprop.ledger import Ledger

if TYPE_CHECKING:
    from relprop.view.sheet import Plot


@dataclass(frozen=True, eq=False)
class Explanation:
    """What made the model decide as it did.

    Attributes:
        relevance: of the input, of its shape and dtype; several inputs give a dict by the name of the
            argument.
        output: what the model returned, detached where it is a tensor.
        target: the explained class of each sample, (samples,) int64; the target itself where it is no class.
        score: the explained score of each sample, (samples,); where relevance started.
        measure: what this score is: "score", an output of the model, or "score difference", "log-odds",
            "weighted sum", "sum over the region".
        preset: name of the rules, or "composite" for the user's own.
        rules: the rules that were used: in order, one for each linear operation.
        ledger: where relevance went; `print(explanation.ledger)`.
        inner: relevance of the outputs of recorded modules, by path: one entry for each call of the module, a
            tensor, or a tuple where it returned several. `explanation["layer3"]` is the entry of its only
            call.
        parameters: relevance of weights by name, of their shape, summed over samples.
    """

    relevance: Tensor | dict[str, Tensor]
    output: Any
    target: Any
    score: Tensor
    preset: str
    rules: tuple[Applied, ...]
    ledger: Ledger
    inner: Mapping[str, Sequence[Tensor | tuple[Tensor, ...]]] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    measure: str = "score"

    def __getitem__(self, path: str) -> Any:
        """Relevance of the output of a recorded module, or of the calls of it if there were several.

        Raises:
            InputError: no module of this path was recorded.
        """
        if path not in self.inner:
            recorded = (
                f"recorded are {', '.join(map(repr, self.inner))}" if self.inner else "nothing is recorded"
            )
            raise InputError(f"explanation[{path!r}]: {recorded}; use explain(..., record=[{path!r}]).")
        calls = self.inner[path]
        return calls[0] if len(calls) == 1 else list(calls)

    def plot(self, picture: Any = None, **options: Any) -> "Plot":
        """Draw a heatmap of each sample or, with a picture, relevance over it. Notebooks show the result.

        Args:
            picture: what the model saw: its input, or Pillow images, arrays, names of files.
            options: how to draw it, such as percentile=99.5 or channels="norm": see
                `relprop.view.options.Options`.

        Raises:
            InputError: relevance that is no picture, an option without meaning, a picture that does not fit.
            FileError: a picture that cannot be read.
        """
        from relprop.view.plot import plot  # Pillow is loaded only by those who draw

        return plot(self, picture, **options)

    def save(
        self, path: Path | str, picture: Any = None, *, model: str | None = None, **options: Any
    ) -> None:
        """Write a file, whole or not at all: as `.png` the plot, as `.safetensors` everything.

        Args:
            path: where to; `relprop.load_explanation` reads a `.safetensors` file.
            picture: for `.png`, see `plot`.
            model: name of the model, told in the file's metadata beside rules, target, score and sums.
            options: for `.png`, see `plot`.

        Raises:
            InputError: another suffix; what `plot` refuses.
            FileError: the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".png":
            self.plot(picture, model=model, **options).save(path)
            return
        if suffix != ".safetensors":
            raise InputError(
                f"explanation.save({str(path)!r}): give a name that ends in .png, for a picture, or in "
                ".safetensors, for everything."
            )
        if picture is not None or options:
            raise InputError(
                f"explanation.save({str(path)!r}): a picture and options of drawing are for .png only; "
                "leave them out."
            )
        from relprop.store import save_explanation

        save_explanation(path, self, model=model)

    @staticmethod
    def load(path: Path | str) -> "Explanation":
        """Read a `.safetensors` file that `save` wrote: see `relprop.load_explanation`."""
        from relprop.store import load_explanation

        return load_explanation(path)

    def __repr__(self) -> str:
        shape = (
            tuple(self.relevance.shape)
            if isinstance(self.relevance, Tensor)
            else {name: tuple(R.shape) for name, R in self.relevance.items()}
        )
        return (
            f"Explanation(relevance of shape {shape}, target {_short(self.target)}, score "
            f"{_short(self.score)}, "
            f"rules {self.preset}: {len(self.rules)} operations, ledger closes to "
            f"{float(self.ledger.gap.max()):.1e})"
        )


def _short(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    # Classes are whole numbers, of any size.
    shown = [str(v) if isinstance(v, int) else f"{v:.4g}" for v in value.tolist()[:4]]
    return f"[{', '.join(shown)}{', ...' if len(value) > 4 else ''}]"


def alone(relevance: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """The relevance of a single input itself; that of several by name."""
    return next(iter(relevance.values())) if len(relevance) == 1 else relevance
