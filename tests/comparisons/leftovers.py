"""What an explanation could leave behind on a model."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def everything_about(model: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Whatever a run could leave behind: values, versions and flags of tensors; attributes; hooks; classes.

    Attributes are compared by identity, so the model must not be copied in between.
    """
    for path, value in [*model.named_parameters(), *model.named_buffers()]:
        digest = hashlib.sha256(value.detach().reshape(-1).view(torch.uint8).numpy()).hexdigest()
        yield (
            path,
            digest,
            value.data_ptr(),
            value._version,
            value.requires_grad,
            value.grad is None,
            id(value),
        )
        yield path, sorted(vars(value)), value.dtype, value.shape, value.stride()
    for path, module in model.named_modules():
        yield path, type(module), sorted(vars(type(module)))
        for attribute, value in vars(module).items():
            held = [(key, id(item)) for key, item in value.items()] if isinstance(value, dict) else None
            yield path, attribute, id(value), held
    for name, value in vars(nn.modules.module).items():
        if name.startswith("_global_") and isinstance(value, dict):
            yield name, list(value)
