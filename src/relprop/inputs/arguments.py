"""Checking a model's arguments, and replacing those that are explained by stand-ins."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from relprop.engine.seen import Seen
from relprop.errors import InputError
from relprop.inputs.containers import Named, integers_beside, rebuilt, tensors_by_name
from relprop.inputs.id_calls import are_pixels, may_be_ids
from relprop.inputs.signature import named

KEEP_OUT = (
    "To leave one out, bind it in a function: explain(lambda x: model(x, other=y), x). The function can also "
    "reshape an input whose samples are in another dimension."
)

TOGETHER = (
    " If the inputs are one whole, as the nodes and edges of a graph, explain one number: "
    "target=lambda output: output[:, 0].sum()."
)


class StandIns(Protocol):
    """Makes the stand-ins, which the model gets in place of its arguments."""

    differing: str

    def stand_in(self, name: str, tensor: Tensor, samples: int) -> Tensor:
        """Return the stand-in for a floating-point input."""

    def stand_in_for_ids(self, name: str, tensor: Tensor) -> Tensor:
        """Return the stand-in for an integer input that the model may look up in an embedding."""

    def stand_in_for_lost(self, name: str, tensor: Tensor, reason: str) -> Tensor:
        """Return the stand-in for an integer input that cannot be explained, for this reason."""

    def note_passed_on(self, name: str, integers: Tensor, reason: str) -> None:
        """Record integers that are passed on as they are, for this reason."""

    def other(self, value: Any) -> Any:
        """Return the stand-in for an argument that is not explained."""


@dataclass(frozen=True)
class Arguments:
    """What the model gets, and what of it may be explained.

    Attributes:
        shapes: the shapes of the inputs to explain, by name.
        positional: the positional arguments.
        by_keyword: the keyword arguments.
        plain: both as they are without relprop: as the caller gave them, and with tensors in place of arrays.
        arrays: the names of the arguments in which tensors took the place of NumPy arrays.
    """

    shapes: dict[str, tuple[int, ...]]
    positional: Sequence[Any]
    by_keyword: dict[str, Any]
    plain: Sequence[tuple[Sequence[Any], dict[str, Any]]]
    arrays: tuple[str, ...]


def put_stand_ins(
    stand_ins: StandIns, model: Callable[..., Any], inputs: tuple[Any, ...], arguments: dict[str, Any]
) -> Arguments:
    """Check a model's arguments, and replace the tensors to explain by stand-ins.

    Args:
        stand_ins: makes the stand-ins. If the inputs have different numbers of samples, `differing` gets the
            error that is raised unless the score is a single number.
        model: the user's model.
        inputs: positional arguments of the model.
        arguments: keyword arguments of the model.

    Raises:
        InputError: no argument can be explained, or an input has no samples or values that are not finite.
    """
    given = named(model, inputs, arguments)
    plain, found = tensors_by_name(given, _is_input)
    tensors = [tensor for each in found for tensor in each]
    floats = {name: value for name, value in tensors if _is_explained(name, value)}
    ids = {name: value for name, value in tensors if may_be_ids(name, value)}
    in_bags = any("offset" in name.lower() for name, _ in tensors)
    _require_inputs(floats, ids, given, tensors, in_bags=in_bags)
    floats = {name: _finite(name, value) for name, value in floats.items() if value.dim()}
    standing = _standing(stand_ins, floats, ids, in_bags=in_bags)
    for name, value in tensors:
        if are_pixels(name, value):
            standing[name] = stand_ins.stand_in_for_lost(name, value, "pixels are explained as x.float()")
    for name, value, reason in integers_beside(plain, found):
        if may_be_ids(name, value):
            stand_ins.note_passed_on(name, value, reason)
    _require_fitting_masks(dict(given))
    replaced = []
    for (_, value), within in zip(plain, found, strict=True):
        if isinstance(value, Tensor):
            ((name, _),) = within
            replaced.append(standing[name] if name in standing else stand_ins.other(value))
        elif any(name in standing for name, _ in within):
            put = (standing[name] if name in standing else stand_ins.other(value) for name, value in within)
            replaced.append(rebuilt(value, put))
        else:
            replaced.append(stand_ins.other(value))

    def split(values: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        return values[: len(inputs)], dict(zip(arguments, values[len(inputs) :], strict=True))

    shapes = {name: tuple(value.shape) for name, value in tensors if name in floats or name in ids}
    arrays = tuple(n for (n, v), (_, tensor) in zip(given, plain, strict=True) if tensor is not v)
    without = [split([value for _, value in each]) for each in ((given, plain) if arrays else (given,))]
    return Arguments(shapes, *split(replaced), without, arrays)


def _standing(
    stand_ins: StandIns, floats: Mapping[str, Tensor], ids: Mapping[str, Tensor], *, in_bags: bool
) -> dict[str, Tensor]:
    """Return the stand-ins of the inputs by name. Their first dimension is that of the samples."""
    samples = {name: len(value) for name, value in floats.items()}
    if len({*samples.values()}) > 1:
        stand_ins.differing = (
            f"the inputs have different numbers of samples in their first dimension: {samples}. {KEEP_OUT}"
            + TOGETHER
        )
    many = 1 if stand_ins.differing else next(iter(samples.values()), 1)
    standing: dict[str, Tensor] = {}
    for name, value in floats.items():
        standing[name] = stand_ins.stand_in(name, value, many)
    numbers = {*samples.values()} or {len(value) for value in ids.values() if value.dim() > 1}
    for name, value in ids.items():
        # With offsets, the ids of all samples may be in one dimension, one after the other.
        if value.dim() > 1 or in_bags or not numbers or len(value) in numbers:
            standing[name] = stand_ins.stand_in_for_ids(name, value)
        else:
            reason = f"it has {len(value)} numbers, and the other inputs have {max(numbers)} samples"
            standing[name] = stand_ins.stand_in_for_lost(name, value, reason)
    return standing


def _require_inputs(
    floats: Mapping[str, Tensor],
    ids: Mapping[str, Tensor],
    given: Named,
    tensors: Named,
    *,
    in_bags: bool,
) -> None:
    """Refuse inputs of which none can be explained.

    A vector is one number for each sample if there is another input. Alone it may be a sample, or a text.

    Raises:
        InputError: there is no input, an input is empty or of an unusual kind, or the only one has no
            dimension of samples.
    """
    if not floats and not ids:
        kinds = [f"{name}: {_kind(value)}" for name, value in given]
        raise InputError(
            "nothing to explain: explain(model, ...) needs a floating-point tensor, and got "
            f"{', '.join(kinds) or 'none'}." + _remedy([value for _, value in [*given, *tensors]])
        )
    inputs = {**floats, **ids}
    for name, value in inputs.items():
        kind, remedy = _unusual(value)
        if kind:
            raise InputError(f"input {name!r} is {kind}; {remedy}.")
        if value.numel() == 0:
            raise InputError(
                f"input {name!r} of shape {tuple(value.shape)} is empty. Give one sample or more."
            )
    vectors = [len(value) for value in inputs.values() if value.dim() == 1]
    if max(value.dim() for value in inputs.values()) > 1 or in_bags or len(vectors) > len({*vectors}):
        return
    name, value = next((n, v) for n, v in inputs.items() if v.dim() < 2)
    if value.dim() == 0:
        advice = "give it one in front, as with x.reshape(1, 1)."
    else:
        advice = (
            "give it one in front, as with x.unsqueeze(0). If it has one number for each sample, give it a "
            "second dimension: explain(lambda x: model(x[:, 0]), x.unsqueeze(1))."
        )
    raise InputError(f"input {name!r} of shape {tuple(value.shape)} has no dimension for samples; {advice}")


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
    if any(hasattr(value, "__array_interface__") for value in values):
        return " Make a tensor of an array: torch.from_numpy(x)."
    if any(isinstance(value, list) and value for value in values):
        return " Make a tensor of a list: torch.tensor(x); a tokenizer gives one by return_tensors='pt'."
    if any(isinstance(value, str) for value in values):
        return " relprop.explain_text explains a text."
    if any(isinstance(value, Tensor) and value.is_nested for value in values):
        return " Pad a nested tensor: torch.nested.to_padded_tensor(x, 0.0)."
    if any(isinstance(value, Tensor) and value.layout is not torch.strided for value in values):
        return " Make a sparse tensor dense: x.to_dense()."
    types = {value.dtype for value in values if isinstance(value, Tensor)}
    if any(dtype.is_complex for dtype in types):
        return " Explain the real and the imaginary part of complex numbers: pass torch.view_as_real(x)."
    if types:
        return " Convert pixels by x.float(). For indices of an embedding, explain the embedding's output."
    if any(isinstance(value, Mapping) for value in values):
        return " There is no tensor in the dictionary; a tokenizer gives them by return_tensors='pt'."
    return ""


def only_tokens(inputs: tuple[Any, ...], arguments: Mapping[str, Any]) -> bool:
    """Whether only tokens, or embeddings of tokens, are explained, and there is at least one of them."""
    given = [*(("", value) for value in inputs), *arguments.items()]
    tensors = [tensor for each in tensors_by_name(given, _is_input)[1] for tensor in each]
    of_text = [may_be_ids(*each) or bool(_EMBEDDED.search(each[0])) for each in tensors]
    others = [_is_input(*each) and not is_text for each, is_text in zip(tensors, of_text, strict=True)]
    return any(of_text) and not any(others)


_MASK = re.compile(r"(attention|attn|padding)_mask($|[.\[])")
_EMBEDDED = re.compile(r"(^|[_.])inputs?_embeds$")


def _is_input(name: str, value: Any) -> bool:
    """Whether an argument may be explained. Single numbers are passed on, as Python's are."""
    return bool(value.dim()) and (_is_explained(name, value) or may_be_ids(name, value))


