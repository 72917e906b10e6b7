"""Errors of models that fail on their inputs, or that use none of them as an explained input."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from relprop.calls.user_line import line_of
from relprop.engine.gaps import Gap
from relprop.errors import InputError, ModelError
from relprop.inputs.arguments import Arguments
from relprop.inputs.containers import copied


def never_looked_up(
    shapes: Mapping[str, tuple[int, ...]], error: Exception | None = None, cuts: Sequence[Gap] = ()
) -> InputError:
    """Return the error about integer inputs that the model did not look up in an embedding.

    Args:
        shapes: the shapes of the integer inputs by name.
        error: the model's own error, if it failed.
        cuts: the operations at which ids were lost.
    """
    told = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
    if isinstance(error, IndexError):
        return InputError(
            f"the model's embedding has no row for some of the integers in {told}. Use the tokenizer that "
            f"the model was trained with. The model's own error: {error}"
        )
    return InputError(
        f"nothing to explain: explain(model, ...) needs a floating-point tensor, or integers that the model "
        f"looks up in an embedding. It got integers that the model does not look up: {told}."
        + (
            " Spread what a tokenizer returns: explain(model, **tokens)."
            if error and _in_containers(shapes)
            else " Convert pixels by x.float()."
        )
        + "".join(f"\n  - {cut}" for cut in cuts)
        + (
            f" The model's own error: {str(error).splitlines()[0] if str(error) else error!r}"
            if error
            else ""
        )
    )


def explain_failure(
    error: Exception,
    model: Callable[..., Any],
    given: Arguments,
    *,
    explained: bool,
    differing: str,
    remedy: str = "",
) -> None:
    """Say why the model failed while relprop ran it. Its own error gets a note.

    Whether it is the model's own is found by running the model alone.

    Args:
        error: the error.
        model: the user's model.
        given: its arguments.
        explained: whether an input was explained when the model failed. If not, the error is about integer
            inputs, which perhaps should be floating point.
        differing: the error about different numbers of samples, or "".
        remedy: what helps if the model does not take tensors of relprop's own class, where that is known.

    Raises:
        InputError: the model failed on integers that it does not look up, on a text that is too long, or on
            inputs with different numbers of samples.
        ModelError: the model runs without relprop; or it uses flex attention, which has no gradient on the
            CPU.
    """
    if "FlexAttention" in str(error):
        raise ModelError(
            "the model uses flex attention, which has no gradient on the CPU in torch. Load the model "
            "with attn_implementation='sdpa', or with its own option for that, or explain it on a GPU."
        ) from error
    if _runs_alone(model, given):
        said = str(error).splitlines()[0] if str(error) else ""
        remedy = remedy or (
            "torch.as_tensor(x) takes both, where torch.from_numpy(x) takes arrays alone."
            if given.arrays
            else "Explain the part of the model that computes with tensors of torch alone: "
            "explain(model.part, x)."
        )
        raise ModelError(
            f"relprop cannot run this model, though the model runs without relprop: {type(error).__name__}"
            f"{': ' if said else ''}{said.rstrip('.')}, at {line_of(error)}. With relprop the model gets "
            f"tensors of a class of relprop's own{_in_place_of(given)}, and the line does not take them. "
            f"{remedy}"
        ) from error
    shapes = given.shapes
    if isinstance(error, IndexError):
        _require_positions(model, shapes, error)
    if not explained:
        raise never_looked_up(shapes, error) from error
    if differing:
        raise InputError(f"{differing} The model's own error: {error}") from error
    called_with = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
    error.add_note(
        f"This is the model's own error: explain called it with {called_with}. Try model(...) itself."
        + without_samples(model, shapes)
        + (f" Each NumPy array was made a tensor of the same type.{_cast_to(model)}" if given.arrays else "")
    )


def _runs_alone(model: Callable[..., Any], given: Arguments) -> bool:
    """Whether the model runs without relprop. Torch's random generator of the CPU stays as it was."""
    for positional, by_keyword in given.plain:
        try:
            # With gradients, as relprop runs it: a model may look.
            with torch.inference_mode(mode=False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
                # Copies, because a model may write to its inputs.
                model(*map(copied, positional), **{name: copied(value) for name, value in by_keyword.items()})
        except Exception:
            continue
        return True
    return False


def _in_place_of(given: Arguments) -> str:
    arrays = ", ".join(given.arrays)
    return f", and tensors in place of the NumPy arrays {arrays}" if arrays else ""


def _cast_to(model: Any) -> str:
    """Return advice to cast arrays to the type of the model's weights, otherwise ""."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    types = {str(p.dtype).removeprefix("torch.") for p in parameters if p.is_floating_point()}
    return f" The model's weights are {next(iter(types))}." if len(types) == 1 else ""


def _in_containers(names: Collection[str]) -> bool:
    return any("." in name or "[" in name for name in names)


def _require_positions(model: Any, shapes: Mapping[str, tuple[int, ...]], error: IndexError) -> None:
    """Refuse a text that has more tokens than the model has positions, which may be why the model failed."""
    config = getattr(model, "config", None)
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    limit = next((limit for limit in limits if isinstance(limit, int)), None)
    for name, shape in shapes.items():
        if limit is not None and name.endswith(("input_ids", "inputs_embeds")) and shape[1:2] > (limit,):
            raise InputError(
                f"{name} has {shape[1]} tokens, but the model has {limit} positions. Shorten it by "
                f"{shape[1] - limit}."
            ) from error


def without_samples(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return advice if an input looks like a single picture instead of a batch of pictures, otherwise ""."""
    pictures = isinstance(model, nn.Module) and any(isinstance(m, nn.Conv2d) for m in model.modules())
    single = [name for name, shape in shapes.items() if len(shape) == 3 and "[" not in name]
    if not pictures or not single:
        return ""
    x = "x" if len(shapes) == 1 else single[0]
    return f" The first dimension is that of the samples: give {x}.unsqueeze(0)."
