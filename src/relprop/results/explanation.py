"""The result of an explanation."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from relprop.calls.site import Applied
from relprop.errors import InputError
from relprop.files import VERSION
from relprop.results.ledger import Ledger
from relprop.results.store import load_record, save_record, text_of

if TYPE_CHECKING:
    from relprop.view.sheet import Plot

TOLD = 64
"""Of how many samples the metadata of a file tell."""


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
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        save_record(path, fields, self.described(model))

    @staticmethod
    def load(path: Path | str) -> "Explanation":
        """Read a `.safetensors` file that `save` wrote: see `relprop.load_explanation`."""
        return load_explanation(path)

    def described(self, model: str | None = None, samples: Sequence[int] | None = None) -> dict[str, str]:
        """Say in words what this explains, for the metadata of files.

        Args:
            model: its name, if it has one.
            samples: of which samples to tell target, score and sum of relevance, by number; otherwise of all,
                but at most `TOLD`.
        """
        target = self.target
        classes = isinstance(target, Tensor) and not target.is_floating_point()
        goal = _listed(target, samples) if classes else text_of(target)
        kind = ("classes " if "," in goal else "class ") if classes else ""
        # Of outputs of the model this goes without saying.
        measure = f" ({self.measure})" if self.measure != "score" else ""
        about = {
            "Title": f"Relevance of the input for {kind}{goal}{measure}",
            "Software": f"relprop {VERSION}",
            "Model": model or "",
            "Rules": self.preset,
            "Applied rules": "\n".join(map(str, self.rules)),
            "Target": goal,
            "Score": _listed(self.score, samples),
            "Sum of relevance": _listed(self.ledger.inputs, samples),
            "Ledger closes to": f"{float(self.ledger.gap.max()):.1e}",
        }
        return {key: text for key, text in about.items() if text}

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
        return text_of(value)
    # Classes are whole numbers, of any size.
    shown = [str(v) if isinstance(v, int) else f"{v:.4g}" for v in value.tolist()[:4]]
    return f"[{', '.join(shown)}{', ...' if len(value) > 4 else ''}]"


def alone(relevance: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """The relevance of a single input itself; that of several by name."""
    return next(iter(relevance.values())) if len(relevance) == 1 else relevance


def load_explanation(path: Path | str) -> Explanation:
    """Read an explanation that `Explanation.save` wrote to a safetensors file. Nothing in it is executed.

    Returns:
        What was saved, its tensors equal to the last bit and on the CPU; rules are `Applied` with the rule as
        text.

    Raises:
        FileError: the file is missing, damaged, or no explanation, or a later version wrote it.
    """
    return load_record(path, lambda **fields: _checked(Explanation(**fields)))


def _checked(explanation: Explanation) -> Explanation:
    """Refuse fields of other kinds than they should have."""
    relevance = explanation.relevance
    parts = relevance.values() if isinstance(relevance, dict) else [relevance]
    right = (
        all(isinstance(R, Tensor) for R in parts)
        and isinstance(explanation.score, Tensor)
        and isinstance(explanation.ledger, Ledger)
        and isinstance(explanation.preset, str)
        and isinstance(explanation.measure, str)
        and isinstance(explanation.rules, tuple)
        and all(isinstance(applied, Applied) for applied in explanation.rules)
    )
    if not right:
        raise ValueError("fields of another kind")
    return explanation


def _listed(values: Tensor, samples: Sequence[int] | None) -> str:
    numbers = values.reshape(-1).tolist()
    chosen = [numbers[sample] for sample in samples] if samples is not None else numbers[:TOLD]
    more = f", ... ({len(numbers)} in all)" if samples is None and len(numbers) > TOLD else ""
    return ", ".join(str(n) if isinstance(n, int) else f"{n:.6g}" for n in chosen) + more
