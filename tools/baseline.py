"""A record of what relprop computes, over every family of operations, to compare another version with.

python tools/baseline.py write FILE      compute all cases and write the record
python tools/baseline.py compare FILE    compute them again and tell how far they are from the record

Of each tensor of relevance the record has its shape, sum, norm and largest element, and its products with
eight fixed vectors of signs (three, of tensors with few elements), so that a difference of one part in 1e-10
anywhere shows. Of each explanation it has the score, the ledger, and the rules that were applied. With
`--dump DIR` whole tensors are kept beside it.

How much rounding errors grow is measured where the record is written: each case runs again, with inputs that
are changed by one part in 1e15. Where that makes more than a tenth of the tolerance, ten times as much as it
makes is allowed.
"""

import argparse
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import unified_diff
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded
sys.path.append(str(Path(__file__).parents[1] / "tests" / "networks_explained"))  # behind PYTHONPATH

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import Composite
from relprop.data import mnist
from relprop.places import First
from relprop.rules import (
    Absolute,
    AlphaBeta,
    AveragePooling,
    BySize,
    Epsilon,
    EqualShares,
    Flat,
    Gamma,
    SignalTakesAll,
    Uniform,
    WSquare,
    ZBox,
    ZPlus,
)
from relprop.targets import At

spelled: Any = import_module("spellings")
networks: Any = import_module("networks")
small_transformers: Any = import_module("small_transformers")
LINEAR_MODULES: Mapping[str, Any] = import_module("cases").CASES
import_torchvision: Callable[[], Any] = import_module("torchvision_shim").import_torchvision

PROJECTIONS = 8
FEW, FEW_PROJECTIONS = 256, 3  # of tensors with few elements
DIGITS = 12
"""Significant digits of what is written; both sides are rounded before they are compared."""

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
NUDGE, ALLOWED = 1e-15, 10
"""By which part inputs are changed to see how rounding errors grow; how many times that is allowed."""
SINGLE = 1e-4
"""Tolerance of cases that compute in single precision, at least in part."""

Found = Iterator[tuple[str, relprop.Explanation]]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One case: a function that gives explanations by name, and the least tolerance that it needs."""

    run: Callable[[], Found]
    tolerance: float = 0.0


@dataclass
class Settings:
    """What the command line says of all cases.

    Attributes:
        nudge: by which part of them inputs are changed, which shows how rounding errors grow.
    """

    nudge: float = 0.0


SETTINGS = Settings()
CASES: dict[str, Case] = {}


def add(name: str, run: Callable[..., Found], *arguments: Any, tolerance: float = 0.0) -> None:
    """Add a case."""
    assert name not in CASES, name
    CASES[name] = Case(partial(run, *arguments), tolerance)


# ---- what cases are made of ----


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """What is drawn inside is the same each time, and nothing outside changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def made(make: Callable[[], Any], seed: int = 0) -> Any:
    """A module in double precision and evaluation mode, with no parameter that is zero or one."""
    with seeded(seed):
        return small_transformers.drawn(make())


def weighed(output: Any) -> Tensor:
    """A target: all of the output, by weights of both signs."""
    z: Tensor = output.double()
    return (z * draw(*z.shape, seed=7)).flatten(1).sum(1)


def nudged(tensor: Tensor) -> Tensor:
    """The same up to rounding errors, of a size that the settings say."""
    if not tensor.is_floating_point():
        return tensor
    signs = torch.randint(0, 2, tensor.shape, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    return (tensor.double() * (1 + SETTINGS.nudge * signs)).to(tensor.dtype)


INPUTS = ("inputs_embeds", "pixel_values", "input_features", "input_values", "x")


def explain(model: Function, *inputs: Tensor, **options: Any) -> Any:
    """`explain` or `explain_each`; inputs, or weights if there are only tokens, are nudged if asked for."""
    asked: Any = relprop.explain_each if "targets" in options else relprop.explain
    if SETTINGS.nudge:
        floating = [t for t in [*inputs, *map(options.get, INPUTS)] if isinstance(t, Tensor)]
        inputs = tuple(map(nudged, inputs))
        options = {k: nudged(v) if k in INPUTS and isinstance(v, Tensor) else v for k, v in options.items()}
        if not any(t.is_floating_point() for t in floating) and isinstance(model, nn.Module):
            with torch.no_grad():
                saved = [p.clone() for p in model.parameters()]
                for p in model.parameters():
                    p.copy_(nudged(p))
            try:
                return asked(model, *inputs, **options)
            finally:
                with torch.no_grad():
                    for p, value in zip(model.parameters(), saved, strict=True):
                        p.copy_(value)
    return asked(model, *inputs, **options)


# ---- the tutorial's networks on digits ----

TARGETS: dict[str, Any] = {
    "best": None,
    "class": 3,
    "classes": [0, 1, 2],
    "contrastive": relprop.targets.Contrastive(),
    "runner-up": relprop.targets.RunnerUp(),
    "difference": relprop.targets.Difference(7, 9),
    "log-odds": relprop.targets.LogOdds(4),
    "function": lambda output: output[:, 2] - 0.5 * output[:, 0],
}


@lru_cache(maxsize=4)
def tutorial_network(name: str) -> tuple[nn.Module, Tensor]:
    """A trained network, and three digits."""
    model = relprop.load(name)
    digits = mnist.pixels(mnist.test_set().images[:3]).unsqueeze(1)
    x = relprop.zoo.bundled(name).prepare(digits)
    return model.double(), x.double()


def of_digits(name: str, rules: Any) -> Found:
    """One preset."""
    model, x = tutorial_network(name)
    if rules is None:
        explanations = explain(model, x, targets=list(TARGETS.values()), bounds=(-1, 1), per_operation=True)
        yield from zip(TARGETS, explanations, strict=True)
    else:
        yield "", explain(model, x, rules=rules, bounds=(-1, 1))


def of_digits_hidden(name: str, rules: Any) -> Found:
    """Rules with all that a result may have."""
    model, x = tutorial_network(name)
    options: dict[str, Any] = {"record": "*", "parameters": "*.weight", "per_operation": True}
    yield "", explain(model, x, rules=rules, bounds=(-1, 1), target=5, **options)


HIDDEN: dict[str, Any] = {
    "flat": Flat(),
    "w-square": Composite([("*", AveragePooling()), ("*", WSquare())]),
    "distributed bias": Composite([(First(), ZBox(-1, 1)), ("*", Gamma(0.25, bias="distribute"))]),
    "absolute": Absolute(),
}
for _name in relprop.PRESETS:
    if _name not in ("attnlrp", "cp-lrp", "attnlrp-vit"):
        add(f"digits/cnn/{_name}", of_digits, "mnist-cnn", _name)
for _name in ("deep-taylor", "epsilon-gamma-box", "alpha2-beta1", *relprop.rules.BASELINES):
    add(f"digits/mlp/{_name}", of_digits, "mnist-mlp", _name)
for _name, _rules in HIDDEN.items():
    add(f"digits/cnn/{_name}", of_digits_hidden, "mnist-cnn", _rules)
add("digits/cnn/targets", of_digits, "mnist-cnn", None)
add("digits/mlp/targets", of_digits, "mnist-mlp", None)

# ---- networks of torchvision ----


@lru_cache(maxsize=1)  # the cases of a network follow each other
def of_zoo(name: str) -> tuple[nn.Module, Tensor, Any]:
    """A network for classification, its input, and what to explain."""
    return import_module("zoo_networks").NETWORKS[name].make(torch.float64)  # type: ignore[no-any-return]


def of_vision(name: str, rules: Any, options: Mapping[str, Any]) -> Found:
    """One network by one set of rules."""
    model, x, target = of_zoo(name)
    given = {"bounds": (-1, 1), "target": target, **options}
    if "targets" in given:
        del given["target"]
    found = explain(model, x, rules=rules, **given)
    if isinstance(found, list):
        yield from ((str(i), e) for i, e in enumerate(found))
    else:
        yield "", found


REGION = torch.zeros(64, 64, dtype=torch.bool)
REGION[8:24, 4:20] = True
EVERYTHING: dict[str, Any] = {
    "targets": [1, relprop.targets.RunnerUp(), relprop.targets.Weighted(torch.linspace(-1, 1, 10))],
    "record": ["layer2", "layer3.*.conv2", "layer4.0", "bn1"],
    "conditions": {"layer3": [5, 7, 11, 12, 13], "layer2.0.bn2": lambda R: R > 0},
    "parameters": ["conv1.weight", "layer4.1.*", "fc.*"],
    "per_operation": True,
}
VISION: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "resnet18": {
        "default": (None, {"per_operation": True}),
        "epsilon-plus-flat": ("epsilon-plus-flat", {}),
        "alpha2-beta1": ("alpha2-beta1", {"parameters": "layer1.*"}),
        "vgg-2019": ("vgg-2019", {}),
        "excitation": ("excitation", {}),
        "everything": ("epsilon-gamma-box", EVERYTHING),
        "everything, epsilon": ("epsilon", EVERYTHING),
        "start": ("epsilon-gamma-box", {"start": "layer3.1", "target": 5, "record": "layer2"}),
        "by size": (Composite([("*", BySize()), (First(), WSquare()), ("*", Gamma(0.1))]), {}),
        "equal shares": (
            Composite([("*", EqualShares()), ("*", AveragePooling()), ("*", Epsilon(0.01))]),
            {"per_operation": True},
        ),
        "flat in a layer": (
            Composite([("layer3.*", Flat()), ("layer2.*", WSquare()), ("*", AlphaBeta(2, 1))]),
            {"record": "layer1"},
        ),
        "checkpoint": ("epsilon-gamma-box", {"checkpoint": "layer*", "record": "layer2"}),
        "bounds of channels": ("deep-taylor", {"bounds": ([-1, -1.5, -1], [1, 1, 1.2])}),
        "normalisation named": (Composite([(nn.BatchNorm2d, ZPlus()), ("*", Epsilon(0.1))]), {}),
    },
    "densenet121": {
        "default": (None, {}),
        "epsilon-alpha2-beta1-flat": ("epsilon-alpha2-beta1-flat", {}),
        "normalisation named": (Composite([(nn.BatchNorm2d, Gamma(0.1)), ("*", Gamma(0.25))]), {}),
    },
    "efficientnet_b0": {
        "default": (None, {"per_operation": True}),
        "deep-taylor": ("deep-taylor", {}),
        "uniform, flat": (Composite([("*", Uniform()), ("*", Flat())]), {}),
    },
    "mobilenet_v3_small": {
        "default": (None, {"record": ["features.?", "features.4.block.*"]}),
        "epsilon-alpha2-beta1": ("epsilon-alpha2-beta1", {}),
        "epsilon-plus": ("epsilon-plus", {"parameters": "features.1.*"}),
    },
    "shufflenet_v2_x1_0": {"epsilon-plus-flat": ("epsilon-plus-flat", {})},
    "googlenet": {"epsilon-gamma-box": ("epsilon-gamma-box", {})},
    "deeplabv3_mobilenet_v3_large": {
        "epsilon-plus-flat": ("epsilon-plus-flat", {}),
        "region": (None, {"target": relprop.targets.Part("out", relprop.targets.Region(2, REGION))}),
    },
    "convnext_tiny": {"epsilon-plus-flat": ("epsilon-plus-flat", {}), "attnlrp-vit": ("attnlrp-vit", {})},
}
for _name, _variants in VISION.items():
    for _variant, (_rules, _options) in _variants.items():
        add(f"vision/{_name}/{_variant}", of_vision, _name, _rules, _options)

