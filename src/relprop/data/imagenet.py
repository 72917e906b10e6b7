"""The names of ImageNet's 1000 classes."""

from functools import cache
from importlib import resources


@cache
def class_names() -> tuple[str, ...]:
    """Return torchvision's names of the classes, in the order of the models' outputs. All names differ."""
    file = resources.files("relprop.data") / "files" / "imagenet-classes.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
