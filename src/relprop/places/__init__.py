"""Places in a model, where a rule of a composite applies. `&` (and), `|` (or) and `~` (not) combine them.

    (First() & Kind("convolution"), Flat())
    (Path("layer4.*") & ~Layer(nn.Linear), Gamma(0.25))

In a composite a text stands for a `Path`, a class of modules or a module for a `Layer`, a function of torch
for an `Operation`, and any other function for a `Where`.
"""

from relprop.calls.site import Site
from relprop.places.kinds import (
    Depth,
    FeedForward,
    First,
    Kind,
    Layer,
    Operation,
    Path,
    Perceptron,
    Where,
    as_place,
)
from relprop.places.place import Place

__all__ = [
    "Depth",
    "FeedForward",
    "First",
    "Kind",
    "Layer",
    "Operation",
    "Path",
    "Perceptron",
    "Place",
    "Site",
    "Where",
    "as_place",
]