# ---- linear operations ----


def of_linear(rule: Any, behind_relu: bool) -> Found:
    """Every module of a linear operation."""
    for name, one in LINEAR_MODULES.items():
        module = one.module()
        model = nn.Sequential(nn.ReLU(), module).eval() if behind_relu else module
        yield name, explain(model, one.input(nonnegative=False), target=weighed, rules=rule)


LINEAR_RULES = [
    Epsilon(0.1),
    Epsilon(0.25, bias="ignore", of="rms"),
    Epsilon(0.1, bias="distribute"),
    Gamma(0.25),
    AlphaBeta(2, 1),
    AlphaBeta(3, 2, bias="absorb"),
    ZPlus(bias="absorb"),
    Absolute(),
    Flat(),
    WSquare(),
    ZBox(-4, 4),
]
for _rule in LINEAR_RULES:
    add(f"linear/{_rule}", of_linear, _rule, False)
for _rule in (Gamma(0.5, favour="positive"), Gamma(0.25), AlphaBeta(2, 1), ZPlus(bias="distribute")):
    add(f"linear behind ReLU/{_rule}", of_linear, _rule, True)


def of_linear_layers(rule: Any) -> Found:
    """Two linear operations of every dimension with an activation between."""
    for name, first, last, shape in (
        ("conv1d", nn.Conv1d(2, 4, 3, padding="same"), nn.Conv1d(4, 3, 2, groups=1, dilation=2), (2, 8)),
        ("conv3d", nn.Conv3d(1, 2, 2), nn.ConvTranspose3d(2, 2, 2, stride=2), (1, 3, 4, 3)),
        ("grouped", nn.Conv2d(2, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 3, groups=8), (2, 6, 6)),
        ("dilated", nn.Conv2d(2, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 3, 1), (2, 6, 6)),
        ("circular", nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 3, 3), (2, 5, 5)),
        ("reflected", nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 3, 3), (2, 5, 5)),
        ("transposed", nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 3, 2), (2, 4, 4)),
        ("same", nn.Conv2d(2, 4, 4, padding="same"), nn.Conv2d(4, 3, (3, 2), padding="same"), (2, 5, 5)),
    ):
        model = made(partial(nn.Sequential, first, nn.ReLU(), last))
        yield name, explain(model, draw(2, *shape), target=weighed, rules=rule, record="*", parameters="*")


MIXED = Composite([(First(), ZBox(-5, 5)), ("*", Gamma(0.25))])
for _name, _rules in {"mixed": MIXED, "flat": Flat(), "alpha-beta": AlphaBeta(2, 1)}.items():
    add(f"layers/{_name}", of_linear_layers, _rules)

# ---- networks in several spellings; activation functions ----


def of_spelling(spelling: str, rules: Any) -> Found:
    """A residual network with squeeze-and-excitation, in one spelling."""
    for activation, gate in (("relu", "sigmoid"), ("silu", "hardsigmoid"), ("hardswish", "sigmoid")):
        with seeded(2):
            first = spelled.Network(spelled.spellings(activation, gate)["modules"])
        model = first.written(spelled.spellings(activation, gate)[spelling])
        yield activation, explain(model, draw(2, 2, 8, 8), rules=rules, target=1, bounds=(-5, 5))


for _spelling in ("modules", "functional", "in place", "written out", "folded"):
    add(f"spellings/{_spelling}/epsilon-gamma-box", of_spelling, _spelling, "epsilon-gamma-box")
    _rules = Composite([("*", BySize()), ("*", Uniform()), ("*", AveragePooling()), ("*", WSquare())])
    add(f"spellings/{_spelling}/w-square", of_spelling, _spelling, _rules)


def of_activations(rules: Any, all_of_them: bool) -> Found:
    """Every activation function between two layers, and what is computed behind it."""
    first, last = made(lambda: nn.Linear(6, 8), 1), made(lambda: nn.Linear(8, 3), 2)
    for name, functions in spelled.ACTIVATIONS.items():
        for number, function in enumerate(functions if all_of_them else functions[:1]):

            def model(x: Tensor, function: Function = function) -> Any:
                return last(function(first(x)))

            yield f"{name} {number}", explain(model, draw(2, 6), target=1, rules=rules)


add("activations/gamma", of_activations, Gamma(0.25), True)
add("activations/flat", of_activations, Flat(), False)
add("activations/epsilon", of_activations, Composite([("*", Uniform()), ("*", Epsilon(0.1))]), False)

# ---- operations, one by one: functions of (N, C, L) between two layers ----

N, C, L = 2, 4, 6
CONSTANT = draw(C, L, seed=5)
ROW = torch.tensor([0])
GRID = torch.rand(1, 3, 5, 2, generator=torch.Generator().manual_seed(6), **DOUBLE) * 2.6 - 1.3
IMAGES = {1: (24,), 2: (4, 6), 3: (2, 2, 6)}


def pooled(name: str, n: int, *arguments: Any, indices: bool = False) -> Function:
    """Pooling of an image of n dimensions."""
    function = getattr(F, f"{name}_pool{n}d")

    def pool(x: Tensor) -> Any:
        if indices:
            return function(x.view(N, 1, *IMAGES[n]), *(arguments or (2,)), return_indices=True)[0]
        return function(x.view(N, 1, *IMAGES[n]), *(arguments or (2,)))

    return pool


def unpooled(n: int) -> Function:
    """Max-pooling of an image of n dimensions, and its partial inverse."""
    pool, unpool = getattr(F, f"max_pool{n}d"), getattr(F, f"max_unpool{n}d")
    return lambda x: unpool(*pool(x.view(N, 1, *IMAGES[n]), 2, return_indices=True), 2)


def fractional(n: int) -> Function:
    """Fractional max-pooling, of regions that are the same in every call."""
    function = getattr(F, f"fractional_max_pool{n}d")
    shape, kernel, output = {2: ((4, 6), 2, (2, 3)), 3: ((2, 3, 4), (1, 1, 2), (1, 2, 2))}[n]
    samples = torch.full((N, 1, n), 0.4, **DOUBLE)
    return lambda x: function(x.view(N, 1, *shape), kernel, output, _random_samples=samples)


