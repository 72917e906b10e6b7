"""Explaining generated text: for each generated token, the relevance of the tokens before it, as a matrix."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError, ModelError
from relprop.files import path_of
from relprop.inputs.arguments import require_fitting_mask
from relprop.inputs.signature import require_known
from relprop.results.explanation import Explanation, as_numpy, require_fields
from relprop.results.named import device_named
from relprop.results.store import load_record, save_record
from relprop.rules.choice import Rules
from relprop.runs.backward import Progress
from relprop.runs.explain import explain_each
from relprop.targets.classes import Logit, OfClass
from relprop.targets.given import TargetLike
from relprop.targets.structured import At

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Generation:
    """A continuation of a prompt, explained token by token.

    `len(generation)` is the number of generated tokens. `generation[2]` is the explanation of one of them,
    and iteration gives all of them.

    Attributes:
        relevance: (generated, tokens): row i has the relevance of all tokens for the score of generated token
            i. It is zero for this token itself and for all after it.
        ids: the tokens of the prompt and of the generated text, (tokens,) int64. The prompt of
            encoder-decoder models is the encoder's input, followed by the first token of the decoder.
        prompt: number of tokens in the prompt.
        scores: the explained score of each generated token, (generated,).
        explanations: the explanation of each generated token, with its ledger.
    """

    relevance: Tensor
    ids: Tensor
    prompt: int
    scores: Tensor
    explanations: list[Explanation]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, number: int) -> Explanation:
        """The explanation of a generated token, by number.

        Raises:
            InputError: there is no such token.
        """
        if type(number) is not int or not -len(self) <= number < len(self):
            raise InputError(
                f"generation[{number!r}]: give the number of a generated token; there are {len(self)}."
            )
        return self.explanations[number]

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.explanations)

    def numpy(self) -> "np.ndarray[Any, Any]":
        """`relevance` as a NumPy array. Half precision becomes float32."""
        return as_numpy(self.relevance)

    def to(self, device: torch.device | str) -> "Generation":
        """The generation with all of its tensors on a device.

        Raises:
            InputError: there is no such device.
        """
        device = device_named(device, f"generation.to({device!r})")
        return replace(
            self,
            relevance=self.relevance.to(device),
            ids=self.ids.to(device),
            scores=self.scores.to(device),
            explanations=[explanation.to(device) for explanation in self.explanations],
        )

    def cite(self) -> str:
        """BibTeX entries of the papers that the rules come from, and of the preset, to be cited."""
        return self.explanations[0].cite()

    def save(self, path: Path | str) -> None:
        """Write everything to a `.safetensors` file, whole or not at all; `Generation.load` reads it.

        Raises:
            InputError: another suffix.
            FileError: the file cannot be written.
        """
        if path_of(path, "generation.save").suffix.lower() != ".safetensors":
            raise InputError(f"generation.save({str(path)!r}): give a name that ends in .safetensors.")
        about = {"Title": f"Relevance of the tokens before each of {len(self)} generated ones"}
        save_record(path, self, about, _PARTS)

    @staticmethod
    def load(path: Path | str) -> "Generation":
        """Read a `.safetensors` file that `save` wrote. Nothing in it is executed.

        Raises:
            FileError: the file is missing, damaged or not of a generation, or another version wrote it.
        """
        return load_record(path, Generation, _require_fields, _PARTS)

    @property
    def generated(self) -> Tensor:
        """The generated tokens, (generated,)."""
        return self.ids[self.prompt :]

    def __repr__(self) -> str:
        gap = max(explanation.ledger.largest_gap for explanation in self.explanations)
        return (
            f"Generation({len(self.scores)} tokens after a prompt of {self.prompt}, rules "
            f"{self.explanations[0].preset}, ledgers balance to {gap:.1e})"
        )


_PARTS = (Explanation,)


def _require_fields(generation: Generation) -> None:
    tensors = (generation.relevance, generation.ids, generation.scores)
    right = (
        all(isinstance(tensor, Tensor) for tensor in tensors)
        and type(generation.prompt) is int
        and isinstance(generation.explanations, list)
        and 0 < len(generation.scores) == len(generation.explanations) == len(generation.relevance)
        and generation.relevance.shape[1:] == generation.ids.shape == (generation.prompt + len(generation),)
        and all(isinstance(each, Explanation) for each in generation.explanations)
    )
    if not right:
        raise ValueError("fields of another kind")
    for each in generation.explanations:
        require_fields(each)


def explain_generation(
    model: nn.Module,
    input_ids: Tensor,
    *,
    attention_mask: Tensor | None = None,
    continuation: Tensor | None = None,
    max_new_tokens: int = 20,
    target: Callable[[int], TargetLike] | OfClass = Logit,
    rules: Rules = None,
    progress: Progress | None = None,
    **options: Any,
) -> Generation:
    """Explain each token of a generated answer, by one forward of the model over prompt and answer.

    Args:
        model: a language model of the transformers library; or any model that takes `input_ids` and returns
            logits (1, tokens, vocabulary), or an object with `logits`.
        input_ids: the prompt, (1, tokens) or (tokens,), integers.
        attention_mask: mask of the prompt, of its shape, with 0 for padding.
        continuation: the answer to explain, (generated,) or (1, generated), integers. By default the model
            generates it, with the most likely token each time.
        max_new_tokens: the largest number of tokens to generate.
        target: the target for a token, made from its id: a class of `relprop.targets`, such as `Logit` (the
            token's score), `LogOdds`, `Contrastive` or `RunnerUp`; or a function from the id to a target.
        rules: the rules, as for `relprop.explain`.
        progress: called after each token with the number of tokens that are done, and that of all.
        options: other options of `relprop.explain`, such as checkpoint; and arguments of the model.

    Raises:
        InputError: the prompt is not a single text, the answer is empty, or as for `relprop.explain`.
        ModelError: the model cannot generate, and no continuation is given.
    """
    require_known("explain_generation", options, explain_generation, explain_each, model)
    prompt = _single(input_ids, "input_ids")
    mask = None if attention_mask is None else _single(attention_mask, "attention_mask")
    if mask is not None:
        require_fitting_mask(mask, prompt)
    start = decoder_start(model)
    if continuation is None:
        answer = _generated(model, prompt, mask, max_new_tokens, has_decoder=start is not None)
    else:
        answer = _single(continuation, "continuation").to(prompt)
    count = answer.shape[1]
    arguments: dict[str, Any] = {"input_ids": prompt}
    if start is None:
        arguments["input_ids"] = torch.cat([prompt, answer], 1)
        first = prompt.shape[1] - 1
        mask = None if mask is None else torch.cat([mask, torch.ones_like(answer)], 1)
    else:
        arguments["decoder_input_ids"] = torch.cat([prompt.new_full((1, 1), start), answer], 1)
        first = 0
    if mask is not None:
        arguments["attention_mask"] = mask
        if start is None and not bool(mask.all()) and _takes_positions(model, options):
            # Positions begin at the first token that is no padding, as in the model's own generate.
            arguments["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    of_token = _of_token(target)
    targets = [At(first + i, of_token(int(token))) for i, token in enumerate(answer[0])]
    explanations = explain_each(
        model, targets=targets, rules=rules, progress=progress, kwargs=arguments, **options
    )
    rows = [_row(explanation, arguments) for explanation in explanations]
    ids = torch.cat([arguments[name] for name in ("input_ids", "decoder_input_ids") if name in arguments], 1)
    return Generation(
        relevance=torch.cat(rows),
        ids=ids[0],
        prompt=ids.shape[1] - count,
        scores=torch.cat([explanation.score for explanation in explanations]),
        explanations=explanations,
    )


def _of_token(target: Any) -> Callable[[int], TargetLike]:
    """Return the function from a token's id to its target, from the target that a user gives."""
    if isinstance(target, OfClass):
        return lambda token: replace(target, index=token)
    if callable(target):
        return target  # type: ignore[no-any-return]
    raise InputError(
        f"target={target!r}: explain_generation explains each generated token. Give a class of targets, such "
        "as target=relprop.targets.LogOdds. To explain a token at one position, use "
        "relprop.explain(..., target=relprop.targets.At(...))."
    )


def _takes_positions(model: nn.Module, options: dict[str, Any]) -> bool:
    return "position_ids" not in options and "position_ids" in inspect.signature(model.forward).parameters


def _single(given: Any, name: str) -> Tensor:
    """Return the tokens of one text as (1, tokens).

    Raises:
        InputError: there are several texts or no tokens, or these are not integers of such a shape.
    """
    ids: Any = given
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dim() not in (1, 2):
        got = f"a {ids.dtype} tensor of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else repr(ids)
        raise InputError(f"{name}: give integers of shape (1, tokens) or (tokens,), not {got}.")
    ids = ids if ids.dim() == 2 else ids.unsqueeze(0)
    if len(ids) != 1:
        raise InputError(
            f"{name} of shape {tuple(ids.shape)} has {len(ids)} texts; explain_generation takes one at a "
            f"time, such as {name}[:1]."
        )
    if ids.shape[1] == 0:
        raise InputError(f"{name} is empty; give at least one token.")
    tokens: Tensor = ids
    return tokens


def decoder_start(model: Any) -> int | None:
    """Return the id of the token with which an encoder-decoder model's answer begins; None for other models.

    Raises:
        ModelError: the model has a decoder, but its config does not have this token.
    """
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        return None
    for settings in (getattr(model, "generation_config", None), config):
        start = getattr(settings, "decoder_start_token_id", None)
        if isinstance(start, int):
            return start
    raise ModelError(
        f"{type(model).__name__} has a decoder, but its config has no decoder_start_token_id. Set it there, "
        "or use relprop.explain with decoder_input_ids=...."
    )


def _generated(
    model: Any, prompt: Tensor, mask: Tensor | None, max_new_tokens: int, *, has_decoder: bool
) -> Tensor:
    """Return the tokens that the model generates, (1, generated).

    Raises:
        ModelError: the model cannot generate, or generates nothing.
        InputError: `max_new_tokens` is less than 1.
    """
    if not hasattr(model, "generate"):
        raise ModelError(
            f"{type(model).__name__} has no method generate; give the answer to explain: continuation=ids."
        )
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}: give 1 or more.")
    with torch.no_grad():
        written: Tensor = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt) if mask is None else mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
    answer = written[:, 1:] if has_decoder else written[:, prompt.shape[1] :]
    if answer.shape[1] == 0:
        raise ModelError(f"{type(model).__name__} generated nothing; give the answer: continuation=ids.")
    return answer


def _row(explanation: Explanation, arguments: dict[str, Any]) -> Tensor:
    """Return the relevance of all tokens, (1, tokens)."""
    inputs = explanation.inputs
    return torch.cat([inputs[name] for name in arguments if name in inputs], 1)
