"""Errors of models that fail on their inputs, or that use none of them as an explained input."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from relprop.engine.gaps import Gap
from relprop.errors import InputError, ModelError, RelpropError


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
        f"looks up in an embedding. It got integers that the model does not look up: {told}. Convert pixels "
        "by x.float()."
        + "".join(f"\n  - {cut}" for cut in cuts)
        + (
            f" The model's own error: {str(error).splitlines()[0] if str(error) else error!r}"
            if error
            else ""
        )
    )


@contextmanager
def naming_inputs(
    model: Any, shapes: Mapping[str, tuple[int, ...]], explained: Callable[[], bool] | None = None
) -> Iterator[None]:
    """Add to the model's own errors the names and shapes of its inputs.

    Args:
        model: the user's model, which runs inside.
        shapes: the shapes of the inputs to explain by name.
        explained: whether an input is explained by now. If the model fails before, the error is about integer
            inputs, which perhaps should be floating point.

    Raises:
        InputError: the model failed on integers that it does not look up, or on a text that is too long.
        ModelError: the model uses flex attention, which has no gradient on the CPU.
    """
    try:
        yield
    except RelpropError:
        raise
    except Exception as error:
        if "FlexAttention" in str(error):
            raise ModelError(
                "the model uses flex attention, which has no gradient on the CPU in torch. Load the model "
                "with attn_implementation='sdpa', or with its own option for that, or explain it on a GPU."
            ) from error
        if isinstance(error, IndexError):
            _require_positions(model, shapes, error)
        if explained is not None and not explained():
            raise never_looked_up(shapes, error) from error
        called_with = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        error.add_note(
            f"This is the model's own error: explain called it with {called_with}. Try model(...) itself."
            + _without_samples(model, shapes)
        )
        raise


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


def _without_samples(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return advice if an input looks like a single picture instead of a batch of pictures, otherwise ""."""
    pictures = isinstance(model, nn.Module) and any(isinstance(m, nn.Conv2d) for m in model.modules())
    single = [name for name, shape in shapes.items() if len(shape) == 3]
    return f" Samples are the first dimension: {single[0]}.unsqueeze(0)." if pictures and single else ""