def written(write: Callable[[Tensor, Tensor], Any]) -> Function:
    """A function that writes to a copy of its operand."""

    def function(x: Tensor) -> Tensor:
        copy = x.clone()
        write(copy, x)
        return copy

    return function


def assign(h: Tensor, x: Tensor) -> None:
    """Write one row of x, and a number."""
    h[:, 0] = x[:, 1]
    h[:, 2, 1:3] = 0.7


def interpolated(mode: str, **options: Any) -> Function:
    """Interpolation of an image to another size."""
    return lambda x: F.interpolate(x.view(N, 1, 4, 6), (6, 5), mode=mode, **options)


def sampled(**options: Any) -> Function:
    """An image at fixed positions, some outside of it."""
    return lambda x: F.grid_sample(x.view(N, 2, 3, 4), GRID.expand(N, -1, -1, -1), **options)


def as_complex(x: Tensor) -> Tensor:
    """Neighbours as real and imaginary part."""
    return torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))


def spectrum(name: str) -> Function:
    """A Fourier transform of real values, real and imaginary parts beside each other."""
    return lambda x: torch.view_as_real(getattr(torch.fft, name)(x).resolve_conj())


def of_spectrum(name: str) -> Function:
    """A Fourier transform of complex values to real ones."""
    return lambda x: getattr(torch.fft, name)(torch.complex(x, x.flip(-1)))


OPERATIONS: dict[str, dict[str, Function]] = {
    "pooling": {
        **{
            f"{k}{n}": pooled(k, n)
            for k, n in product(("avg", "max", "adaptive_avg", "adaptive_max"), (1, 2, 3))
        },
        **{
            f"{k}{n} indices": pooled(k, n, indices=True)
            for k, n in product(("max", "adaptive_max"), (1, 2, 3))
        },
        **{f"lp{n}": (lambda x, n=n: pooled("lp", n, 3.0, 2)(x.abs())) for n in (1, 2, 3)},
        **{f"fractional{n}": fractional(n) for n in (2, 3)},
        **{f"unpool{n}": unpooled(n) for n in (1, 2, 3)},
        "max, overlapping": pooled("max", 2, 3, 1, 1),
        "avg, padded": pooled("avg", 2, 3, 2, 1, False, False),
    },
    "reductions": {
        "sum": lambda x: x.sum(-1),
        "mean": lambda x: x.mean(1, keepdim=True),
        "cumsum": lambda x: x.cumsum(1),
        "norm": lambda x: torch.norm(x, dim=1),
        "vector norm": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
        "std": lambda x: x.std(2),
        "var": lambda x: x.var(2),
        "amax": lambda x: x.amax(1),
        "amin": lambda x: x.amin(2, keepdim=True),
        "max": lambda x: torch.cat([x.max(1).values, torch.max(x, x.flip(1)).flatten(1)], 1),
        "min": lambda x: torch.cat([x.min(1).values, torch.min(x, CONSTANT).flatten(1)], 1),
        "maximum": lambda x: torch.maximum(x, CONSTANT),
        "median": lambda x: x.median(2).values,
        "topk": lambda x: x.topk(2, 1).values,
        "sort": lambda x: x.sort(1).values,
        "log_softmax": lambda x: F.log_softmax(x, 2),
        "softmax": lambda x: x.softmax(2),
        "softmin": lambda x: F.softmin(x, 1),
    },
    "sums and products": {
        "add": lambda x: x + x.flip(1),
        "add, broadcast": lambda x: x + x.flip(1)[:, :1],
        "add constant": lambda x: x + CONSTANT,
        "sub": lambda x: x - 0.5 * x.flip(1),
        "rsub": lambda x: torch.rsub(x, x.flip(1), alpha=2),
        "mul constant": lambda x: 2 * x * CONSTANT,
        "div": lambda x: x / 3 / (CONSTANT.abs() + 1),
        "neg": lambda x: -x,
        "mul": lambda x: x * x.flip(1),
        "mul, broadcast": lambda x: x * x.mean(2, keepdim=True).sigmoid(),
        "mul by softmax": lambda x: x.flip(1) * x.softmax(1),
        "gated": lambda x: F.silu(x[:, :2]) * x[:, 2:],
        "glu": lambda x: F.glu(x, 2),
        "addcmul": lambda x: torch.addcmul(x, x, x.flip(1), value=0.5),
        "addcdiv": lambda x: torch.addcdiv(x, x, x.norm(dim=1, keepdim=True), value=0.5),
        "div by statistic": lambda x: x / (1 + x.square().mean(2, keepdim=True)),
        "solve_triangular": lambda x: torch.linalg.solve_triangular(
            CONSTANT[:, :C].triu() + 2 * torch.eye(C, **DOUBLE), x, upper=True
        ),
    },
    "contractions": {
        "matmul by constant": lambda x: x @ CONSTANT.T,
        "constant matmul": lambda x: CONSTANT.T @ x,
        "rmatmul": lambda x: x.__rmatmul__(CONSTANT.T),
        "bmm by constant": lambda x: torch.bmm(x, CONSTANT.T.expand(N, -1, -1)),
        "einsum by constant": lambda x: torch.einsum("ncl,kl->nk", x, CONSTANT),
        "einsum of a list": lambda x: torch.einsum("ncl,cl->nl", [x, CONSTANT]),
        "addmm": lambda x: torch.addmm(CONSTANT[0, :C], x.flatten(0, 1), CONSTANT.T).view(N, C, C),
        "product with bias": lambda x: x @ CONSTANT.T + CONSTANT[:, 0],
        "linear": lambda x: F.linear(x, CONSTANT, CONSTANT[:, 1]),
        "matmul": lambda x: x @ x.mT,
        "bmm": lambda x: torch.bmm(x.mT, x.flip(1)),
        "baddbmm": lambda x: torch.baddbmm(x[..., :C], x, x.flip(2).mT, beta=0.5, alpha=0.3),
        "baddbmm by constant": lambda x: torch.baddbmm(CONSTANT[:, :C], x, CONSTANT.T.expand(N, -1, -1)),
        "einsum": lambda x: torch.einsum("ncl,nkl->nck", x, x.flip(1)),
        "einsum of three": lambda x: torch.einsum("ncl,nkl,nl->nc", x, x.flip(1), x[:, 0]),
        "einsum, elementwise": lambda x: torch.einsum("ncl,ncl->ncl", x, x.flip(2)),
        "attention": lambda x: (x @ x.mT * 0.4).softmax(-1) @ x.flip(1),
    },
    "normalisation": {
        "batch": lambda x: F.batch_norm(
            x, CONSTANT[:, 0], CONSTANT[:, 1].abs(), CONSTANT[:, 2], CONSTANT[:, 3]
        ),
        "batch behind relu": lambda x: F.batch_norm(
            x.relu(), CONSTANT[:, 0], CONSTANT[:, 1].abs(), CONSTANT[:, 2], CONSTANT[:, 3]
        ),
        "layer": lambda x: F.layer_norm(x, (C, L), CONSTANT, CONSTANT + 1),
        "rms": lambda x: F.rms_norm(x, (L,), CONSTANT[0], 1e-3),
        "group": lambda x: F.group_norm(x, 2, CONSTANT[:, 0], CONSTANT[:, 1]),
        "instance": lambda x: F.instance_norm(x, weight=CONSTANT[:, 0], bias=CONSTANT[:, 1]),
        "local response": lambda x: F.local_response_norm(x, 3, alpha=0.5),
        "normalize": F.normalize,
        "rms, written out": lambda x: CONSTANT[0] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)),
        "deviation": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1) + CONSTANT[0],
        "reciprocal": lambda x: x * (x.square().mean(2, keepdim=True) + 0.1).reciprocal(),
        "rdiv": lambda x: (1 / (x.var(2, keepdim=True) + 0.1).sqrt()) * x,
        "pow": lambda x: x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-3, -0.5),
    },
    "resampling": {
        **{mode: interpolated(mode) for mode in ("nearest", "nearest-exact", "area", "bilinear", "bicubic")},
        "bilinear, aligned": interpolated("bilinear", align_corners=True),
        "bilinear, antialiased": interpolated("bilinear", antialias=True),
        "linear": lambda x: F.interpolate(x, 9, mode="linear"),
        "trilinear": lambda x: F.interpolate(x.view(N, 1, 2, 2, 6), (3, 4, 5), mode="trilinear"),
        "grid": sampled(align_corners=False, padding_mode="zeros"),
        "grid, border": sampled(align_corners=True, padding_mode="border"),
        "grid, nearest": sampled(align_corners=False, padding_mode="reflection", mode="nearest"),
        "affine_grid": lambda x: F.affine_grid(x[..., :3].unflatten(1, (2, 2))[:, 0], [N, 1, 2, 2], True),
        "fold": lambda x: F.fold(x, (4, 3), (2, 2), stride=(1, 1)),
        "unfold": lambda x: F.unfold(x.view(N, 1, 4, 6), 2),
        "tensor unfold": lambda x: x.unfold(2, 3, 1),
        "pixel_shuffle": lambda x: F.pixel_shuffle(x.view(N, C, 2, 3), 2),
        "pixel_unshuffle": lambda x: F.pixel_unshuffle(x.view(N, 1, 4, 6), 2),
        "channel_shuffle": lambda x: torch.channel_shuffle(x.view(N, C, 2, 3), 2),
    },
    "rearranging": {
        "view": lambda x: x.view(N, -1),
        "permute": lambda x: x.permute(0, 2, 1),
        "flip": lambda x: x.flip(1),
        "roll": lambda x: torch.roll(x, 1, 2),
        "rot90": lambda x: torch.rot90(x, 1, (1, 2)),
        "expand": lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1),
        "repeat": lambda x: x.repeat(1, 2, 1),
        "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
        "tile": lambda x: x.tile(2),
        "cat": lambda x: torch.cat([x, x.flip(1), CONSTANT.expand(N, -1, -1)], 1),
        "stack": lambda x: torch.stack(tensors=(x, x.flip(2), CONSTANT.expand(N, -1, -1)), dim=1),
        "hstack": lambda x: torch.hstack([x, x]),
        "vstack": lambda x: torch.vstack([x[:1], x[1:]]),
        "split": lambda x: x.split([1, 3], dim=1)[1],
        "chunk": lambda x: torch.chunk(x, 2, 2)[0],
        "unbind": lambda x: x.unbind(1)[2],
        "diagonal": lambda x: x.diagonal(1, 1, 2),
        "tril": torch.tril,
        "narrow": lambda x: x.narrow(2, 1, 3),
        "getitem": lambda x: x[:, [0, 0, 2], 1:],
        "gather": lambda x: x.gather(2, torch.tensor([0, 0, 3]).expand(N, C, 3)),
        "index_select": lambda x: x.index_select(1, torch.tensor([2, 2, 1])),
        "take_along_dim": lambda x: torch.take_along_dim(x, torch.tensor([[[1]]]), 2),
        "as_strided": lambda x: x.contiguous().as_strided((N, C, 4, 2), (6 * C, 6, 1, 2)),
        "pad": lambda x: F.pad(x, (1, 2)),
        "pad, value": lambda x: F.pad(x, (1, 2), value=0.5),
        "pad, reflected": lambda x: F.pad(x, (1, 2), mode="reflect"),
    },
    "writing": {
        "where": lambda x: torch.cat([torch.where(CONSTANT > 0, x, 2.0), x.where(x > 0, x.flip(1))], 1),
        "masked_fill": lambda x: x.masked_fill(CONSTANT > 0, 2.0),
        "setitem": written(assign),
        "copy": written(lambda h, x: h[:, 0].copy_(x[:, 1])),
        "fill": written(lambda h, x: h[:, 0].fill_(2.0)),
        "zero": written(lambda h, x: h[:, 0].zero_()),
        "relu on a part": written(lambda h, x: h[:, 1:3].relu_()),
        "add on a part": written(lambda h, x: h[:, 1:3].add_(x[:, :2])),
        "index_put": lambda x: x.index_put((ROW, ROW + 1), x[0, 2:3]),
        "index_copy": lambda x: x.index_copy(1, ROW, x[:, 1:2]),
        "index_fill": lambda x: x.index_fill(1, ROW, 2.0),
        "index_add": lambda x: x.index_add(1, ROW, x[:, 1:2], alpha=2),
        "scatter": lambda x: x.scatter(1, ROW.expand(N, 1, 6), x[:, 1:2]),
        "scatter_add": lambda x: x.scatter_add(1, ROW.expand(N, 2, 6), x[:, 1:3]),
        "masked_scatter": lambda x: x.masked_scatter(CONSTANT > 0, x.flip(1)),
    },
    "complex": {
        "view_as_complex": lambda x: torch.view_as_real(as_complex(x)),
        "turned": lambda x: torch.view_as_real(as_complex(x) * 1j),
        "real": lambda x: (as_complex(x) * (2 + 1j)).real,
        "imag": lambda x: (as_complex(x) * (2 + 1j)).imag,
        "complex": lambda x: (torch.complex(x, x.flip(-1)) * 1j).real,
        "conj": lambda x: torch.complex(x, x.flip(-1)).conj().imag,
        **{
            f"fft {name}": spectrum(name)
            for name in ("fft", "ifft", "rfft", "ihfft", "fft2", "rfft2", "fftn")
        },
        **{f"fft {name}": of_spectrum(name) for name in ("irfft", "hfft", "irfft2", "irfftn")},
    },
    "pointwise": {
        "abs": torch.abs,
        "leaky_relu": F.leaky_relu,
        "prelu": lambda x: F.prelu(x, torch.tensor([0.25], **DOUBLE)),
        "rrelu": F.rrelu,
        "threshold": lambda x: F.threshold(x, 0.1, 0.0),
        "dropout": lambda x: F.dropout(x, training=False),
        "nan_to_num": torch.nan_to_num,
        "clamp": lambda x: x.clamp(-0.3, 0.7),
        "selu": F.selu,
        "celu": F.celu,
        "hardshrink": F.hardshrink,
        "softshrink": F.softshrink,
        "logsigmoid": F.logsigmoid,
        "exp": torch.exp,
        "log": lambda x: torch.log(1 + torch.exp(x)),
        "sin": torch.sin,
        "cos": torch.cos,
        "atan": torch.atan,
        "erf": torch.erf,
        "cube": lambda x: x**3,
        "square": torch.square,
        "sqrt": lambda x: x.abs().sqrt(),
    },
}


