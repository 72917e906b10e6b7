"""The names of ImageNet's 1000 classes."""

from functools import cache
from importlib import resources


@cache
def class_names() -> tuple[str, ...]:
    """Return the names in the order in which models are trained, each a different one: torchvision's."""
    file = resources.files("relprop.data") / "files" / "imagenet-classes.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
