"""Checking a model's arguments, and replacing those that are explained by stand-ins."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from torch import Tensor

from relprop.errors import InputError
from relprop.inputs.signature import named
from relprop.inputs.tokens import may_be_ids

KEEP_OUT = (
    "To leave one out, bind it in a function: explain(lambda x: model(x, other=y), x). The function can also "
    "reshape an input whose samples are in another dimension."
)


class StandIns(Protocol):
    """Makes the stand-ins, which the model gets in place of its arguments."""

    def stand_in(self, name: str, tensor: Tensor) -> Tensor:
        """Return the stand-in for a floating-point input."""

    def stand_in_for_ids(self, name: str, tensor: Tensor) -> Tensor:
        """Return the stand-in for an integer input that the model may look up in an embedding."""

    def stand_in_for_lost(self, name: str, tensor: Tensor, reason: str) -> Tensor:
        """Return the stand-in for an integer input that cannot be explained, for this reason."""

    def other(self, value: Any) -> Any:
        """Return the stand-in for an argument that is not explained."""


def put_stand_ins(
    stand_ins: StandIns, model: Callable[..., Any], inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> tuple[dict[str, tuple[int, ...]], list[Any], dict[str, Any]]:
    """Check a model's arguments, and replace them by stand-ins.

    Args:
        stand_ins: makes the stand-ins.
        model: the user's model.
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.

    Returns:
        The shapes of the inputs to explain, by name; the positional arguments for the model; and its keyword
        arguments.

    Raises:
        InputError: no argument can be explained, or an input has no samples or values that are not finite.
    """
    given = named(model, inputs, arguments)
    floats = {name: _checked(name, value) for name, value in given if _is_explained(name, value)}
    ids = {name: value for name, value in given if may_be_ids(name, value)}
    samples = {name: value.shape[0] for name, value in floats.items()}
    # Beside floating-point inputs, one number a sample is a category. Alone it may be a text without samples.
    # With offsets, the ids of all samples may be in one dimension, one after the other.
    in_bags = any("offset" in name.lower() and isinstance(value, Tensor) for name, value in given)
    lost = {n: v for n, v in ids.items() if v.dim() == 1 and floats and len(v) not in samples.values()}
    lost = {} if in_bags else lost
    ids = {name: value for name, value in ids.items() if name not in lost}
    for name, value in ids.items():
        _require_samples(name, value, least=1 if floats or in_bags else 2)
    if not floats and not ids:
        kinds = [f"{name}: {_kind(value)}" for name, value in given]
        raise InputError(
            "nothing to explain: explain(model, ...) needs a floating-point tensor, and got "
            f"{', '.join(kinds) or 'none'}." + _remedy([value for _, value in given])
        )
    if len(set(samples.values())) > 1:
        raise InputError(
            f"the inputs have different numbers of samples in their first dimension: {samples}. " + KEEP_OUT
        )
    _require_fitting_masks(dict(given))
    shapes = {name: tuple(value.shape) for name, value in given if name in floats or name in ids}
    standing = {name: stand_ins.stand_in(name, value) for name, value in floats.items()}
    standing |= {name: stand_ins.stand_in_for_ids(name, value) for name, value in ids.items()}
    for name, value in lost.items():
        reason = f"it has {len(value)} numbers, and the other inputs have {max(samples.values())} samples"
        standing[name] = stand_ins.stand_in_for_lost(name, value, reason)
    replaced = [
        (name, standing[name] if name in standing else stand_ins.other(value)) for name, value in given
    ]
    of_keywords = zip(arguments, replaced[len(inputs) :], strict=True)
    return shapes, [v for _, v in replaced[: len(inputs)]], {name: v for name, (_, v) in of_keywords}


def _require_fitting_masks(given: dict[str, Any]) -> None:
    """Refuse an attention mask whose shape is not that of the tokens."""
    for prefix in ("", "decoder_"):
        ids, mask = given.get(f"{prefix}input_ids"), given.get(f"{prefix}attention_mask")
        if isinstance(ids, Tensor) and isinstance(mask, Tensor) and ids.dim() == mask.dim() == 2:
            require_fitting_mask(mask, ids, prefix)


def require_fitting_mask(mask: Tensor, ids: Tensor, prefix: str = "") -> None:
    """Refuse a mask that does not have a number for each token.

    Args:
        mask: the mask, (samples, tokens).
        ids: the tokens, (samples, tokens).
        prefix: the beginning of both arguments' names, for errors.

    Raises:
        InputError: the shapes differ.
    """
    if ids.shape != mask.shape:
        raise InputError(
            f"{prefix}attention_mask of shape {tuple(mask.shape)} does not fit {prefix}input_ids of "
            f"shape {tuple(ids.shape)}: give a number for each token, 1 where it counts, 0 for padding."
        )


def _remedy(values: list[Any]) -> str:
    if any(isinstance(value, (tuple, list)) and _are_tensors(value) for value in values):
        return " Give several inputs one by one: explain(model, a, b)."
    if any(hasattr(value, "__array_interface__") for value in values):
        return " Make a tensor of an array: torch.from_numpy(x)."
    if any(isinstance(value, list) for value in values):
        return " Make a tensor of a list: torch.tensor(x); a tokenizer gives one by return_tensors='pt'."
    if any(isinstance(value, str) for value in values):
        return " relprop.explain_text explains a text."
    if any(isinstance(value, Mapping) for value in values):
        return " Spread what a tokenizer returns: explain(model, **tokens)."
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    if any(dtype.is_complex for dtype in types):
        return " Explain the real and the imaginary part of complex numbers: pass torch.view_as_real(x)."
    if types:
        return " Convert pixels by x.float(). For indices of an embedding, explain the embedding's output."
    return ""


def _are_tensors(values: Collection[Any]) -> bool:
    """Whether there are tensors in a list, and nothing else."""
    return bool(values) and all(isinstance(value, Tensor) for value in values)


def only_tokens(inputs: tuple[Any, ...], arguments: Mapping[str, Any]) -> bool:
    """Whether only tokens, or embeddings of tokens, are explained, and there is at least one of them."""
    given = [("", value) for value in inputs] + list(arguments.items())
    of_text = [may_be_ids(*each) or bool(_EMBEDDED.search(each[0])) for each in given]
    others = [_is_explained(*each) and not is_text for each, is_text in zip(given, of_text, strict=True)]
    return any(of_text) and not any(others)


_MASK = re.compile(r"(attention|attn|padding)_mask$")
_EMBEDDED = re.compile(r"(^|_)inputs?_embeds$")


def _is_explained(name: str, value: Any) -> bool:
    """Whether an argument is a floating-point tensor, and its name is not that of an attention mask."""
    return isinstance(value, Tensor) and value.is_floating_point() and not _MASK.search(name)


def _kind(value: Any) -> str:
    return f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__


def _checked(name: str, value: Tensor) -> Tensor:
    _require_samples(name, value)
    finite = value.isfinite()
    if not finite.all():
        where = tuple((~finite).nonzero()[0].tolist())
        raise InputError(
            f"input {name!r} has {int((~finite).sum())} values that are NaN or infinite, the first at "
            f"{where}; replace them before explaining."
        )
    return value.clone() if value.is_inference() else value


def _require_samples(name: str, value: Tensor, least: int = 2) -> None:
    if value.dim() < least:
        raise InputError(
            f"input {name!r} of shape {tuple(value.shape)} has no dimension for samples; give it one in "
            "front, as with x.unsqueeze(0)."
        )
    if value.numel() == 0:
        raise InputError(f"input {name!r} of shape {tuple(value.shape)} is empty. Give one sample or more.")