def of_operations(family: str, rules: Any) -> Found:
    """Every operation of a family, between two linear layers."""
    first = made(lambda: nn.Linear(L, L), 3)
    for name, function in OPERATIONS[family].items():
        features = function(draw(N, C, L)).reshape(N, -1).shape[1]
        last = made(partial(nn.Linear, features, 3), 4)

        def model(x: Tensor, function: Function = function, last: Any = last) -> Any:
            return last(function(first(x)).reshape(N, -1))

        yield name, explain(model, draw(N, C, L, seed=1), target=1, rules=rules)


def of_vectors() -> Found:
    """A matrix times a constant vector, which other rules of 0.3 than ε = 0 do not take."""
    first, last = made(partial(nn.Linear, L, L), 3), made(partial(nn.Linear, C, 3), 4)

    def model(x: Tensor) -> Any:
        return last(torch.mv(first(x).flatten(0, 1), CONSTANT[0]).view(N, C))

    for rule in (Epsilon(0), Composite([("", Epsilon(0)), ("*", Gamma())])):
        yield type(rule).__name__, explain(model, draw(N, C, L, seed=1), target=1, rules=rule)


add("operations/mv", of_vectors)
RULES_OF_OPERATIONS: dict[str, Any] = {
    "epsilon": Epsilon(0.01),
    "w-square": WSquare(),  # slots everywhere
    "shares": Composite(
        [
            ("*", EqualShares()),
            ("*", Uniform()),
            ("*", AveragePooling()),
            (First(), Flat()),
            ("*", Gamma()),
        ]
    ),
}
for _family in OPERATIONS:
    for _name, _rules in RULES_OF_OPERATIONS.items():
        if _name != "shares" or _family in ("pooling", "sums and products", "contractions"):
            add(f"operations/{_family}/{_name}", of_operations, _family, _rules)

# ---- folding, gates, blocks ----


class Normalised(nn.Module):
    """Pixels that are normalised within the model, zeros padded by hand, a transpose before a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), networks.batch_norm(4)
        self.before, self.after = networks.batch_norm(4), nn.Conv2d(4, 4, 3, padding=1)
        self.linear, self.last_norm, self.head = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.last_norm.load_state_dict(networks.batch_norm(5).state_dict())

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.tensor([0.48, 0.45, 0.4], **DOUBLE).view(3, 1, 1)
        x = (x - mean) / torch.tensor([0.22, 0.23, 0.21], **DOUBLE).view(3, 1, 1)
        x = self.norm(self.conv(F.pad(x, (1, 1, 1, 1)))).relu()
        x = self.after(self.before(x)).relu()
        x = self.last_norm(self.linear(x.flatten(2).mT).mT).relu()
        return self.head(x.mean(2))  # type: ignore[no-any-return]


class UpAndDown(nn.Module):
    """Transposed convolutions with batch norms, alone and folded, and a skip connection by `cat`."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm1 = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), networks.batch_norm(4)
        self.up, self.norm2 = (
            nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2, bias=False),
            networks.batch_norm(4),
        )
        self.alone, self.out = networks.batch_norm(6), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.down(x)), 0.1)
        y = F.relu(self.norm2(self.up(y)))
        return self.out(self.alone(torch.cat([x, y], 1)).relu())  # type: ignore[no-any-return]


