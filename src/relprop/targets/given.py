"""What users give as a target: a class, weights or a function, as an object that computes scores."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.places import Place
from relprop.targets.classes import Logit, Weighted, by_name, is_index
from relprop.targets.scores import OfSamples, Target

__all__ = ["TargetLike", "as_target"]

TargetLike = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
"""The values that `explain(..., target=...)` takes: see `as_target`."""


def as_target(target: TargetLike) -> Target:
    """Return a target for a value that users give.

    Args:
        target: None for each sample's largest output; a class index; a class index for each sample (a
            sequence or an integer tensor); a floating-point tensor of weights, of the output's shape or of
            one sample's; or a function from the output to one score for each sample, such as
            `Contrastive(3)` or `lambda output: output[:, 3] - output[:, 5]`.

    Raises:
        InputError: another value.
    """
    if target is None:
        return Logit()
    if isinstance(target, bool):
        raise InputError(
            "target=True or False is no class index; give a number, one per sample, weights or a function."
        )
    if hasattr(target, "__array_interface__"):  # NumPy's arrays and scalars
        try:
            target = torch.as_tensor(target)
        except TypeError as error:
            raise InputError(f"target={target!r} is no array of numbers: {error}") from None
    _require_no_rule(target)
    if isinstance(target, type):
        raise InputError(f"target={target.__name__}: that is a class; write {target.__name__}().")
    if isinstance(target, int):
        return Logit(target)
    if isinstance(target, Tensor) and target.is_floating_point():
        return Weighted(target.detach())
    if (
        isinstance(target, Tensor)
        and target.dtype != torch.bool
        and not target.is_complex()
        and target.dim() <= 1
    ):
        return Logit(tuple(target.tolist()) if target.dim() else int(target))
    if isinstance(target, Tensor):
        raise InputError(
            f"target is a {target.dtype} tensor of shape {tuple(target.shape)}; give integers of shape "
            "(samples,) for classes, or floating-point weights of the output's shape."
        )
    if callable(target):
        _require_one_argument(target)
        return target
    indices = isinstance(target, Sequence) and not isinstance(target, (str, bytes))
    if indices and target and all(is_index(t) for t in target):
        return Logit(tuple(int(t) for t in target))
    raise InputError(
        f"target={target!r} is not a target. Give a class index, one index per sample, a tensor of weights "
        f"of the output's shape, or a function from the output to one score per sample.{by_name(target)}"
    )


def _require_no_rule(target: Any) -> None:
    """Refuse a rule or a place of a composite as a target."""
    if isinstance(target, Place):
        composite = f"[({target!r}, relprop.rules.Epsilon()), ('*', relprop.rules.Epsilon())]"
        raise InputError(f"target={target!r} is a place in a composite. Write rules={composite}.")
    if not hasattr(target, "puts_relevance"):
        return
    rule = f"relprop.rules.{target.__name__ + '()' if isinstance(target, type) else repr(target)}"
    # A rule for other operations than linear ones stands beside one for these.
    rules = f"[('*', {rule}), ('*', relprop.rules.Epsilon())]" if hasattr(target, "kinds") else rule
    raise InputError(f"target={target!r} is a rule, and no score to explain. Write rules={rules}.")


def _require_one_argument(target: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with the output alone."""
    if isinstance(target, OfSamples):
        return
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of functions written in C
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise InputError(
            f"target={target!r} is called with the model's output alone, and does not take it: {error}. Give "
            "a function of the output, such as target=lambda output: output[:, 0]."
        ) from None
