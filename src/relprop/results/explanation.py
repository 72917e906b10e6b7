"""The result of an explanation."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.calls.nested import map_tensors
from relprop.calls.site import Applied
from relprop.errors import Call, InputError
from relprop.files import VERSION, path_of, write_whole
from relprop.results.columns import listed, shortened
from relprop.results.inner import InnerRelevance
from relprop.results.ledger import Ledger
from relprop.results.named import ByName, device_named
from relprop.results.samples import Index, chosen, joined, joined_targets, of_target, same, taken
from relprop.results.store import load_record, save_record, text_of
from relprop.results.views import Views, with_samples
from relprop.rules.book import cited

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Explanation(Views):
    """The relevance of a batch of inputs, with the scores, the rules and the ledger.

    An explanation behaves like a batch: `len(explanation)` is the number of samples, `explanation[2]` and
    `explanation[:8]` are explanations of some samples, and iteration gives one explanation for each sample.

    Attributes:
        inputs: relevance of each explained input, by the name of the model's argument, of the input's shape
            and dtype; of token ids, a floating-point number for each token. Within an argument names are
            written as in Python: "obs.image", "obs['left eye']", "xs[0]". `relevance` is that of the only
            input.
        output: the model's output, with tensors detached.
        target: the explained class of each sample, (samples,) int64; or the target, if it is not a class.
        score: the explained score of each sample, (samples,), from which relevance started.
        measure: the name of the score: "score" for an output of the model, or "score difference",
            "log-odds", "weighted sum", "sum over the region".
        preset: the name of the rules, or "composite" for the user's own.
        rules: the rules that were applied, in order, one for each operation with a rule.
        ledger: the amounts of relevance at inputs and sinks: `print(explanation.ledger)`.
        inner: relevance of the outputs of recorded modules, by path: `explanation.inner["layer3"]`.
        parameters: relevance of weights by name, of the weight's shape, summed over samples.
    """

    inputs: Mapping[str, Tensor]
    output: Any
    target: Any
    score: Tensor
    preset: str
    rules: tuple[Applied, ...]
    ledger: Ledger
    inner: InnerRelevance = field(default_factory=InnerRelevance)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    measure: str = "score"

    def __post_init__(self) -> None:
        for name in ("inputs", "parameters"):
            relevance = getattr(self, name)
            if isinstance(relevance, Mapping):  # and not what a damaged file has there
                object.__setattr__(self, name, ByName(name, relevance))

    @property
    def relevance(self) -> Tensor:
        """Relevance of the only explained input, of its shape and dtype.

        Raises:
            InputError: several inputs were explained; `inputs` has them by name.
        """
        if len(self.inputs) != 1:
            names = ", ".join(self.inputs)
            raise InputError(
                f"explanation.relevance: {len(self.inputs)} inputs were explained, {names}. Take one of "
                f"them, as explanation.inputs[{next(iter(self.inputs))!r}]."
            )
        return next(iter(self.inputs.values()))

    # ---- samples ----

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, samples: Index) -> "Explanation":
        """Return the explanation of some samples, by number, slice, list of numbers, or boolean mask.

        Tensors keep the dimension of samples: `explanation[2].relevance` has the shape (1, ...). In the
        output, a first dimension with as many elements is that of the samples. Relevance of parameters is a
        sum over all samples. So it is left out.

        Raises:
            InputError: there are no such samples, a list or mask selects none, or an input has those of all
                samples in one dimension.
        """
        numbers, count = chosen(samples, len(self)), len(self)
        if count == 1 and numbers.tolist() == [0]:
            return dataclasses.replace(self, parameters={})
        self._require_samples_first(f"explanation[{samples!r}]")
        parts = {name: taken(getattr(self, name), numbers, count) for name in ("inputs", "output", "score")}
        return dataclasses.replace(
            self,
            **parts,
            target=of_target(self.target, numbers, count),
            ledger=self.ledger.of_samples(numbers),
            inner=self.inner.of_samples(numbers),
            parameters={},
        )

    def _require_samples_first(self, call: str) -> None:
        """Refuse inputs whose first dimension is not that of the samples, as ids in bags with offsets.

        Raises:
            InputError: there is such an input.
        """
        for name, R in self.inputs.items():
            if len(R) != len(self) == 1:
                raise InputError(
                    f"{call}: input {name!r} of shape {tuple(R.shape)} has no dimension of samples, because "
                    "it was explained as a whole. Keep such explanations in a list."
                )
            if len(R) != len(self):
                raise InputError(
                    f"{call}: input {name!r} of shape {tuple(R.shape)} has the ids of all {len(self)} "
                    "samples one after the other. Take the relevance of a sample by the offsets that the "
                    f"model got: explanation.inputs[{name!r}][start:end]."
                )

    def __iter__(self) -> Iterator["Explanation"]:
        return (self[number] for number in range(len(self)))

    @staticmethod
    def concatenate(explanations: Iterable["Explanation"]) -> "Explanation":
        """Return the explanations of several batches as one. Relevance of parameters is summed.

        Raises:
            InputError: there are no explanations, or they have different inputs, shapes, rules, targets or
                recorded modules.
        """
        parts = list(explanations) if isinstance(explanations, Iterable) else []
        if not parts or not all(isinstance(part, Explanation) for part in parts):
            raise InputError("Explanation.concatenate: give a list of at least one explanation.")
        for part in parts:
            part._require_samples_first("Explanation.concatenate")
        counts = [len(part) for part in parts]
        same("inputs", [{name: tuple(R.shape[1:]) for name, R in part.inputs.items()} for part in parts])
        same("rules", [(part.preset, sorted(str(rule) for rule in part.rules)) for part in parts])
        named = same("parameters", [sorted(part.parameters) for part in parts])
        device = parts[0].score.device
        return dataclasses.replace(
            parts[0],
            inputs=joined("inputs", [dict(part.inputs) for part in parts], counts),
            output=joined("outputs", [part.output for part in parts], counts),
            target=joined_targets([part.target for part in parts], counts),
            score=joined("scores", [part.score for part in parts], counts),
            ledger=Ledger.concatenate([part.ledger.to(device) for part in parts]),
            inner=InnerRelevance.concatenate([part.inner for part in parts]),
            parameters={
                name: torch.stack([part.parameters[name].to(device) for part in parts]).sum(0)
                for name in named
            },
            measure=same("targets", [part.measure for part in parts]),
        )

    def to(self, device: torch.device | str) -> "Explanation":
        """Return the explanation with its tensors on a device; those within a target stay where they are.

        Raises:
            InputError: there is no such device.
        """
        device = device_named(device, f"explanation.to({device!r})")
        return self.mapped(lambda t: t.to(device))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Explanation":
        """Return the explanation with `function(t)` for each tensor t, but for those within a target."""
        mapped = {
            field.name: map_tensors(function, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in ("rules", "ledger", "inner")
        }
        calls = map_tensors(function, dict(self.inner.calls))
        return dataclasses.replace(
            self,
            **mapped,
            ledger=self.ledger.mapped(function),
            inner=dataclasses.replace(self.inner, calls=calls),
        )

    def numpy(self) -> "np.ndarray[Any, Any]":
        """Return `relevance` as a NumPy array, on the CPU; half precision becomes float32.

        Raises:
            InputError: several inputs were explained.
        """
        return as_numpy(self.relevance)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        array = self.numpy() if dtype is None else self.numpy().astype(dtype)
        return array.copy() if copy else array

    # ---- told ----

    def cite(self) -> str:
        """Return BibTeX entries of the papers to cite: the sources of the rules and of the preset."""
        return cited(self.preset, [applied.rule for applied in self.rules])

    def save(
        self, path: Path | str, picture: Any = None, *, model: str | None = None, **options: Any
    ) -> None:
        """Write a file, whole or not at all. The suffix decides what it has.

        `.png` has the plot, `.svg` and `.pdf` a figure for papers, drawn by matplotlib, `.html` the page that
        `to_html` returns, and `.safetensors` everything.

        Args:
            path: name of the file. `relprop.load_explanation` reads a `.safetensors` file.
            picture: for pictures and pages, as for `plot`.
            model: name of the model. The file has it beside rules, target, score and sums.
            options: for pictures, as for `plot`; for `.html`, as for `to_html`.

        Raises:
            InputError: another suffix, a picture or options for a `.safetensors` file, a tensor that cannot
                be stored, or a case that `plot` or `to_html` refuses.
            FileError: the file cannot be written.
        """
        suffix = path_of(path, "explanation.save").suffix.lower()
        if suffix == ".png":
            self.plot(picture, model=model, **options).save(path)
            return
        if suffix in (".svg", ".pdf"):
            from relprop.figures.samples import figure_of  # matplotlib is loaded only by those who draw

            figure_of(with_samples(self), picture, {"model": model, **options}).save(path)
            return
        if suffix == ".html":
            from relprop.pages.pictures import to_html  # as above

            call = Call("explanation.save", repr(str(path)))
            page = to_html(with_samples(self), picture, call=call, model=model, **options)
            write_whole(Path(path), page.encode("utf-8"))
            return
        if suffix != ".safetensors":
            raise InputError(
                f"explanation.save({str(path)!r}): give a name that ends in .png, .svg or .pdf, for a "
                "picture, in .html, for a page, or in .safetensors, for everything."
            )
        if picture is not None or options:
            raise InputError(
                f"explanation.save({str(path)!r}): a picture and drawing options are for pictures and pages "
                "only. Leave them out."
            )
        save_record(path, self, self.described(model))

    @staticmethod
    def load(path: Path | str) -> "Explanation":
        """Read a `.safetensors` file that `save` wrote: see `relprop.load_explanation`."""
        return load_explanation(path)

    def described(self, model: str | None = None, samples: Sequence[int] | None = None) -> dict[str, str]:
        """Return a description of the explanation in words, for the metadata of files.

        Args:
            model: name of the model, if it has one.
            samples: the samples whose target, score and sum of relevance are listed, by number; by default
                all, but at most `TOLD`.
        """
        target = self.target
        classes = isinstance(target, Tensor) and not target.is_floating_point()
        goal = listed(target, samples) if classes else text_of(target)
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
            "Score": listed(self.score, samples),
            "Sum of relevance": listed(self.ledger.inputs, samples),
            "Ledger balances to": f"{self.ledger.largest_gap:.1e}",
        }
        return {key: text for key, text in about.items() if text}

    def __repr__(self) -> str:
        shapes = {name: tuple(R.shape) for name, R in self.inputs.items()}
        shape = next(iter(shapes.values())) if len(shapes) == 1 else shapes
        return (
            f"Explanation(relevance of shape {shape}, target {shortened(self.target)}, score "
            f"{shortened(self.score)}{f' ({self.measure})' if self.measure != 'score' else ''}, "
            f"rules {self.preset}: {len(self.rules)} operations, ledger balances to "
            f"{self.ledger.largest_gap:.1e})"
        )


def as_numpy(relevance: Tensor) -> "np.ndarray[Any, Any]":
    """Return relevance as a NumPy array, on the CPU; half precision becomes float32."""
    relevance = relevance.detach().cpu()
    return (relevance.float() if relevance.dtype in (torch.float16, torch.bfloat16) else relevance).numpy()


def load_explanation(path: Path | str) -> Explanation:
    """Read an explanation that `Explanation.save` wrote to a safetensors file. Nothing in it is executed.

    Returns:
        The explanation, its tensors equal bit for bit and on the CPU. Rules are `Applied`, with the rule as
        text.

    Raises:
        FileError: the file is missing or damaged, holds no explanation, or has the format of another version.
    """
    return load_record(path, Explanation, require_fields)


def require_fields(explanation: Explanation) -> None:
    """Check the types of an explanation's fields.

    Raises:
        ValueError: a field has another type.
    """
    ledger, inner = explanation.ledger, explanation.inner
    right = (
        isinstance(explanation.inputs, dict)
        and len(explanation.inputs) > 0
        and all(isinstance(R, Tensor) for R in explanation.inputs.values())
        and isinstance(explanation.score, Tensor)
        and explanation.score.dim() == 1
        and isinstance(inner, InnerRelevance)
        and isinstance(inner.calls, dict)
        and all(isinstance(calls, tuple) for calls in inner.calls.values())
        and isinstance(explanation.parameters, dict)
        and isinstance(ledger, Ledger)
        and type(ledger.samples) is int
        and isinstance(ledger.batch, Ledger | None)
        and isinstance(ledger.absorbed, dict)
        and isinstance(ledger.operations, dict)
        and all(
            isinstance(amount, Tensor) and amount.shape == (ledger.samples,)
            for amount in (ledger.seed, ledger.inputs, *ledger.absorbed.values())
        )
        and isinstance(explanation.preset, str)
        and isinstance(explanation.measure, str)
        and isinstance(explanation.rules, tuple)
        and all(isinstance(applied, Applied) for applied in explanation.rules)
    )
    if not right:
        raise ValueError("fields of another kind")
    # What is printed looks into what is nested, and fails here rather than later.
    explanation.described()
    for part in (ledger, *explanation.rules, *ledger.operations):
        str(part)