class Gated(nn.Module):
    """SwiGLU written out, squeeze-and-excitation over tokens, a GLU and a GELU by tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(6, 9), nn.Linear(6, 9), nn.Linear(9, 6))
        self.squeeze, self.excite = nn.Linear(6, 3), nn.Linear(3, 6)
        self.both, self.last = nn.Linear(6, 8), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        x = x + self.down(gate * torch.sigmoid(gate) * self.up(x))
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean(1, keepdim=True)))))
        x = F.glu(self.both(x), -1)
        x = 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))
        return self.last(x).mean(1)  # type: ignore[no-any-return]


BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "normalised pixels": (Normalised, (3, 6, 6)),
    "up and down": (UpAndDown, (2, 6, 6)),
    "gated": (Gated, (4, 6)),
    "residual": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), networks.Residual(4), networks.Spelled(), networks.Residual(4)
        ),
        (2, 6, 6),
    ),
}
BLOCK_RULES: dict[str, Any] = {
    "box": Composite([(First(), ZBox(-6, 6)), ("*", Gamma(0.25))]),
    "flat": Flat(),
    "alpha-beta": AlphaBeta(2, 1, bias="absorb"),
    "sums and products": Composite(
        [("*", Uniform()), ("*", EqualShares()), (nn.BatchNorm2d, Epsilon(0.1)), ("*", Epsilon(0.1))]
    ),
    "by module": Composite(
        [("", SignalTakesAll()), ("3", BySize()), ("*", EqualShares()), ("*.0", ZPlus()), ("*", WSquare())]
    ),
}


def of_blocks(rules: Any) -> Found:
    """Every block, with inner values, parameters and books for each operation."""
    for name, (make, shape) in BLOCKS.items():
        model = made(make, 8)
        options: dict[str, Any] = {"record": "*", "parameters": "*weight", "per_operation": True}
        yield name, explain(model, draw(2, *shape, seed=3), target=weighed, rules=rules, **options)


for _name, _rules in BLOCK_RULES.items():
    add(f"blocks/{_name}", of_blocks, _rules)


def of_small_networks(rules: Any) -> Found:
    """The tests' networks: everything that is folded, re-rooted or overwritten."""
    x = draw(2, 2, 8, 8, seed=4)
    with seeded():
        yield (
            "modules",
            explain(networks.modules(), x[..., :6, :6], rules=rules, bounds=(-5, 5), target=1, record="*"),
        )
    for bias in (True, False):
        with seeded():
            model = networks.network(bias=bias)
        paths = [name for name, _ in model.named_modules() if name]
        found = explain(model, x[..., :6, :6], rules=rules, bounds=(-5, 5), target=1, record=paths)
        yield f"network, bias={bias}", found
    for number in (-1, 0):
        found = explain(
            made(networks.Twice, 5),
            draw(3, 4),
            rules=rules,
            start=("linear", number),
            target=2,
            bounds=(-5, 5),
        )
        yield f"twice {number}", found


for _name in ("epsilon-gamma-box", "alpha2-beta1", "epsilon-plus-flat"):
    add(f"networks/{_name}", of_small_networks, _name)
add("networks/w-square", of_small_networks, WSquare())


def of_tuned_products() -> Found:
    """Rules for products by module, and for weights that are computed."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = Gated(), Gated(), nn.Linear(9, 2)
            self.base = nn.Linear(6, 9)

        def forward(self, x: Tensor) -> Tensor:
            weight = F.normalize(self.base.weight, dim=1) * self.base.bias[:, None].exp()
            return self.head(F.linear(x.mean(1), weight) + (self.a(x) * self.b(x)).repeat(1, 3))  # type: ignore[no-any-return]

    rules = Composite(
        [("a", Uniform()), ("b", SignalTakesAll()), ("", Uniform()), ("a.*", Flat()), ("*", Gamma(0.1))]
    )
    yield "", explain(made(Two, 9), draw(2, 4, 6, seed=3), target=1, rules=rules, per_operation=True)


add("blocks/products by module", of_tuned_products)


# ---- attention ----

HEADS, QUERIES, KEYS, SIZE = 3, 4, 5, 6


def hidden(*shape: int) -> Tensor:
    """Which keys are hidden: never the first."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(8)) < 0.4
    mask[..., 0] = False
    return mask


MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": ~hidden(N, HEADS, QUERIES, KEYS)},
    "bool of samples": {"attn_mask": ~hidden(N, 1, 1, KEYS)},
    "float": {"attn_mask": draw(N, 1, QUERIES, KEYS, seed=9)},
    "infinite": {
        "attn_mask": torch.zeros(QUERIES, KEYS, **DOUBLE).masked_fill(hidden(QUERIES, KEYS), -math.inf)
    },
    "scaled": {"scale": -0.3},
}


def operands(heads: int = HEADS, groups: int = HEADS) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    return (
        draw(N, heads, QUERIES, SIZE, seed=1),
        draw(N, groups, KEYS, SIZE, seed=2),
        draw(N, groups, KEYS, SIZE, seed=3),
    )


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention written out."""
    return torch.softmax(torch.matmul(q, k.transpose(-2, -1)) * SIZE**-0.5 + mask, dim=-1) @ v


def filled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Likewise, with scores that are overwritten."""
    scores = ((q * SIZE**-0.5) @ k.mT).masked_fill(mask < -1, -math.inf)
    return F.dropout(F.softmax(scores, -1, dtype=torch.float64), 0.5, training=False).matmul(v)


def batched(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Likewise, with heads as samples."""
    mask = mask.expand(N, HEADS, QUERIES, KEYS).flatten(0, 1)
    scores = torch.baddbmm(mask, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=SIZE**-0.5)
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view(N, HEADS, QUERIES, SIZE)


def by_einsum(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Likewise, by einsum."""
    scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / SIZE**0.5
    return torch.einsum("nhqk,nhkd->nhqd", (scores + mask).softmax(3), v)


def of_attention(rules: Any) -> Found:
    """Fused attention with every mask, and written out."""
    q, k, v = operands()
    model: Any
    for name, options in MASKS.items():
        fused = partial(F.scaled_dot_product_attention, **options)
        yield name, explain(lambda q, k, v, f=fused: f(q, k, v), q, k, v, target=weighed, rules=rules)
    for function in (plain, filled, batched, by_einsum):
        mask = draw(N, 1, QUERIES, KEYS, seed=9)
        model = lambda q, k, v, f=function, mask=mask: f(q, k, v, mask)  # noqa: E731
        yield function.__name__, explain(model, q, k, v, target=weighed, rules=rules)
    for groups, causal in ((1, False), (2, True)):
        grouped = partial(F.scaled_dot_product_attention, enable_gqa=True, is_causal=causal)
        model = lambda q, k, v, f=grouped: f(q, k, v)  # noqa: E731
        yield f"groups {groups}", explain(model, *operands(4, groups), target=weighed, rules=rules)
    model = lambda q, v: F.scaled_dot_product_attention(q, k, v)  # noqa: E731
    yield "constant keys", explain(model, q, v, target=weighed, rules=rules)


def of_multi_head(rules: Any) -> Found:
    """torch's module of attention, and layers of transformers."""
    x, memory = draw(N, QUERIES, 12, seed=1), draw(N, KEYS, 12, seed=2)
    padding = hidden(N, KEYS)
    settings: dict[str, Any]
    options: dict[str, Any]
    model: Any
    for name, settings, options in (
        ("plain", {}, {"need_weights": False}),
        ("weights", {}, {"need_weights": True}),
        ("padding", {}, {"key_padding_mask": padding, "need_weights": False}),
        ("padding, weights", {}, {"key_padding_mask": padding, "need_weights": True}),
        ("mask", {"bias": False}, {"attn_mask": draw(QUERIES, KEYS, seed=9), "need_weights": False}),
        ("bias_kv", {"add_bias_kv": True, "add_zero_attn": True}, {"need_weights": False}),
        ("sizes", {"kdim": 12, "vdim": 12}, {"average_attn_weights": False}),
    ):
        module = made(partial(nn.MultiheadAttention, 12, 4, batch_first=True, **settings), 2)
        model = lambda x, y, m=module, o=options: m(x, y, y, **o)[0]  # noqa: E731
        yield name, explain(model, x, memory, target=weighed, rules=rules)
    causal = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)
    layers: dict[str, dict[str, Any]] = {
        "norm after": {},
        "norm first, gelu": {"norm_first": True, "activation": "gelu"},
    }
    for name, settings in layers.items():
        layer = made(partial(nn.TransformerEncoderLayer, 12, 4, 24, batch_first=True, **settings), 3)
        model = lambda x, m=layer: m(x, src_mask=causal)  # noqa: E731
        yield f"encoder, {name}", explain(model, x, target=weighed, rules=rules)
        frozen = made(partial(nn.TransformerEncoderLayer, 12, 4, 24, batch_first=True, **settings), 3)
        yield (
            f"encoder, {name}, frozen",
            explain(frozen.requires_grad_(False), x, target=weighed, rules=rules),
        )
        decoder = made(partial(nn.TransformerDecoderLayer, 12, 4, 24, batch_first=True, **settings), 3)
        model = lambda x, y, m=decoder: m(x, y, tgt_mask=causal)  # noqa: E731
        yield f"decoder, {name}", explain(model, x, memory, target=weighed, rules=rules)