def _is_explained(name: str, value: Any) -> bool:
    """Whether an argument is a floating-point tensor, and its name is not that of an attention mask."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided:  # a sparse matrix is a constant
        return False
    return value.is_floating_point() and not _MASK.search(name)


def _kind(value: Any) -> str:
    return f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__


def _finite(name: str, value: Tensor) -> Tensor:
    """Return an input that autograd can record.

    Raises:
        InputError: it has values that are NaN or infinite.
    """
    finite = value.isfinite()
    if not finite.all():
        where = tuple((~finite).nonzero()[0].tolist())
        raise InputError(
            f"input {name!r} has {int((~finite).sum())} values that are NaN or infinite, the first at "
            f"{where}; replace them before explaining."
        )
    return value.clone() if value.is_inference() else value


def _unusual(value: Tensor) -> tuple[str, str]:
    """Return the kind of a tensor that cannot be explained as it is, and what to do; "" for others."""
    if value.is_nested:
        return "nested", "pad it: torch.nested.to_padded_tensor(x, 0.0)"
    if value.dtype.itemsize == 1:
        return f"a tensor of {value.dtype}", "convert it: x.float()"
    if value.is_meta or isinstance(value, FakeTensor):
        return "a tensor without values", "give it values: torch.rand(x.shape)"
    dispatch = type(value).__torch_dispatch__
    if dispatch is not Tensor.__torch_dispatch__ and type(value) is not Seen:
        return f"a {type(value).__name__}, whose operations relprop does not see", "give a plain tensor"
    return "", ""