ATTENTION_RULES: dict[str, Any] = {
    "attnlrp": "attnlrp",
    "cp-lrp": "cp-lrp",
    "gamma": Composite([("*", Uniform()), ("*", Gamma(0.1))]),
    "flat": Flat(),
}
for _name, _rules in ATTENTION_RULES.items():
    add(f"attention/{_name}", of_attention, _rules)
    add(f"multi-head/{_name}", of_multi_head, _rules)


# ---- experts ----


def of_experts(grouped: bool) -> Found:
    """A mixture of experts by every rule."""
    model = made(lambda: networks.Experts(grouped=grouped), 5)
    model, x = (model.float(), draw(N, 6, 8).float()) if grouped else (model, draw(N, 6, 8))
    rules: Any
    for rules in ("attnlrp", "cp-lrp", Gamma(0.25), Flat()):
        yield str(rules)[:7], explain(model, x, target=weighed, rules=rules)
    if grouped:
        ends, w = torch.tensor([3, 3, 7, 8], dtype=torch.int32), draw(4, 8, 4, seed=3).float()
        for rules in (Epsilon(0.1), ZPlus(), AlphaBeta(2, 1), WSquare()):
            one: Function = lambda x: F.grouped_mm(x, w, offs=ends)  # noqa: E731
            yield str(rules), explain(one, draw(8, 8).float(), target=weighed, rules=rules)


add("experts/loop", of_experts, False)
add("experts/grouped", of_experts, True, tolerance=SINGLE)

# ---- language models and other transformers ----


class InDouble:
    """The module torch, as one of transformers sees it that computes parts in single precision."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def in_double() -> Iterator[None]:
    """Let models of transformers compute in double precision what they compute in single, such as norms.

    What is rounded to single precision in the backward cannot be compared to 1e-10.
    """
    import_torchvision()
    changed = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("transformers.models.") and ".modeling_" in name and hasattr(module, "torch")
    ]
    for module in changed:
        vars(module)["torch"] = InDouble()
    try:
        yield
    finally:
        for module in changed:
            vars(module)["torch"] = torch


@lru_cache(maxsize=1)
def of_families(name: str) -> tuple[nn.Module, dict[str, Any], Any]:
    """A tiny model of a library, its arguments, and what to explain."""
    import_torchvision()
    every = {**import_module("transformer_families").FAMILIES, **import_module("unusual_families").FAMILIES}
    return every[name].make(torch.float64)  # type: ignore[no-any-return]


def of_family(name: str, rules: Any, options: Mapping[str, Any]) -> Found:
    """One model by one set of rules."""
    model, arguments, target = of_families(name)
    with in_double():
        yield "", explain(model, **arguments, target=target, rules=rules, **options)


FAMILIES = {
    "bert-sdpa": ("attnlrp", "cp-lrp"),
    "bert-eager": ("attnlrp",),
    "gpt2-sdpa": ("attnlrp", "cp-lrp"),
    "t5-sdpa": ("attnlrp", "cp-lrp"),
    "qwen3-sdpa": ("attnlrp", "cp-lrp"),
    "mixtral-sdpa-eager": ("attnlrp", "cp-lrp"),
    "mixtral-sdpa-batched_mm": ("attnlrp",),
    "gemma3-eager": ("attnlrp",),
    "modernbert-sdpa": ("cp-lrp",),
    "whisper-sdpa": ("cp-lrp",),
    "wav2vec2-sdpa": ("attnlrp",),
    "clip-sdpa": ("attnlrp",),
    "fnet-eager": ("attnlrp",),
    "deberta-eager": ("attnlrp",),
    "longformer-eager": ("cp-lrp",),
    "torchvision-vit-sdpa": ("attnlrp", "cp-lrp", "attnlrp-vit", "epsilon-plus-flat"),
    "torchvision-swin-sdpa": ("attnlrp", "attnlrp-vit", "epsilon-plus-flat"),
    "timm-coatnet-sdpa": ("attnlrp-vit",),
}
PARTLY_SINGLE = ("mixtral", "gemma3", "deberta")
"""What these compute by `x.float()` stays in single precision; their books close to 1e-7."""
for _name, _presets in FAMILIES.items():
    _tolerance = 1e-6 if _name.startswith(PARTLY_SINGLE) else 0.0
    for _preset in _presets:
        _options = {"per_operation": True} if _preset == "attnlrp" else {}
        add(f"transformers/{_name}/{_preset}", of_family, _name, _preset, _options, tolerance=_tolerance)
add("transformers/torchvision-vit-sdpa/flat", of_family, "torchvision-vit-sdpa", Flat(), {})


@lru_cache(maxsize=1)
def llama() -> Any:
    """A LLaMA of eight layers."""
    import_torchvision()
    transformers: Any = import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    with seeded():
        return louder(transformers.LlamaForCausalLM(config))


def louder(model: Any) -> Any:
    """Larger weights than a model begins with, in double precision and evaluation mode."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)
    return model.double().eval()


IDS = torch.randint(3, 98, (2, 32), generator=torch.Generator().manual_seed(3))
LLAMA: dict[str, dict[str, Any]] = {
    "attnlrp": {"rules": "attnlrp", "per_operation": True},
    "cp-lrp": {"rules": "cp-lrp"},
    "gamma": {"rules": Composite([("*", Uniform()), ("*", Gamma(0.1))])},
    "checkpoint": {"rules": "attnlrp", "checkpoint": "model.layers.*"},
    "everything": {
        "rules": "attnlrp",
        "record": ["model.layers.3", "model.layers.*.self_attn.v_proj"],
        "conditions": {"model.layers.5": lambda R: R > 0},
        "parameters": "model.layers.2.*proj.weight",
        "targets": [
            At(-1),
            At(-1, relprop.targets.RunnerUp()),
            At(7, relprop.targets.Difference(7, 9)),
            At((3, 9), 5),
        ],
    },
    "start": {"rules": "attnlrp", "start": "model.layers.4", "target": 11},
}


def of_llama(options: Mapping[str, Any], embedded: bool) -> Found:
    """LLaMA, of tokens or of what the embedding makes of them."""
    model, given = llama(), dict(options)
    if "targets" not in given:
        given.setdefault("target", At(-1))
    if embedded:
        given["inputs_embeds"] = model.get_input_embeddings()(IDS).detach()
    else:
        given["input_ids"] = IDS
    with in_double():
        found = explain(model, **given)
    yield from ((str(i), e) for i, e in enumerate(found if isinstance(found, list) else [found]))


for _name, _options in LLAMA.items():
    add(f"llama/ids/{_name}", of_llama, _options, False)
    if _name in ("attnlrp", "cp-lrp", "checkpoint"):
        add(f"llama/embeddings/{_name}", of_llama, _options, True)


def of_mamba(rules: str) -> Found:
    """Mamba, which scans in single precision."""
    import_torchvision()
    transformers: Any = import_module("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
    config = transformers.MambaConfig(vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)
    with seeded():
        model = louder(transformers.MambaForCausalLM(config))
    with in_double():
        yield "", explain(model, input_ids=IDS[:, :9], target=At(-1), rules=rules, use_cache=False)


for _preset in ("attnlrp", "cp-lrp"):
    add(f"mamba/{_preset}", of_mamba, _preset, tolerance=SINGLE)


def of_generation() -> Found:
    """Answers token by token."""
    import_torchvision()
    transformers: Any = import_module("transformers")
    sizes = {"vocab_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
    with seeded(1):
        decoder = louder(
            transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, intermediate_size=32))
        )
        config = transformers.T5Config(
            vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
        )
        both = louder(transformers.T5ForConditionalGeneration(config))
    prompt = torch.tensor([[5, 17, 3, 22]])
    mask = torch.tensor([[0, 1, 1, 1]])
    with in_double():
        for name, model, options in (
            ("llama", decoder, {"max_new_tokens": 4}),
            ("llama, padded", decoder, {"max_new_tokens": 3, "rules": "attnlrp", "attention_mask": mask}),
            (
                "llama, log-odds",
                decoder,
                {"continuation": torch.tensor([7, 8]), "target": relprop.targets.LogOdds},
            ),
            ("t5", both, {"continuation": torch.tensor([7, 8, 9]), "rules": "attnlrp"}),
        ):
            g = relprop.explain_generation(model, prompt, **options)
            yield from ((f"{name}, {i}", e) for i, e in enumerate(g.explanations))


add("generation", of_generation)


def of_transformer(rules: Any) -> Found:
    """A transformer of one's own, with normalisations of every kind."""
    settings: dict[str, Any]
    for name, settings in (("plain", {}), ("gated", {"gated": True, "norm": nn.RMSNorm, "causal": False})):
        model = made(partial(small_transformers.Transformer, **settings), 6)
        ids = IDS[:, :9] % 11
        options: dict[str, Any] = {"record": "layers.*", "checkpoint": "layers.1"}
        yield name, explain(model, ids, target=At(-1), rules=rules, **options)
        x = draw(2, 9, 16, seed=4)
        yield f"{name}, embedded", explain(model, inputs_embeds=x, target=At(-1, 3), rules=rules)


for _name in ("attnlrp", "cp-lrp", "epsilon-plus-flat"):
    add(f"transformer/{_name}", of_transformer, _name)
add("transformer/flat", of_transformer, Flat())

# ---- models that do what one does not expect ----


class Memory(nn.Module):
    """Writes to a buffer, which becomes relevant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("memory", draw(2, 6, seed=2))

    def forward(self, x: Tensor) -> Tensor:
        memory: Any = self.memory
        memory.mul_(0.5).add_(self.layer(x))
        return memory.clone()  # type: ignore[no-any-return]


class Streaming(nn.Module):
    """Streams its weights through one buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.ws, self.bs = nn.Parameter(torch.randn(3, 6, 6)), nn.Parameter(torch.randn(3, 6))
        self.register_buffer("weight", torch.zeros(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.weight
        for w, b in zip(self.ws.detach(), self.bs, strict=True):
            weight.copy_(w)
            x = F.linear(x, weight, b).relu_()
        return x


class InPlace(nn.Module):
    """Overwrites what it can."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu_()
        y += x
        z = self.b(y)
        y.mul_(0.5).add_(1.0)
        z.sigmoid_().mul_(y)
        z[:, 1:3].relu_()
        z[:, 0] = x[:, 5]
        z[:, 3].zero_()
        return self.c(z).sub_(0.1)  # type: ignore[no-any-return]


class Shared(nn.Module):
    """Calls its modules several times, and checkpoints by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        for _ in range(3):
            x = x + F.silu(self.layer(self.norm(x)))
        inner: Any = checkpoint(
            lambda h: self.layer(h) * torch.sigmoid(self.layer(h)), x, use_reentrant=False
        )
        return self.head(inner)  # type: ignore[no-any-return]


class Stateful(nn.Module):
    """Adds what it computed in the last run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layer(x)
        result = h if self.last is None else h + self.last
        self.last = h
        return result


HARD: dict[str, Callable[[], nn.Module]] = {
    "memory": Memory,
    "streaming": Streaming,
    "in place": InPlace,
    "shared": Shared,
    "stateful": Stateful,
}


def of_hard(rules: Any) -> Found:
    """Models that overwrite, share, keep."""
    x = draw(2, 6, seed=5)
    for name, make in HARD.items():
        model = made(make, 4)
        for run in (0, 1):
            yield f"{name} {run}", explain(model, x, target=1, rules=rules, per_operation=True)
    layer, w, b = made(lambda: nn.Linear(6, 3), 4), draw(6, 3, seed=8), draw(3, seed=9)
    others: dict[str, Function] = {
        "mixed samples": lambda x: layer(x - x.mean(0, keepdim=True)),
        "accepted": lambda x: layer(x.relu() + x.relu().cummax(1).values),
        "added bias": lambda x: F.dropout(x @ w, training=False, inplace=True) + b,
        "constants by samples": lambda x: layer(x * (x.detach() > 0) + x.detach()),
        "two": lambda x: layer(x.relu() - x.flip(1).relu()),
    }
    for name, function in others.items():
        yield name, explain(function, x, target=1, rules=rules, accept=["cummax"])
    yield "several inputs", explain(lambda a, b: layer(a + b.relu()), x, x.flip(1), target=2, rules=rules)


HARD_RULES: dict[str, Any] = {
    "epsilon": Epsilon(0.1),
    "gamma": Gamma(0.25),
    "flat": Flat(),
    "distribute": ZPlus(bias="distribute"),
}
for _name, _rules in HARD_RULES.items():
    add(f"hard/{_name}", of_hard, _rules)


# ---- what is kept of an explanation ----

Summary = list[Any]
Record = dict[str, Any]


@lru_cache(maxsize=64)
def signs(size: int) -> Tensor:
    """Fixed vectors of signs, (projections, size)."""
    generator = torch.Generator().manual_seed(size)
    count = FEW_PROJECTIONS if size <= FEW else PROJECTIONS
    drawn_signs = torch.randint(0, 2, (count, size), generator=generator, dtype=torch.int8)
    return drawn_signs * 2 - 1


def rounded(value: float) -> float:
    """The number with as many digits as are written."""
    return float(f"{value:.{DIGITS}g}")


def summary(tensor: Tensor) -> Summary:
    """Shape; sum, norm, largest element; products with vectors of signs, over the norm."""
    values = tensor.detach().double().flatten()
    norm = float(values.norm())
    products = torch.stack([row.double() @ values for row in signs(values.numel())]) / (norm or 1.0)
    largest = float(values.abs().max()) if values.numel() else 0.0
    numbers = [float(values.sum()), norm, largest, *products.tolist()]
    return [list(tensor.shape), *map(rounded, numbers)]


def tensors_of(explanation: relprop.Explanation) -> dict[str, Tensor]:
    """Relevance of inputs, recorded values and parameters, by name."""
    found: dict[str, Tensor] = {}
    for name, R in explanation.inputs.items():
        found["input" if len(explanation.inputs) == 1 else f"input {name}"] = R
    for path, calls in explanation.inner.calls.items():
        for i, call in enumerate(calls):
            for j, R in enumerate([call] if isinstance(call, Tensor) else call):
                found[f"inner {path} {i} {j}"] = R
    for name, R in explanation.parameters.items():
        found[f"parameter {name}"] = R
    return found


def recorded(explanation: relprop.Explanation) -> Record:
    """What the record keeps of one explanation; amounts that are rounding errors become zero."""
    ledger = explanation.ledger
    rows = {name: row.tolist() for name, row in ledger.rows()}
    finite = [abs(v) for row in rows.values() for v in row if math.isfinite(v)]
    noise = 1e-14 * max(finite, default=0.0)

    def amount(value: float) -> float:
        return 0 if abs(value) <= noise else rounded(value)

    result: Record = {
        "tensors": {name: summary(R) for name, R in tensors_of(explanation).items()},
        "score": [rounded(v) for v in explanation.score.double().tolist()],
        "ledger": {name: list(map(amount, row)) for name, row in rows.items() if any(map(amount, row))},
        "rules": [str(applied) for applied in explanation.rules],
    }
    if ledger.operations:
        books = {
            f"{path}|{operation}": {sink: amount(float(row.sum())) for sink, row in sorted(absorbed.items())}
            for (path, operation), absorbed in ledger.operations.items()
        }
        result["operations"] = {
            place: {sink: v for sink, v in absorbed.items() if v} for place, absorbed in books.items()
        }
    return result


def computed(name: str, dump: Path | None) -> tuple[dict[str, Record], float]:
    """Run one case; give its explanations, and how long it took. An error is an entry of its own."""
    began, results, whole = time.perf_counter(), {}, {}
    try:
        with warnings.catch_warnings(), seeded():
            warnings.simplefilter("ignore")
            for label, explanation in CASES[name].run():
                results[label] = recorded(explanation)
                if dump is not None:
                    whole[label] = {
                        "tensors": {k: R.detach().clone() for k, R in tensors_of(explanation).items()},
                        "ledger": {k: row.clone() for k, row in explanation.ledger.rows()},
                        "operations": dict(explanation.ledger.operations),
                        "score": explanation.score.clone(),
                        "rules": [str(applied) for applied in explanation.rules],
                    }
    except Exception as error:
        results["error"] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    if dump is not None:
        dump.mkdir(parents=True, exist_ok=True)
        torch.save(whole, dump / (name.replace("/", "--").replace(" ", "_") + ".pt"))
    return results, time.perf_counter() - began


# ---- comparing ----


@dataclass(frozen=True)
class Difference:
    """The largest relative difference that was found, and where."""

    size: float = 0.0
    place: str = ""


def compared(old: Mapping[str, Record], new: Mapping[str, Record]) -> Difference:
    """The largest difference between two runs of a case."""
    found = [Difference()]
    for label in [*old, *(label for label in new if label not in old)]:
        one, other = old.get(label), new.get(label)
        if one is None or other is None or "error" in one or "error" in other:
            missing = (
                "in neither" if one and other else "missing now" if other is None else "not in the record"
            )
            told = (other or {}).get("error") or (one or {}).get("error") or missing
            found.append(Difference(math.inf, f"{label}: {told}"))
            continue
        found += [Difference(d.size, f"{label}: {d.place}" if label else d.place) for d in _each(one, other)]
    return max(found, key=lambda d: math.inf if math.isnan(d.size) else d.size)


def _each(old: Record, new: Record) -> Iterator[Difference]:
    amounts = [abs(v) for side in (old, new) for row in side["ledger"].values() for v in row]
    largest = max((a for a in amounts if math.isfinite(a)), default=0.0)
    yield from _rows("ledger", old["ledger"], new["ledger"], largest)
    yield from _rows("score", {"": old["score"]}, {"": new["score"]}, max(map(abs, [*old["score"], 1e-300])))
    for place in sorted({*old.get("operations", {}), *new.get("operations", {})}):
        one, other = (
            {sink: [amount] for sink, amount in side.get("operations", {}).get(place, {}).items()}
            for side in (old, new)
        )
        yield from _rows(f"operation {place}", one, other, largest)
    for name in sorted({*old["tensors"], *new["tensors"]}):
        if name not in old["tensors"] or name not in new["tensors"]:
            yield Difference(math.inf, f"{name} is on one side only")
        else:
            yield Difference(_apart(old["tensors"][name], new["tensors"][name], largest), name)


def _rows(
    name: str, old: Mapping[str, Sequence[float]], new: Mapping[str, Sequence[float]], largest: float
) -> Iterator[Difference]:
    """Differences of the books' lines; one that is missing has nothing in it."""
    for row in sorted({*old, *new}):
        size = len(old.get(row) or new.get(row) or ())
        one, other = old.get(row, [0.0] * size), new.get(row, [0.0] * size)
        if len(one) != len(other):
            yield Difference(math.inf, f"{name} {row}: other samples")
            continue
        for a, b in zip(one, other, strict=True):
            yield Difference(_relative(a, b, largest), f"{name} {row}".strip())


def _relative(a: float, b: float, scale: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / scale if scale > 0 and math.isfinite(a) and math.isfinite(b) else math.inf


def _apart(old: Summary, new: Summary, largest: float) -> float:
    """How far two tensors are apart, relative to their norm.

    The norm counts as at least 1e-5 of the largest amount in the books: what is smaller may be noise.
    """
    (shape, total, norm, top, *products), (shape2, total2, norm2, top2, *products2) = old, new
    if shape != shape2:
        return math.inf
    scale = max(norm, norm2, 1e-5 * largest)
    pairs = [(total, total2), (norm, norm2), (top, top2)]
    pairs += [(a * norm, b * norm2) for a, b in zip(products, products2, strict=True)]
    return max(_relative(a, b, scale) for a, b in pairs)


def rules_apart(old: Mapping[str, Record], new: Mapping[str, Record]) -> list[str]:
    """How the applied rules differ, line by line."""
    lines: list[str] = []
    for label in old:
        one, other = old[label].get("rules", []), new.get(label, {}).get("rules", [])
        if one != other:
            lines += unified_diff(one, other, f"{label} then", f"{label} now", lineterm="", n=0)
    return lines


# ---- files and the command line ----


def packed(results: Mapping[str, Mapping[str, Record]], noise: Mapping[str, float]) -> Record:
    """The record without what is in it twice: texts, scores that are the seed."""
    texts: dict[str, int] = {}

    def small(one: Record) -> Record:
        if "error" in one:
            return one
        kept = dict(one)
        if kept["score"] == kept["ledger"].get("seed"):
            del kept["score"]
        parts = (part for rule in one["rules"] for part in _halves(rule))
        kept["rules"] = [texts.setdefault(part, len(texts)) for part in parts]
        return kept

    cases = {name: {label: small(one) for label, one in case.items()} for name, case in results.items()}
    versions = {"relprop": relprop.__version__, "torch": torch.__version__}
    return {"versions": versions, "noise": dict(noise), "texts": list(texts), "cases": cases}


def unpacked(record: Record) -> dict[str, dict[str, Record]]:
    """The results as they were before `packed`."""

    def whole(one: Record) -> Record:
        if "error" in one:
            return one
        parts = [record["texts"][i] for i in one["rules"]]
        rules = ["".join(pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
        return {"score": one["ledger"].get("seed"), **one, "rules": rules}

    return {
        name: {label: whole(one) for label, one in case.items()} for name, case in record["cases"].items()
    }


def _halves(rule: str) -> tuple[str, str]:
    """Where a rule was applied, and which."""
    place, colon, applied = rule.rpartition(": ")
    return place + colon, applied


def chosen(globs: Iterable[str]) -> list[str]:
    """The cases whose names match, in order."""
    wanted = list(globs) or ["*"]
    return [name for name in CASES if any(fnmatchcase(name, glob) for glob in wanted)]


def write(file: Path, names: Sequence[str], dump: Path | None) -> int:
    """Write the record; 1 if a case raised."""
    results: dict[str, dict[str, Record]] = {}
    noise: dict[str, float] = {}
    failed, began = 0, time.perf_counter()
    for name in names:
        results[name], seconds = computed(name, dump)
        error = results[name].get("error", {}).get("error")
        failed += error is not None
        if error is None:
            SETTINGS.nudge = NUDGE
            noise[name] = float(f"{compared(results[name], computed(name, None)[0]).size:.1e}")
            SETTINGS.nudge = 0.0
        told = error or f"{len(results[name])} in {seconds:.2f} s, noise {noise[name]:.0e}"
        print(f"{name}: {told}", flush=True)
    text = json.dumps(packed(results, noise), ensure_ascii=False, separators=(",", ":"))
    file.write_text(text + "\n")
    count = sum(map(len, results.values()))
    print(f"{len(names)} cases, {count} explanations, {failed} raised, {time.perf_counter() - began:.0f} s")
    return int(failed > 0)


def compare(file: Path, names: Sequence[str], dump: Path | None, tolerance: float, verbose: bool) -> int:
    """Tell how far each case is from the record; 1 if one is further than is allowed, or raised."""
    record = json.loads(file.read_text())
    results, noise = unpacked(record), record["noise"]
    failed, others, worst, began = [], 0, 0.0, time.perf_counter()
    for name in names:
        old, (new, _) = results.get(name, {}), computed(name, dump)
        difference = compared(old, new)
        allowed = max(tolerance, CASES[name].tolerance, ALLOWED * noise.get(name, 0.0))
        bad = not difference.size <= allowed
        told = f"{'FAIL' if bad else 'ok  '} {difference.size:8.1e}  {name}"
        told += f"  ({difference.place})" if bad or (verbose and difference.size) else ""
        told += f"  allowed {allowed:.0e}" if allowed > tolerance else ""
        rules = rules_apart(old, new)
        print(told + ("  rules differ" if rules else ""), flush=True)
        if verbose and rules:
            print("\n".join(f"       {line}" for line in rules))
        failed += [name] * bad
        others += bool(rules)
        worst = max(worst, difference.size)
    gone = [name for name in results if name not in CASES]
    if gone:
        print(f"in the record only: {', '.join(gone)}")
    print(
        f"{len(names)} cases, {len(failed)} failed, rules differ in {others}, largest difference {worst:.1e}"
        f", {time.perf_counter() - began:.0f} s"
    )
    return int(bool(failed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["write", "compare", "list"])
    parser.add_argument("file", type=Path, nargs="?", help="the record; needless for list")
    parser.add_argument("--cases", nargs="+", default=[], metavar="GLOB", help="only cases with such names")
    parser.add_argument("--tolerance", type=float, default=1e-10, help="of relative differences")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="keep whole tensors of each case there")
    parser.add_argument(
        "--nudge", type=float, default=0.0, help="change inputs by this part: how do rounding errors grow?"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="tell where, and how rules differ")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    SETTINGS.nudge = given.nudge
    names = chosen(given.cases)
    if not names:
        parser.error(f"no case matches {' '.join(given.cases)}")
    if given.command == "list":
        print(*names, sep="\n")
        return 0
    if given.file is None:
        parser.error("give a file")
    print(f"relprop {relprop.__version__} of {Path(relprop.__file__).parent}, torch {torch.__version__}")
    if given.command == "write":
        return write(given.file, names, given.dump)
    return compare(given.file, names, given.dump, given.tolerance, given.verbose)


if __name__ == "__main__":
    sys.exit(main())
