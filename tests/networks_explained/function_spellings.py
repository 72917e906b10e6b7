"""Functions of torch, each with the ways in which a model may write it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import DOUBLE, batch_norm

Function = Callable[[Tensor], Tensor]
Ways = dict[str, Function]
aten = torch.ops.aten


@dataclass(frozen=True)
class Written:
    """A function and how it is written.

    Attributes:
        behind: what makes its operand, a key of `FIRST`.
        ways: by name; the others are compared with the first.
        without: generated spellings that are other functions, or that torch refuses.
    """

    behind: str
    ways: Ways
    without: tuple[str, ...] = ()


FIRST: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "dense": ((3, 5), lambda: nn.Linear(5, 8)),
    "positive dense": ((3, 5), lambda: nn.Sequential(nn.Linear(5, 8), nn.Softplus())),
    "sequence": ((3, 4, 5), lambda: nn.Linear(5, 8)),
    "signal": ((3, 2, 8), lambda: nn.Conv1d(2, 4, 3, padding=1)),
    "image": ((3, 2, 6, 6), lambda: nn.Conv2d(2, 4, 3, padding=1)),
    "positive image": ((3, 2, 6, 6), lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())),
    "volume": ((3, 1, 4, 4, 4), lambda: nn.Conv3d(1, 4, 3, padding=1)),
}
"""Shape of the input and the layer that a function stands behind, by name."""

_TABLE: dict[str, Callable[[], Written]] = {}


def function(behind: str, *without: str, name: str = "") -> Callable[[Callable[[], Ways]], None]:
    """Add a function to the table, by the name of what makes its ways."""

    def add(make: Callable[[], Ways]) -> None:
        known_as = name or make.__name__.replace("_", " ").strip()
        assert known_as not in _TABLE
        _TABLE[known_as] = lambda: Written(behind, make(), without)

    return add


def named(*names: str, by: tuple[Any, ...] = (), leaving: tuple[str, ...] = (), **options: Any) -> Ways:
    """Every way of calling an operation of this name: in torch's places, and in place on a clone."""
    places = {"torch": torch, "F": F, "Tensor": torch.Tensor, "special": torch.special, "aten": aten}
    ways: Ways = {}
    for place, holder in places.items():
        for name in names:
            for own in (name, f"{name}_"):
                if f"{place}.{own}" not in leaving and hasattr(holder, own):
                    ways[f"{place}.{own}"] = _calling(getattr(holder, own), own.endswith("_"), by, options)
    assert ways, names
    return ways


def _calling(called: Any, in_place: bool, by: tuple[Any, ...], options: dict[str, Any]) -> Function:
    def way(x: Tensor) -> Tensor:
        result = called(x.clone() if in_place else x, *by, **options)
        return result[0] if isinstance(result, tuple) else result

    return way


def drawn(*shape: int) -> Tensor:
    """A constant."""
    return torch.randn(shape, **DOUBLE)


def module(made: nn.Module) -> Any:
    return made.double().eval().requires_grad_(False)  # a trace holds no parameters of functions


# ---- linear ----


@function("dense")
def linear() -> Ways:
    layer = module(nn.Linear(8, 6))
    w, b = layer.weight, layer.bias
    return {
        "module": layer,
        **named("linear", by=(w, b)),
        "keywords": lambda x: F.linear(bias=b, weight=w, input=x),
        "operators": lambda x: x @ w.T + b,
        "bias in place": lambda x: (x @ w.t()).add_(b),
        "bias first": lambda x: b + x @ w.mT,
        "bias by +=": lambda x: _added(x @ w.T, b),
        "matmul": lambda x: torch.matmul(x, w.T) + b,
        "mm": lambda x: torch.mm(x, w.transpose(0, 1)) + b,
        "addmm": lambda x: torch.addmm(b, x, w.T),
        "addmm method": lambda x: b.addmm(x, w.T),
        # addmm_ overwrites a bias for each sample, which is no bias of a layer.
        "aten addmm": lambda x: aten.addmm.default(b, x, aten.t.default(w)),
        "aten mm": lambda x: aten.add.Tensor(aten.mm.default(x, aten.permute.default(w, [1, 0])), b),
        "einsum": lambda x: torch.einsum("ni,oi->no", x, w) + b,
        "einsum weight first": lambda x: torch.einsum("oi,ni->no", w, x) + b,
        "transposed held": lambda x: x @ w.T.contiguous() + b,
        "inner": lambda x: torch.inner(x, w) + b,
        "tensordot": lambda x: torch.tensordot(x, w, dims=([1], [1])) + b,
        "bias subtracted": lambda x: F.linear(x, w) - (-b),
        "rank three": lambda x: F.linear(x[:, None], w, b)[:, 0],
    }


def _added(x: Tensor, b: Tensor) -> Tensor:
    x += b
    return x


@function("dense")
def linear_without_bias() -> Ways:
    layer = module(nn.Linear(8, 6, bias=False))
    w = layer.weight
    return {
        "module": layer,
        **named("linear", by=(w,)),
        "operators": lambda x: x @ w.T,
        "operator method": lambda x: x.matmul(w.T),
        "mm method": lambda x: x.mm(w.T),
        "bias of None": lambda x: F.linear(x, w, bias=None),
        "einsum": lambda x: torch.einsum("ni,oi", x, w),
        "aten": lambda x: aten.mm.default(x, aten.t.default(w)),
        "held otherwise": lambda x: x @ w.detach().T.clone(),
    }


@function("sequence")
def linear_on_a_sequence() -> Ways:
    layer = module(nn.Linear(8, 6))
    w, b = layer.weight, layer.bias
    return {
        "module": layer,
        **named("linear", by=(w, b)),
        "operators": lambda x: x @ w.T + b,
        "matmul": lambda x: torch.matmul(x, w.T).add(b),
        "einsum": lambda x: torch.einsum("nti,oi->nto", x, w) + b,
        "einsum with dots": lambda x: torch.einsum("...i,oi->...o", x, w) + b,
        "by rows": lambda x: F.linear(x.reshape(-1, 8), w, b).reshape(3 if len(x) == 3 else len(x), 4, 6),
        "addmm by rows": lambda x: torch.addmm(b, x.view(-1, 8), w.T).view(-1, 4, 6),
        "aten": lambda x: aten.view(aten.addmm(b, aten.view(x, [-1, 8]), aten.t(w)), [-1, 4, 6]),
        "bmm": lambda x: torch.bmm(x, w.T.expand(len(x), 8, 6)) + b,
        "bias in place": lambda x: (x @ w.T).add_(b),
    }


def _convolutions(n: int, size: int, **options: Any) -> Ways:
    kind = f"conv{n}d"
    layer = module(getattr(nn, f"Conv{n}d")(4, 4, size, **options))
    w, b = layer.weight, layer.bias
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    by = (w, b, stride, padding, dilation, groups)
    of_aten = ([*stride], [*padding], [*dilation], False, [0] * n, groups)
    out = (1, -1, *[1] * n)
    return {
        "module": layer,
        **named(kind, by=by),
        "numbers": lambda x: getattr(F, kind)(x, w, b, stride[0], padding[0], dilation[0], groups),
        "keywords": lambda x: getattr(F, kind)(
            bias=b, weight=w, input=x, groups=groups, stride=stride, padding=padding, dilation=dilation
        ),
        "convolution": lambda x: torch.convolution(x, w, b, *of_aten),
        "aten.convolution": lambda x: aten.convolution.default(x, w, b, *of_aten),
        "padded before": lambda x: getattr(F, kind)(
            F.pad(x, [p for p in reversed(padding) for _ in range(2)]), w, b, stride, 0, dilation, groups
        ),
        "bias after": lambda x: getattr(F, kind)(x, w, None, *by[2:]) + b.view(out),
        "bias in place": lambda x: getattr(F, kind)(x, w, None, *by[2:]).add_(b.view(out)),
        # Of one sample after the other it is the same, but for the books, which are the batch's then.
    }


function("signal", name="conv1d")(lambda: _convolutions(1, 3, padding=1, stride=2))
function("image", name="conv2d")(lambda: _convolutions(2, 3, padding=1, stride=2))
function("image", name="conv2d in groups")(lambda: _convolutions(2, 3, padding=2, dilation=2, groups=2))
function("volume", name="conv3d")(lambda: _convolutions(3, 2, padding=1, stride=2))


@function("image")
def convolution_of_one_pixel() -> Ways:
    layer = module(nn.Conv2d(4, 5, 1))
    w, b = layer.weight, layer.bias
    return {
        "module": layer,
        "function": lambda x: F.conv2d(x, w, b),
        "folded bias": lambda x: F.conv2d(x, w) + b[:, None, None],
        # As a dense layer or an einsum it is another kind of operation, for composites.
    }


@function("image")
def same_padding() -> Ways:
    layer = module(nn.Conv2d(4, 4, 3, padding="same"))
    w, b = layer.weight, layer.bias
    return {
        "module": layer,
        "F": lambda x: F.conv2d(x, w, b, padding="same"),
        "torch": lambda x: torch.conv2d(x, w, b, 1, "same"),
        "aten": lambda x: aten.conv2d.padding(x, w, b, [1, 1], "same"),
        "number": lambda x: F.conv2d(x, w, b, padding=1),
        "valid behind zeros": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1)), w, b, padding="valid"),
        "module behind zeros": lambda x: F.conv2d(nn.ZeroPad2d(1)(x), w, b),
        "aten behind zeros": lambda x: aten.conv2d(aten.constant_pad_nd(x, [1, 1, 1, 1], 0.0), w, b),
    }


@function("image")
def same_padding_of_an_even_kernel() -> Ways:
    layer = module(nn.Conv2d(4, 4, 2, padding="same"))
    w, b = layer.weight, layer.bias
    return {
        "module": layer,
        "F": lambda x: F.conv2d(x, w, b, padding="same"),
        "aten": lambda x: aten.conv2d.padding(x, w, b, [1, 1], "same"),
        "valid behind zeros": lambda x: F.conv2d(F.pad(x, (0, 1, 0, 1)), w, b),
    }


def _transposed(n: int) -> Ways:
    kind = f"conv_transpose{n}d"
    layer = module(getattr(nn, f"ConvTranspose{n}d")(4, 2, 3, stride=2, padding=1, output_padding=1))
    w, b, two, one = layer.weight, layer.bias, [2] * n, [1] * n
    return {
        "module": layer,
        **named(kind, by=(w, b, two, one, one, 1, one), leaving=(f"aten.{kind}",)),
        "numbers": lambda x: getattr(F, kind)(x, w, b, 2, 1, 1),
        "keywords": lambda x: getattr(F, kind)(x, bias=b, stride=2, output_padding=1, padding=1, weight=w),
        "convolution": lambda x: torch.convolution(x, w, b, two, one, one, True, one, 1),
        "aten.convolution": lambda x: aten.convolution.default(x, w, b, two, one, one, True, one, 1),
        "bias after": lambda x: getattr(F, kind)(x, w, None, 2, 1, 1) + b.view(-1, *one),
    }


function("signal", name="conv transpose1d")(lambda: _transposed(1))
function("image", name="conv transpose2d")(lambda: _transposed(2))
function("volume", name="conv transpose3d")(lambda: _transposed(3))


# ---- normalisation ----


def _batch_norms(n: int, before: Function = lambda x: x) -> Ways:
    norm = module(getattr(nn, f"BatchNorm{n}d")(4))
    norm.load_state_dict(batch_norm(4).state_dict())
    m, v, w, b, eps = norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
    one = (-1, *[1] * n)

    def scaled(x: Tensor) -> Tensor:
        scale = w * (v + eps).rsqrt()
        return x * scale.view(one) + (b - m * scale).view(one)

    def standardised(x: Tensor) -> Tensor:
        return (x - m.view(one)) / torch.sqrt(v + eps).view(one) * w.view(one) + b.view(one)

    def in_place(x: Tensor) -> Tensor:
        return (
            x.clone().sub_(m.view(one)).div_((v + eps).sqrt().view(one)).mul_(w.view(one)).add_(b.view(one))
        )

    ways: Ways = {
        "module": norm,
        "F": lambda x: F.batch_norm(x, m, v, w, b),
        "F keywords": lambda x: F.batch_norm(x, running_var=v, running_mean=m, bias=b, weight=w, eps=eps),
        "torch": lambda x: torch.batch_norm(x, w, b, m, v, False, 0.1, eps, False),
        "aten": lambda x: aten.batch_norm.default(x, w, b, m, v, False, 0.1, eps, False),
        "native": lambda x: torch.native_batch_norm(x, w, b, m, v, False, 0.1, eps)[0],
        "aten native": lambda x: aten.native_batch_norm.default(x, w, b, m, v, False, 0.1, eps)[0],
        "legit": lambda x: aten._native_batch_norm_legit_no_training.default(x, w, b, m, v, 0.1, eps)[0],
        "legit, with training": lambda x: aten._native_batch_norm_legit(x, w, b, m, v, False, 0.1, eps)[0],
        "not updated": lambda x: aten._batch_norm_no_update(x, w, b, m, v, 0.1, eps)[0],
        "as instance norm": lambda x: F.instance_norm(x, m, v, w, b, use_input_stats=False),
        "frozen": scaled,
        "standardised": standardised,
        "in place": in_place,
        "of statistics alone": lambda x: F.batch_norm(x, m, v) * w.view(one) + b.view(one),
    }
    return {name: (lambda x, way=way: way(before(x))) for name, way in ways.items()} | {}


function("signal", name="batch norm 1d, folded")(lambda: _batch_norms(1))
function("image", name="batch norm 2d, folded")(lambda: _batch_norms(2))
function("positive image", name="batch norm 2d, alone")(lambda: _batch_norms(2))


# Its batching rule moves the samples into the channels, of which the norm is none then.
@function("positive image", "vmap")
def batch_norm_before_a_convolution() -> Ways:
    layer = module(nn.Conv2d(4, 4, 3, padding=1))
    return {name: _then(norm, layer) for name, norm in _batch_norms(2).items()}


def _then(first: Function, second: Function) -> Function:
    return lambda x: second(first(x))


@function("image")
def batch_norm_in_the_weights() -> Ways:
    convolution, norm = module(nn.Conv2d(4, 4, 3, bias=False)), module(batch_norm(4))
    fused = nn.utils.fuse_conv_bn_eval(convolution, norm)
    return {
        "fused": fused,
        "modules": nn.Sequential(convolution, norm),
        "functions": lambda x: F.batch_norm(
            F.conv2d(x, convolution.weight), norm.running_mean, norm.running_var, norm.weight, norm.bias
        ),
    }


def _perturbed(norm: nn.Module) -> Any:
    with torch.no_grad():
        for p in norm.parameters():
            p.normal_()
    return module(norm)


@function("sequence")
def layer_norm() -> Ways:
    norm = _perturbed(nn.LayerNorm(8))
    w, b = norm.weight, norm.bias

    def written_out(x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * w + b

    return {
        "module": norm,
        **named("layer_norm", by=([8], w, b)),
        "tuple": lambda x: F.layer_norm(x, (8,), w, b, 1e-5),
        "keywords": lambda x: F.layer_norm(x, bias=b, weight=w, normalized_shape=(8,)),
        "native": lambda x: torch.native_layer_norm(x, [8], w, b, 1e-5)[0],
        "aten native": lambda x: aten.native_layer_norm.default(x, [8], w, b, 1e-5)[0],
        "of statistics alone": lambda x: F.layer_norm(x, (8,)) * w + b,
        "written out": written_out,
    }


@function("image")
def group_norm() -> Ways:
    norm = _perturbed(nn.GroupNorm(2, 4))
    w, b = norm.weight, norm.bias
    return {
        "module": norm,
        **named("group_norm", by=(2, w, b)),
        "keywords": lambda x: F.group_norm(x, bias=b, num_groups=2, weight=w),
        "native": lambda x: torch.native_group_norm(x, w, b, len(x), 4, 36, 2, 1e-5)[0],
        "aten native": lambda x: aten.native_group_norm.default(x, w, b, len(x), 4, 36, 2, 1e-5)[0],
    }


@function("image")
def instance_norm() -> Ways:
    norm = _perturbed(nn.InstanceNorm2d(4, affine=True))
    w, b = norm.weight, norm.bias
    return {
        "module": norm,
        "F": lambda x: F.instance_norm(x, weight=w, bias=b),
        "torch": lambda x: torch.instance_norm(x, w, b, None, None, True, 0.1, 1e-5, False),
        "aten": lambda x: aten.instance_norm.default(x, w, b, None, None, True, 0.1, 1e-5, False),
        "group norm": lambda x: F.group_norm(x, 4, w, b),
    }


@function("sequence")
def rms_norm() -> Ways:
    norm = _perturbed(nn.RMSNorm(8, eps=1e-5))
    w = norm.weight
    return {
        "module": norm,
        **named("rms_norm", by=([8], w, 1e-5)),
        "fused": lambda x: aten._fused_rms_norm(x, [8], w, 1e-5)[0],
        "written out": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w,
        "weight first": lambda x: w * (x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)),
        "square": lambda x: x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * w,
    }


# ---- pointwise ----


def _activation(made: nn.Module, *names: str, by: tuple[Any, ...] = (), **options: Any) -> Callable[[], Ways]:
    def ways() -> Ways:
        found: Ways = {"module": module(made), **named(*names, by=by, **options)}
        if hasattr(made, "inplace"):
            again = (
                type(made)(*by, inplace=True) if not isinstance(made, nn.ReLU6) else nn.ReLU6(inplace=True)
            )
            found["module in place"] = lambda x: again(x.clone())
        return found

    return ways


for known_as, ways_of in {
    "relu": _activation(nn.ReLU(), "relu"),
    "hardtanh": _activation(nn.Hardtanh(-1.5, 1.0), "hardtanh", by=(-1.5, 1.0)),
    "leaky relu": _activation(nn.LeakyReLU(0.2), "leaky_relu", by=(0.2,)),
    "elu": _activation(nn.ELU(0.7), "elu", by=(0.7,)),
    "selu": _activation(nn.SELU(), "selu"),
    "celu": _activation(nn.CELU(0.7), "celu", by=(0.7,)),
    "gelu": _activation(nn.GELU(), "gelu"),
    "gelu by tanh": _activation(nn.GELU("tanh"), "gelu", approximate="tanh"),
    "silu": _activation(nn.SiLU(), "silu"),
    "mish": _activation(nn.Mish(), "mish"),
    "hardswish": _activation(nn.Hardswish(), "hardswish"),
    "hardsigmoid": _activation(nn.Hardsigmoid(), "hardsigmoid"),
    "sigmoid": _activation(nn.Sigmoid(), "sigmoid", "expit"),
    "tanh": _activation(nn.Tanh(), "tanh"),
    "softplus": _activation(nn.Softplus(), "softplus"),
    "logsigmoid": _activation(nn.LogSigmoid(), "logsigmoid", "log_sigmoid"),
    "softshrink": _activation(nn.Softshrink(0.3), "softshrink", by=(0.3,)),
    "hardshrink": _activation(nn.Hardshrink(0.3), "hardshrink", by=(0.3,)),
    "exp": lambda: named("exp"),
    "erf": lambda: named("erf"),
    "abs": lambda: named("abs", "absolute"),
    "sin": lambda: named("sin"),
    "square": lambda: {
        **named("square"),
        **{f"pow, {name}": way for name, way in named("pow", by=(2,)).items()},
        "operator": lambda x: x**2,
        "product": lambda x: x * x,
        "float": lambda x: torch.pow(x, 2.0),
    },
    "cube": lambda: {**named("pow", by=(3,)), "operator": lambda x: x**3, "products": lambda x: x * x * x},
}.items():
    # The decomposition of soft shrinkage chooses by a mask, and subtracts.
    without = ("decomposed make_fx",) if known_as == "softshrink" else ()
    function("dense", *without, name=known_as)(ways_of)


@function("positive dense")
def square_root() -> Ways:
    return {**named("sqrt"), "power": lambda x: x**0.5, "pow": lambda x: torch.pow(x, 0.5)}


@function("dense")
def relu6() -> Ways:
    return {
        "module": nn.ReLU6(),
        **named("relu6", leaving=("aten.relu6", "aten.relu6_")),
        **{f"clamp, {name}": way for name, way in named("clamp", "clip", by=(0, 6)).items()},
        "keywords": lambda x: x.clamp(max=6, min=0),
        "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
        "aten.hardtanh": lambda x: aten.hardtanh.default(x, 0.0, 6.0),
        "one after the other": lambda x: x.clamp_min(0).clamp_max(6),
        "minimum": lambda x: torch.minimum(F.relu(x), torch.tensor(6.0, **DOUBLE)),
        "tensors": lambda x: torch.clamp(x, torch.tensor(0.0, **DOUBLE), torch.tensor(6.0, **DOUBLE)),
    }


# Decomposed, w·x alone is part of the linear operation before, and so is what ε stabilises.
@function("image", "decomposed make_fx")
def prelu() -> Ways:
    layer = module(nn.PReLU(4))
    with torch.no_grad():
        layer.weight.uniform_(0.1, 0.5)
    w = layer.weight
    return {
        "module": layer,
        **named("prelu", by=(w,)),
        "kernel": lambda x: aten._prelu_kernel(x, w.view(4, 1, 1)),
        # w·x alone is part of the linear operation before, and so is what ε stabilises.
        "where": lambda x: torch.where(x > 0, x, w.view(4, 1, 1) * x.clamp_max(0)),
    }


def _softmaxes(kind: str, made: nn.Module) -> Ways:
    return {
        "module": made,
        **named(kind, by=(-1,), leaving=(f"aten.{kind}",)),
        "dimension": lambda x: getattr(torch, kind)(x, dim=2),
        "aten": lambda x: getattr(aten, kind).int(x, -1),
        "kernel": lambda x: getattr(aten, f"_{kind}")(x, -1, False),
        "transposed": lambda x: getattr(F, kind)(x.transpose(1, 2), dim=1).transpose(1, 2),
    }


function("sequence", name="softmax")(lambda: _softmaxes("softmax", nn.Softmax(dim=-1)))
function("sequence", name="log softmax")(lambda: _softmaxes("log_softmax", nn.LogSoftmax(dim=-1)))


@function("sequence")
def glu() -> Ways:
    def halves(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return a * b.sigmoid()

    def gate_first(x: Tensor) -> Tensor:
        a, b = x.split(4, dim=-1)
        return torch.sigmoid(b).mul_(a)

    return {
        "module": nn.GLU(-1),
        **named("glu", by=(-1,)),
        "dimension": lambda x: F.glu(x, dim=2),
        "halves": halves,
        "gate first": gate_first,
        "slices": lambda x: x[..., :4] * torch.sigmoid(x[..., 4:]),
    }


@function("dense")
def dropout() -> Ways:
    layer = module(nn.Dropout(0.4))
    return {
        "nothing": lambda x: x,
        "module": layer,
        "module in place": module(nn.Dropout(0.4, inplace=True)),
        "F": lambda x: F.dropout(x, 0.4, training=False),
        "F in place": lambda x: F.dropout(x, 0.4, False, True),
        "torch": lambda x: torch.dropout(x, 0.4, False),
        "torch in place": lambda x: torch.dropout_(x.clone(), 0.4, False),
        "aten": lambda x: aten.dropout.default(x, 0.4, False),
        "native": lambda x: torch.native_dropout(x, 0.4, False)[0],
        "alpha": module(nn.AlphaDropout(0.4)),
        "feature": lambda x: torch.feature_dropout(x, 0.4, False),
        "identity": nn.Identity(),
        "clone": torch.clone,
        "contiguous": lambda x: x.contiguous(),
        "same type": lambda x: x.double().to(torch.float64).type_as(x),
        "alias": lambda x: aten.alias.default(x),
        "by view": lambda x: x.view(x.shape),
        "by slice": lambda x: x[:],
        "by pad": lambda x: F.pad(x, (0, 0)),
        "positive": lambda x: +x,
    }


# ---- pooling ----


@function("image")
def max_pool() -> Ways:
    return {
        "module": nn.MaxPool2d(2),
        **named("max_pool2d", by=(2,), leaving=("aten.max_pool2d",)),
        "keywords": lambda x: F.max_pool2d(x, stride=(2, 2), kernel_size=(2, 2)),
        "aten": lambda x: aten.max_pool2d.default(x, [2, 2]),
        "with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        "torch with indices": lambda x: (
            torch.max_pool2d_with_indices(x, [2, 2])[0]
            if hasattr(torch, "max_pool2d_with_indices")
            else F.max_pool2d_with_indices(x, 2)[0]
        ),
        "aten with indices": lambda x: aten.max_pool2d_with_indices.default(x, [2, 2], [2, 2])[0],
        "adaptive": lambda x: F.adaptive_max_pool2d(x, 3),
        # As a maximum over windows by amax it is no max-pooling, for composites.
    }


@function("signal")
def max_pool_1d() -> Ways:
    return {
        "module": nn.MaxPool1d(2),
        "F": lambda x: F.max_pool1d(x, 2),
        "torch": lambda x: torch.max_pool1d(x, 2),
        "aten": lambda x: aten.max_pool1d.default(x, [2], [2]),
        "with indices": lambda x: F.max_pool1d(x, 2, return_indices=True)[0],
        "of images": lambda x: F.max_pool2d(x.unsqueeze(2), (1, 2)).squeeze(2),
    }


@function("volume")
def max_pool_3d() -> Ways:
    return {
        "module": nn.MaxPool3d(2),
        "F": lambda x: F.max_pool3d(x, 2),
        "torch": lambda x: torch.max_pool3d(x, 2),
        "aten": lambda x: aten.max_pool3d.default(x, [2, 2, 2]),
        "with indices": lambda x: F.max_pool3d(x, 2, return_indices=True)[0],
        "adaptive": nn.AdaptiveMaxPool3d(2),
    }


@function("image")
def average_pool() -> Ways:
    return {
        "module": nn.AvgPool2d(2),
        "F": lambda x: F.avg_pool2d(x, 2),
        "keywords": lambda x: F.avg_pool2d(x, stride=2, kernel_size=(2, 2)),
        "aten": lambda x: aten.avg_pool2d.default(x, [2, 2], [2, 2]),
        "adaptive": nn.AdaptiveAvgPool2d(3),
        "F adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 3)),
        "kernel": lambda x: aten._adaptive_avg_pool2d.default(x, [3, 3]),
        "mean": lambda x: x.reshape(len(x), 4, 3, 2, 3, 2).mean((3, 5)),
        "area": lambda x: F.interpolate(x, size=3, mode="area"),
    }


@function("image")
def global_average_pool() -> Ways:
    return {
        "module": nn.AdaptiveAvgPool2d(1),
        "F": lambda x: F.adaptive_avg_pool2d(x, 1),
        "kernel": lambda x: aten._adaptive_avg_pool2d.default(x, [1, 1]),
        "window": lambda x: F.avg_pool2d(x, 6),
        "mean": lambda x: x.mean((2, 3), keepdim=True),
        "means": lambda x: x.mean(-1).mean(-1),
        "of flat": lambda x: x.flatten(2).mean(2),
        "sum": lambda x: x.sum((-1, -2)) / 36,
        "sum in place": lambda x: x.sum((-1, -2)).div_(36),
        "torch": lambda x: torch.mean(x, dim=[2, 3]),
        "aten": lambda x: aten.mean.dim(x, [-1, -2], True),
        "1d": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1),
        "einsum": lambda x: torch.einsum("nchw->nc", x) / 36,
    }


@function("positive image")
def lp_pool() -> Ways:
    return {
        "module": nn.LPPool2d(2, 2),
        "F": lambda x: F.lp_pool2d(x, 2.0, 2),
        "keywords": lambda x: F.lp_pool2d(x, kernel_size=(2, 2), norm_type=2, stride=2),
        "written out": lambda x: F.avg_pool2d(x.pow(2.0), 2, 2).mul(4).pow(0.5),
    }


def _resized(mode: str, **options: Any) -> Callable[[], Ways]:
    def ways() -> Ways:
        kernel = getattr(aten, f"upsample_{mode}2d")
        corners = [False] if options else []
        return {
            "module": nn.Upsample(scale_factor=2, mode=mode, **options),
            "F": lambda x: F.interpolate(x, scale_factor=2, mode=mode, **options),
            "size": lambda x: F.interpolate(x, (12, 12), mode=mode, **options),
            "aten": lambda x: kernel.vec(x, None, *corners, [2.0, 2.0]),
            "kernel": lambda x: kernel.default(x, [12, 12], *corners, 2.0, 2.0),
            **(
                {"repeat": lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)} if not options else {}
            ),
        }

    return ways


function("image", name="interpolate by nearest")(_resized("nearest"))
function("image", name="interpolate bilinearly")(_resized("bilinear", align_corners=False))


# ---- rearranging ----


@function("positive image")
def zero_padding() -> Ways:
    return {
        "module": nn.ZeroPad2d((1, 2, 0, 1)),
        "constant": nn.ConstantPad2d((1, 2, 0, 1), 0.0),
        "F": lambda x: F.pad(x, (1, 2, 0, 1)),
        "keywords": lambda x: F.pad(input=x, value=0, mode="constant", pad=[1, 2, 0, 1]),
        "aten": lambda x: aten.pad(x, [1, 2, 0, 1]),
        "kernel": lambda x: aten.constant_pad_nd.default(x, [1, 2, 0, 1]),
        "cat": lambda x: _between_zeros(x, torch.cat),
        "concat": lambda x: _between_zeros(x, torch.concatenate),
        "in place": _into_zeros,
        "in two": lambda x: F.pad(F.pad(x, (1, 2)), (0, 0, 0, 1)),
        "slice_scatter": lambda x: x.new_zeros(len(x), 4, 7, 9).slice_scatter(
            F.pad(x, (1, 2)), dim=2, start=0, end=6
        ),
    }


def _between_zeros(x: Tensor, joined: Callable[..., Tensor]) -> Tensor:
    x = joined((x.new_zeros(len(x), 4, 6, 1), x, x.new_zeros(len(x), 4, 6, 2)), dim=3)
    return joined([x, torch.zeros_like(x[:, :, :1])], dim=-2)


def _into_zeros(x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 4, 7, 9, **DOUBLE)
    out[:, :, :6, 1:7] = x
    return out


@function("image")
def padding_by_reflection() -> Ways:
    return {
        "module": nn.ReflectionPad2d(1),
        "F": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        "aten": lambda x: aten.reflection_pad2d.default(x, [1, 1, 1, 1]),
        "index": lambda x: x[:, :, [1, 0, 1, 2, 3, 4, 5, 4]][:, :, :, [1, 0, 1, 2, 3, 4, 5, 4]],
        "cat": lambda x: _reflected(_reflected(x, 2), 3),
    }


def _reflected(x: Tensor, dim: int) -> Tensor:
    return torch.cat([x.narrow(dim, 1, 1), x, x.narrow(dim, 4, 1)], dim)


@function("sequence")
def cat() -> Ways:
    return {
        "cat": lambda x: torch.cat([x, x], 1),
        "concat": lambda x: torch.concat((x, x), dim=1),
        "concatenate": lambda x: torch.concatenate((x, x), axis=-2),
        "hstack": lambda x: torch.hstack([x, x]),
        "stack": lambda x: torch.stack([x, x], 1).flatten(1, 2),
        "repeat": lambda x: x.repeat(1, 2, 1),
        "tile": lambda x: x.tile((1, 2, 1)),
        "expand": lambda x: x[:, None].expand(-1, 2, -1, -1).reshape(len(x), 8, 8),
        "aten": lambda x: aten.cat.default([x, x], 1),
        "in place": _into_both_halves,
        "index_select": lambda x: x.index_select(1, torch.tensor([0, 1, 2, 3] * 2)),
        "parts": lambda x: torch.cat([x[:, :1], x[:, 1:], x], 1),
    }


def _into_both_halves(x: Tensor) -> Tensor:
    out = x.new_empty(len(x), 8, 8)
    out[:, :4], out[:, 4:] = x, x
    return out


def _reversed(parts: Any) -> Tensor:
    return torch.cat(list(reversed(parts)), 1)


@function("dense", "symbolic_trace")  # which has no lists
def split() -> Ways:
    return {
        "split": lambda x: _reversed(x.split(2, 1)),
        "torch.split": lambda x: _reversed(torch.split(x, 2, dim=1)),
        "sizes": lambda x: _reversed(torch.split(x, [2, 2, 2, 2], 1)),
        "chunk": lambda x: _reversed(x.chunk(4, -1)),
        "tensor_split": lambda x: _reversed(x.tensor_split(4, 1)),
        "hsplit": lambda x: _reversed(torch.hsplit(x, 4)),
        "unbind": lambda x: torch.stack(list(reversed(x.view(-1, 4, 2).unbind(1))), 1).view(-1, 8),
        "iterated": lambda x: torch.stack(list(reversed([*x.view(-1, 4, 2).transpose(0, 1)])), 1).flatten(1),
        "slices": lambda x: torch.cat([x[:, 6:], x[:, 4:6], x[:, 2:4], x[:, :2]], 1),
        "narrow": lambda x: torch.cat([x.narrow(1, i, 2) for i in (6, 4, 2, 0)], 1),
        "flip": lambda x: x.view(-1, 4, 2).flip(1).view(-1, 8),
        "index": lambda x: x[:, [6, 7, 4, 5, 2, 3, 0, 1]],
        "unsafe": lambda x: _reversed(aten.unsafe_split.Tensor(x, 2, 1)),
        "aten": lambda x: _reversed(aten.split.Tensor(x, 2, 1)),
        "copies": lambda x: _reversed(torch.split_copy(x, 2, 1)),
        "unflatten": lambda x: x.unflatten(1, (4, 2)).flip(1).flatten(1),
    }


@function("sequence")
def index() -> Ways:
    chosen = torch.tensor([1, 2])
    return {
        "slice": lambda x: x[:, 1:3],
        "dots": lambda x: x[..., 1:3, :],
        "list": lambda x: x[:, [1, 2]],
        "tensor": lambda x: x[:, chosen],
        "mask": lambda x: x[:, torch.tensor([False, True, True, False])],
        "narrow": lambda x: x.narrow(1, 1, 2),
        "torch.narrow": lambda x: torch.narrow(x, 1, 1, 2),
        "narrow_copy": lambda x: torch.narrow_copy(x, 1, 1, 2),
        "index_select": lambda x: torch.index_select(x, 1, chosen),
        "select": lambda x: torch.stack([x.select(1, 1), x[:, 2]], 1),
        "take_along_dim": lambda x: torch.take_along_dim(x, chosen.view(1, 2, 1), 1),
        "gather": lambda x: x.gather(1, chosen.view(1, 2, 1).expand(len(x), 2, 8)),
        "split": lambda x: x.split([1, 2, 1], 1)[1],
        "aten.slice": lambda x: aten.slice.Tensor(x, 1, 1, 3),
        "aten.index": lambda x: aten.index.Tensor(x, [None, chosen]),
        "slice_copy": lambda x: aten.slice_copy.Tensor(x, 1, 1, 3),
        "unfold": lambda x: x.unfold(1, 2, 1)[:, 1].transpose(1, 2),
        "roll": lambda x: x.roll(-1, 1)[:, :2],
        "permuted": lambda x: x.permute(1, 0, 2)[1:3].permute(1, 0, 2),
        "step": lambda x: torch.cat([x[:, 1::4], x[:, 2::4]], 1),
        "as_strided": lambda x: x.contiguous().as_strided((len(x), 2, 8), (32, 8, 1), 8),
    }


@function("sequence")
def select() -> Ways:
    return {
        "select": lambda x: x.select(1, 2),
        "index": lambda x: x[:, 2],
        "negative": lambda x: x[:, -2, :],
        "torch": lambda x: torch.select(x, 1, 2),
        "aten": lambda x: aten.select.int(x, 1, 2),
        "copy": lambda x: torch.select_copy(x, 1, 2),
        "unbind": lambda x: x.unbind(1)[2],
        "slice": lambda x: x[:, 2:3].squeeze(1),
        "index_select": lambda x: x.index_select(1, torch.tensor([2])).squeeze(1),
        "transposed": lambda x: x.transpose(0, 1)[2],
        "split": lambda x: x.split(1, 1)[2][:, 0],
        "tensor": lambda x: x[:, torch.tensor(2)],
        "weights": lambda x: (x * torch.tensor([0.0, 0, 1, 0], **DOUBLE)[:, None]).sum(1),
    }


@function("sequence")
def transpose() -> Ways:
    return {
        "transpose": lambda x: x.transpose(1, 2),
        "torch": lambda x: torch.transpose(x, 2, 1),
        "negative": lambda x: x.transpose(-1, -2),
        "mT": lambda x: x.mT,
        "permute": lambda x: x.permute(0, 2, 1),
        "torch.permute": lambda x: torch.permute(x, (0, 2, 1)),
        "movedim": lambda x: x.movedim(1, 2),
        "moveaxis": lambda x: torch.moveaxis(x, -1, 1),
        "swapaxes": lambda x: x.swapaxes(1, 2),
        "swapdims": lambda x: torch.swapdims(x, 1, 2),
        "adjoint": lambda x: x.adjoint(),
        "in place": lambda x: x.clone().transpose_(1, 2),
        "swapaxes in place": lambda x: x.clone().swapaxes_(1, 2),
        "aten": lambda x: aten.transpose.int(x, 1, 2),
        "aten.permute": lambda x: aten.permute.default(x, [0, 2, 1]),
        "copy": lambda x: torch.transpose_copy(x, 1, 2),
        "contiguous": lambda x: x.transpose(1, 2).contiguous(),
        "einsum": lambda x: torch.einsum("nij->nji", x),
        "stack": lambda x: torch.stack(x.unbind(1), 2),
        "of all": lambda x: x.permute(2, 1, 0).permute(2, 0, 1),
    }


@function("image")
def reshape() -> Ways:
    return {
        "reshape": lambda x: x.reshape(-1, 2, 72),
        "torch": lambda x: torch.reshape(x, (len(x), 2, 72)),
        "view": lambda x: x.view(-1, 2, 72),
        "flatten": lambda x: x.flatten(1).unflatten(1, (2, 72)),
        "module": nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 72))),
        "view_as": lambda x: x.view_as(torch.empty(len(x), 2, 72)),
        "reshape_as": lambda x: x.reshape_as(torch.empty(len(x), 2, 72)),
        "ravel": lambda x: x.ravel().view(-1, 2, 72),
        "samples in": lambda x: x.flatten(0, 1).view(-1, 2, 72),
        "unsqueeze": lambda x: x.unsqueeze(1).view(-1, 1, 2, 72).squeeze(1),
        "unsqueeze in place": lambda x: x.reshape(-1, 2, 72).unsqueeze_(1).squeeze_(1),
        "aten": lambda x: aten.view.default(x, [-1, 2, 72]),
        "unsafe": lambda x: aten._unsafe_view(x, [len(x), 2, 72]),
        "copy": lambda x: torch.view_copy(x, (len(x), 2, 72)),
        "None": lambda x: x[:, None].reshape(-1, 2, 72),
    }


@function("sequence")
def where() -> Ways:
    mask = torch.rand(4, 8) > 0.4
    keep, zero = mask.double(), torch.zeros((), **DOUBLE)
    return {
        "where": lambda x: torch.where(mask, x, 0.0),
        "tensor": lambda x: torch.where(mask, x, zero),
        "zeros": lambda x: torch.where(mask, x, torch.zeros_like(x)),
        "other way round": lambda x: torch.where(~mask, torch.zeros_like(x), x),
        "method": lambda x: x.where(mask, zero),
        "masked_fill": lambda x: x.masked_fill(~mask, 0.0),
        "torch.masked_fill": lambda x: torch.masked_fill(x, ~mask, 0),
        "of a tensor": lambda x: x.masked_fill(~mask, zero),
        "in place": lambda x: x.clone().masked_fill_(~mask, 0),
        "aten": lambda x: aten.where.self(mask, x, zero),
        "aten.masked_fill": lambda x: aten.masked_fill.Scalar(x, ~mask, 0),
        "product": lambda x: x * mask,
        "product with numbers": lambda x: keep * x,
        "setitem": lambda x: _set(x.clone(), (slice(None), ~mask), 0.0),
        "index_put": lambda x: x.index_put((torch.arange(len(x))[:, None], *(~mask).nonzero().T), zero),
    }


def _set(x: Tensor, where: Any, value: Any) -> Tensor:
    x[where] = value
    return x


@function("sequence", "symbolic_trace")
def setitem() -> Ways:
    """Constants, written to a row."""
    row = drawn(8)
    second = torch.tensor([2])
    return {
        "setitem": lambda x: _set(x.clone(), (slice(None), 2), row),
        "slice": lambda x: _set(x.clone(), (slice(None), slice(2, 3)), row),
        "copy_": lambda x: _copied(x.clone(), row),
        "select copy": lambda x: _copied_to(x.clone(), lambda x: x.select(1, 2), row),
        "narrow copy": lambda x: _copied_to(x.clone(), lambda x: x.narrow(1, 2, 1), row),
        "index_copy": lambda x: x.index_copy(1, second, row.expand(len(x), 1, 8)),
        "index_copy_": lambda x: x.clone().index_copy_(1, second, row.expand(len(x), 1, 8)),
        "index_put": lambda x: x.index_put((torch.arange(len(x)), second), row),
        "index_put_": lambda x: x.clone().index_put_((torch.arange(len(x)), second), row),
        "aten.index_put": lambda x: aten.index_put.default(x, [None, second], row.view(1, 1, 8)),
        "scatter": lambda x: x.scatter(1, second.expand(len(x), 1, 8), row.expand(len(x), 1, 8)),
        "scatter_": lambda x: x.clone().scatter_(1, second.expand(len(x), 1, 8), row.expand(len(x), 1, 8)),
        "slice_scatter": lambda x: torch.slice_scatter(x, row.expand(len(x), 1, 8), 1, 2, 3),
        "select_scatter": lambda x: x.select_scatter(row.expand(len(x), 8), 1, 2),
        "where": lambda x: torch.where((torch.arange(4) == 2)[:, None], row, x),
        "cat": lambda x: torch.cat([x[:, :2], row.expand(len(x), 1, 8), x[:, 3:]], 1),
        "stack": lambda x: torch.stack([x[:, 0], x[:, 1], row.expand(len(x), 8), x[:, 3]], 1),
        "masked_scatter": lambda x: x.masked_scatter(
            (torch.arange(4) == 2)[:, None], row.expand(len(x), 8).contiguous()
        ),
    }


def _copied(x: Tensor, row: Tensor) -> Tensor:
    x[:, 2].copy_(row)
    return x


def _copied_to(x: Tensor, part: Function, row: Tensor) -> Tensor:
    part(x).copy_(row)
    return x


@function("sequence", "symbolic_trace")
def written_from_itself() -> Ways:
    """A row of what was computed, written over another one."""

    def assigned(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 2] = x[:, 0]
        return y

    def to_itself(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 2] = y[:, 0]
        return y

    second = torch.tensor([2])
    return {
        "setitem": assigned,
        "of itself": to_itself,
        "copy_": lambda x: _copied_to(x.clone(), lambda y: y[:, 2], x[:, 0]),
        "index": lambda x: x[:, [0, 1, 0, 3]],
        "stack": lambda x: torch.stack([x[:, 0], x[:, 1], x[:, 0], x[:, 3]], 1),
        "index_copy": lambda x: x.index_copy(1, second, x[:, :1]),
        "scatter": lambda x: x.scatter(1, second.expand(len(x), 1, 8), x[:, :1]),
        "index_put": lambda x: x.index_put((torch.arange(len(x)), second), x[:, 0]),
        "slice_scatter": lambda x: x.slice_scatter(x[:, :1], 1, 2, 3),
        "select_scatter": lambda x: x.select_scatter(x[:, 0], 1, 2),
        "aten": lambda x: aten.select_scatter.default(x, aten.select.int(x, 1, 0), 1, 2),
        "where": lambda x: torch.where((torch.arange(4) == 2)[:, None], x[:, :1], x),
        "cat": lambda x: torch.cat([x[:, :2], x[:, :1], x[:, 3:]], 1),
        "gather": lambda x: x.gather(1, torch.tensor([0, 1, 0, 3]).view(1, 4, 1).expand(len(x), 4, 8)),
    }


@function("dense")
def embedding() -> Ways:
    """A row of a table of numbers by a constant index, added to what was computed."""
    table, at = module(nn.Embedding(7, 8)), torch.tensor([2])
    w = table.weight
    return {
        "module": lambda x: x + table(at),
        "F": lambda x: x + F.embedding(at, w),
        "torch": lambda x: torch.embedding(w, at) + x,
        "aten": lambda x: aten.add.Tensor(x, aten.embedding.default(w, at)),
        "index": lambda x: x + w[at],
        "index_select": lambda x: x.add(w.index_select(0, at)),
        "in place": lambda x: x.clone().add_(table(at)),
        "one-hot": lambda x: x + F.one_hot(at, 7).double() @ w,
        "bag": lambda x: x + F.embedding_bag(at[:, None], w, mode="sum"),
    }


@function("image")
def pixel_shuffle() -> Ways:
    return {
        "module": nn.PixelShuffle(2),
        **named("pixel_shuffle", by=(2,)),
        "written out": lambda x: x.view(-1, 1, 2, 2, 6, 6).permute(0, 1, 4, 2, 5, 3).reshape(-1, 1, 12, 12),
    }


@function("image")
def unfold() -> Ways:
    return {
        "module": nn.Unfold(3),
        "F": lambda x: F.unfold(x, 3),
        "aten": lambda x: aten.im2col.default(x, [3, 3], [1, 1], [0, 0], [1, 1]),
        "by views": lambda x: (
            x.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 1, 4, 5, 2, 3).reshape(len(x), 36, 16)
        ),
        "by slices": lambda x: torch.stack(
            [x[:, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], 2
        ).reshape(len(x), 36, 16),
    }


@function("image")
def fold() -> Ways:
    """The sum of overlapping windows."""
    unfolded = nn.Unfold(2)
    return {
        "module": nn.Sequential(unfolded, nn.Fold((6, 6), 2)),
        "F": lambda x: F.fold(F.unfold(x, 2), (6, 6), 2),
        "aten": lambda x: aten.col2im.default(F.unfold(x, 2), [6, 6], [2, 2], [1, 1], [0, 0], [1, 1]),
    }


# ---- arithmetic ----


@function("dense")
def addition() -> Ways:
    """Of two branches."""
    other = module(nn.Linear(8, 8))
    return {
        "operator": lambda x: x + other(x),
        "function": lambda x: torch.add(x, other(x)),
        "method": lambda x: x.add(other(x)),
        "turned": lambda x: other(x) + x,
        "in place": lambda x: other(x).add_(x),
        "clone in place": lambda x: x.clone().add_(other(x)),
        "+=": lambda x: _added(other(x), x),
        "aten": lambda x: aten.add.Tensor(x, other(x)),
        "aten in place": lambda x: aten.add_.Tensor(other(x), x),
        "alpha": lambda x: torch.add(x, other(x), alpha=1),
        "out": lambda x: torch.add(x, other(x), out=torch.empty_like(x)),
        # As x - (-y), a stack's sum or a product with a matrix of ones it is other operations.
    }


@function("dense")
def subtraction() -> Ways:
    other = module(nn.Linear(8, 8))
    return {
        "operator": lambda x: x - other(x),
        "function": lambda x: torch.sub(x, other(x)),
        "subtract": lambda x: torch.subtract(x, other(x)),
        "method": lambda x: x.sub(other(x)),
        "in place": lambda x: x.clone().sub_(other(x)),
        "rsub": lambda x: torch.rsub(other(x), x),
        "aten": lambda x: aten.sub.Tensor(x, other(x)),
        "aten.rsub": lambda x: aten.rsub.Tensor(other(x), x),
        "alpha": lambda x: torch.add(x, other(x), alpha=-1),
        "alpha of sub": lambda x: torch.sub(x, other(x), alpha=1),
    }


@function("positive dense")
def one_minus() -> Ways:
    one = torch.ones((), **DOUBLE)
    return {
        "operator": lambda x: 1 - x,
        "rsub": lambda x: torch.rsub(x, 1),
        "__rsub__": lambda x: x.__rsub__(1.0),
        "aten": lambda x: aten.rsub.Scalar(x, 1),
        "tensor": lambda x: one - x,
        "sub": lambda x: torch.sub(one, x),
        "neg": lambda x: -x + 1,
        "neg in place": lambda x: x.neg().add_(1),
        "negative": lambda x: torch.negative(x) + 1.0,
        "clone in place": lambda x: x.clone().sub_(1).neg_(),
        "minus and back": lambda x: -(x - 1),
        "times": lambda x: x * -1 + 1,
        "alpha": lambda x: torch.add(torch.ones_like(x), x, alpha=-1),
        "alpha of sub": lambda x: torch.sub(torch.ones_like(x), x, alpha=1),
    }


@function("positive dense")
def scaling() -> Ways:
    half, two = torch.tensor(0.5, **DOUBLE), torch.tensor(2.0, **DOUBLE)
    return {
        "mul": lambda x: x * 0.5,
        "turned": lambda x: 0.5 * x,
        "tensor": lambda x: x * half,
        "tensor first": lambda x: half * x,
        "function": lambda x: torch.mul(x, 0.5),
        "multiply": lambda x: torch.multiply(x, 0.5),
        "in place": lambda x: x.clone().mul_(0.5),
        "div": lambda x: x / 2,
        "div by a tensor": lambda x: x.div(two),
        "divide": lambda x: torch.divide(x, 2),
        "true_divide": lambda x: torch.true_divide(x, 2),
        "div in place": lambda x: x.clone().div_(2),
        "/=": lambda x: x.clone().__itruediv__(2),
        "neg": lambda x: -(x * -0.5),
        "aten": lambda x: aten.mul.Tensor(x, half),
        "aten.div": lambda x: aten.div.Tensor(x, two),
        "aten.mul.Scalar": lambda x: aten.mul.Scalar(x, 0.5),
        "vector": lambda x: x * torch.full((8,), 0.5, **DOUBLE),
        "ldexp": lambda x: torch.ldexp(x, torch.tensor(-1)),
    }


@function("dense")
def scaling_of_outputs() -> Ways:
    """One number for each output of the layer before."""
    scale, shift = drawn(8), drawn(8)
    return {
        "operators": lambda x: x * scale + shift,
        "turned": lambda x: shift + scale * x,
        "addcmul": lambda x: torch.addcmul(shift, x, scale),
        "method": lambda x: shift.addcmul(scale, x),
        "in place": lambda x: x.clone().mul_(scale).add_(shift),
        "div": lambda x: x / (1 / scale) + shift,
        "sub": lambda x: x.mul(scale).sub(-shift),
        "einsum": lambda x: torch.einsum("ni,i->ni", x, scale) + shift,
        "aten": lambda x: aten.add.Tensor(aten.mul.Tensor(x, scale), shift),
        "aten.addcmul": lambda x: aten.addcmul.default(shift, x, scale),
        "batch norm": lambda x: F.batch_norm(
            x, torch.zeros_like(scale), torch.ones_like(scale) - 1e-5, scale, shift
        ),
        "expanded": lambda x: x * scale.expand(len(x), 8) + shift.expand_as(x),
        "views": lambda x: x * scale.view(1, 8) + shift[None],
    }


@function("dense")
def product() -> Ways:
    """Of two branches."""
    other = module(nn.Linear(8, 8))
    return {
        "operator": lambda x: x * other(x),
        "turned": lambda x: other(x) * x,
        "function": lambda x: torch.mul(x, other(x)),
        "in place": lambda x: other(x).mul_(x),
        "aten": lambda x: aten.mul.Tensor(x, other(x)),
        "einsum": lambda x: torch.einsum("ni,ni->ni", x, other(x)),
        "addcmul": lambda x: torch.addcmul(torch.zeros_like(x), x, other(x)),
        "multiply": lambda x: torch.multiply(other(x), x),
    }


@function("dense")
def gated() -> Ways:
    """A signal weighed by a sigmoid."""
    other = module(nn.Linear(8, 8))
    return {
        "operator": lambda x: x * torch.sigmoid(other(x)),
        "turned": lambda x: other(x).sigmoid() * x,
        "in place": lambda x: other(x).sigmoid_().mul_(x),
        "clone in place": lambda x: x.clone().mul_(torch.sigmoid(other(x))),
        "glu": lambda x: F.glu(torch.cat([x, other(x)], 1), 1),
        "addcmul": lambda x: torch.addcmul(torch.zeros_like(x), x, other(x).sigmoid()),
        "module": lambda x: nn.Sigmoid()(other(x)) * x,
        "aten": lambda x: aten.mul.Tensor(x, aten.sigmoid.default(other(x))),
        "einsum": lambda x: torch.einsum("ni,ni->ni", x, other(x).sigmoid()),
    }


@function("dense")
def addcmul() -> Ways:
    a, b = drawn(8), module(nn.Linear(8, 8))
    return {
        "operators": lambda x: b(x) + 0.5 * (x * a),
        "torch": lambda x: torch.addcmul(b(x), x, a, value=0.5),
        "method": lambda x: b(x).addcmul(x, a, value=0.5),
        "in place": lambda x: b(x).addcmul_(x, a, value=0.5),
        "aten": lambda x: aten.addcmul.default(b(x), x, a, value=0.5),
        "turned": lambda x: torch.addcmul(b(x), a, x, value=0.5),
        "alpha": lambda x: torch.add(b(x), x * a, alpha=0.5),
        "addcdiv": lambda x: torch.addcdiv(b(x), x, 1 / a, value=0.5),
    }


@function("sequence")
def mean() -> Ways:
    return {
        "mean": lambda x: x.mean(1),
        "torch": lambda x: torch.mean(x, dim=1),
        "negative": lambda x: x.mean(-2),
        "kept": lambda x: x.mean(1, keepdim=True),
        "aten": lambda x: aten.mean.dim(x, [1]),
        "sum": lambda x: x.sum(1) / 4,
        "torch.sum": lambda x: torch.sum(x, dim=(1,)).mul(0.25),
        "einsum": lambda x: torch.einsum("nti->ni", x) / 4,
        "pooled": lambda x: F.adaptive_avg_pool1d(x.transpose(1, 2), 1).squeeze(-1),
        "window": lambda x: F.avg_pool1d(x.mT, 4).flatten(1),
        "unbind": lambda x: torch.stack(x.unbind(1)).mean(0),
        "cumsum": lambda x: x.cumsum(1)[:, -1] / 4,
    }


@function("sequence")
def cumsum() -> Ways:
    return {
        **named("cumsum", by=(1,)),
        "dimension": lambda x: torch.cumsum(x, dim=-2),
        "sums": lambda x: torch.stack([x[:, : i + 1].sum(1) for i in range(4)], 1),
    }


@function("sequence")
def variance() -> Ways:
    """Beside the mean, which is needed for something to be explained."""

    def biased(x: Tensor, v: Function) -> Tensor:
        return x.mean(1) + v(x)

    return {
        "var": lambda x: biased(x, lambda x: x.var(1)),
        "torch": lambda x: biased(x, lambda x: torch.var(x, dim=1)),
        "unbiased": lambda x: biased(x, lambda x: torch.var(x, 1, unbiased=True)),
        "correction": lambda x: biased(x, lambda x: torch.var(x, dim=-2, correction=1)),
        "var_mean": lambda x: biased(x, lambda x: torch.var_mean(x, 1)[0]),
        "aten": lambda x: biased(x, lambda x: aten.var.correction(x, [1], correction=1)),
        "scaled": lambda x: biased(x, lambda x: x.var(1, correction=0) * (4 / 3)),
    }


@function("sequence")
def deviation() -> Ways:
    return {
        "std": lambda x: x.std(1),
        "torch": lambda x: torch.std(x, dim=1),
        "unbiased": lambda x: torch.std(x, 1, unbiased=True),
        "correction": lambda x: x.std(dim=-2, correction=1),
        "std_mean": lambda x: torch.std_mean(x, 1)[0],
        "aten": lambda x: aten.std.correction(x, [1], correction=1),
        # As the root of a variance it is a chain through a square.
    }


# ---- products of activations ----


@function("sequence")
def matmul_of_activations() -> Ways:
    return {
        "operator": lambda x: x @ x.mT,
        "matmul": lambda x: torch.matmul(x, x.transpose(1, 2)),
        "method": lambda x: x.matmul(x.transpose(-1, -2)),
        "bmm": lambda x: torch.bmm(x, x.permute(0, 2, 1)),
        "bmm method": lambda x: x.bmm(x.mT),
        "aten": lambda x: aten.bmm.default(x, aten.transpose.int(x, 1, 2)),
        "einsum": lambda x: torch.einsum("nti,nsi->nts", x, x),
        "einsum with dots": lambda x: torch.einsum("...ti,...si->...ts", x, x),
        "einsum of a transpose": lambda x: torch.einsum("nti,nis->nts", x, x.mT),
        "baddbmm": lambda x: torch.baddbmm(x.new_empty(1, 4, 4), x, x.mT, beta=0),
        "heads": lambda x: (x[:, None] @ x[:, None].mT)[:, 0],
        "linalg": lambda x: torch.linalg.matmul(x, x.mT),
    }


@function("sequence")
def baddbmm() -> Ways:
    bias = drawn(4, 4)
    return {
        "operators": lambda x: bias + 0.5 * (x @ x.mT),
        "torch": lambda x: torch.baddbmm(bias, x, x.mT, alpha=0.5),
        "expanded": lambda x: torch.baddbmm(bias.expand(len(x), 4, 4), x, x.mT, alpha=0.5),
        "method": lambda x: bias.expand(len(x), 4, 4).baddbmm(x, x.mT, alpha=0.5),
        "in place": lambda x: bias.repeat(len(x), 1, 1).baddbmm_(x, x.mT, alpha=0.5),
        "aten": lambda x: aten.baddbmm.default(bias.expand(len(x), 4, 4), x, x.mT, alpha=0.5),
        "turned": lambda x: torch.bmm(x, x.mT) * 0.5 + bias,
    }


def _attended(x: Tensor, causal: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    return x[..., :4], x.flip(-1)[..., :4], x[..., 2:6]


@function("sequence")
def attention() -> Ways:
    nothing = torch.zeros(4, 4, **DOUBLE)

    def written(x: Tensor) -> Tensor:
        q, k, v = _attended(x)
        return torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v

    def by_einsum(x: Tensor) -> Tensor:
        q, k, v = _attended(x)
        return torch.einsum("nts,nsi->nti", torch.softmax(torch.einsum("nti,nsi->nts", q, k) * 0.5, -1), v)

    def by_baddbmm(x: Tensor) -> Tensor:
        q, k, v = _attended(x)
        scores = torch.baddbmm(nothing.expand(len(x), 4, 4), q, k.mT, beta=0, alpha=0.5)
        return torch.bmm(F.softmax(scores, dim=-1), v)

    def scaled(x: Tensor) -> Tensor:
        q, k, v = _attended(x)
        return F.scaled_dot_product_attention(q * 0.5, k, v, scale=1.0)

    def with_heads(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(t[:, None] for t in _attended(x))).squeeze(1)

    return {
        "F": lambda x: F.scaled_dot_product_attention(*_attended(x)),
        "aten": lambda x: aten.scaled_dot_product_attention.default(*_attended(x)),
        "scale": lambda x: F.scaled_dot_product_attention(*_attended(x), scale=0.5),
        "mask of zeros": lambda x: F.scaled_dot_product_attention(*_attended(x), attn_mask=nothing),
        "mask of all": lambda x: F.scaled_dot_product_attention(*_attended(x), attn_mask=nothing == 0),
        "heads": with_heads,
        "scaled before": scaled,
        "kernel": lambda x: aten._scaled_dot_product_attention_math(*_attended(x))[0],
        "written": written,
        "einsum": by_einsum,
        "baddbmm": by_baddbmm,
    }


@function("sequence")
def causal_attention() -> Ways:
    seen = torch.ones(4, 4, dtype=torch.bool).tril()

    def written(x: Tensor) -> Tensor:
        q, k, v = _attended(x)
        return torch.softmax((q @ k.mT / 2).masked_fill(~seen, -torch.inf), -1) @ v

    return {
        "F": lambda x: F.scaled_dot_product_attention(*_attended(x), is_causal=True),
        "mask": lambda x: F.scaled_dot_product_attention(*_attended(x), attn_mask=seen),
        "numbers": lambda x: F.scaled_dot_product_attention(
            *_attended(x), torch.zeros(4, 4, **DOUBLE).masked_fill(~seen, -torch.inf)
        ),
        "written": written,
    }


# vmap takes one sample after the other, and the books are the batch's.
@function("sequence", "vmap")
def multi_head_attention() -> Ways:
    layer = module(nn.MultiheadAttention(8, 2, batch_first=True))
    w, b, out = layer.in_proj_weight, layer.in_proj_bias, layer.out_proj
    heads = (2, 4)

    def parts(x: Tensor) -> list[Tensor]:
        projected = F.linear(x, w, b).chunk(3, -1)
        return [t.unflatten(-1, heads).transpose(1, 2) for t in projected]

    def function(x: Tensor) -> Tensor:
        return out(F.scaled_dot_product_attention(*parts(x)).transpose(1, 2).flatten(2))

    def written(x: Tensor) -> Tensor:
        q, k, v = parts(x)
        y = torch.softmax(q @ k.mT / sqrt(4), -1) @ v
        return F.linear(y.permute(0, 2, 1, 3).reshape(len(x), 4, 8), out.weight, out.bias)

    def three(x: Tensor) -> Tensor:
        q, k, v = (
            F.linear(x, part, shift).view(-1, 4, *heads).permute(0, 2, 1, 3)
            for part, shift in zip(w.chunk(3), b.chunk(3), strict=True)
        )
        return out(F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).reshape(-1, 4, 8))

    def of_f(x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        args = (8, 2, w, b, None, None, False, 0.0, out.weight, out.bias)
        return F.multi_head_attention_forward(y, y, y, *args, training=False)[0].transpose(0, 1)

    return {
        "module": lambda x: layer(x, x, x, need_weights=False)[0],
        "module with weights": lambda x: layer(x, x, x)[0],
        "F": of_f,
        "function": function,
        "written": written,
        "three layers": three,
    }


def _cell(kind: type[nn.Module]) -> tuple[Any, Tensor, Tensor, Tensor, Tensor]:
    cell = module(kind(8, 5))
    return cell, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh


# vmap takes one sample after the other, and the books are the batch's.
@function("sequence", "vmap")
def gru_cell() -> Ways:
    cell, w, u, b, d = _cell(nn.GRUCell)

    def steps(step: Callable[[Tensor, Tensor], Tensor]) -> Function:
        def way(x: Tensor) -> Tensor:
            h = x[:, 0, :5]
            for t in range(2):
                h = step(x[:, t], h)
            return h

        return way

    def written(x: Tensor, h: Tensor) -> Tensor:
        of_x, of_h = F.linear(x, w, b).chunk(3, 1), F.linear(h, u, d).chunk(3, 1)
        r, z = torch.sigmoid(of_x[0] + of_h[0]), torch.sigmoid(of_x[1] + of_h[1])
        n = torch.tanh(of_x[2] + r * of_h[2])
        return (h - n) * z + n

    return {
        "module": steps(cell),
        "torch": steps(lambda x, h: torch.gru_cell(x, h, w, u, b, d)),
        "aten": steps(lambda x, h: aten.gru_cell.default(x, h, w, u, b, d)),
        "written": steps(written),
    }


@function("sequence", "vmap")
def lstm_cell() -> Ways:
    cell, w, u, b, d = _cell(nn.LSTMCell)

    def steps(step: Callable[..., tuple[Tensor, Tensor]]) -> Function:
        def way(x: Tensor) -> Tensor:
            h, c = x[:, 0, :5], x[:, 0, 3:]
            for t in range(2):
                h, c = step(x[:, t], (h, c))
            return h

        return way

    def written(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = (F.linear(h, u, d) + F.linear(x, w, b)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def in_place(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        gates = F.linear(h, u, d).add_(F.linear(x, w, b)).unsafe_chunk(4, 1)
        i, f, g, o = gates[0].sigmoid_(), gates[1].sigmoid_(), gates[2].tanh_(), gates[3].sigmoid_()
        c = (f * c).add_(i * g)
        return o * c.tanh(), c

    return {
        "module": steps(cell),
        "torch": steps(lambda x, state: torch.lstm_cell(x, state, w, u, b, d)),
        "aten": steps(lambda x, state: aten.lstm_cell.default(x, list(state), w, u, b, d)),
        "written": steps(written),
        "in place": steps(in_place),
    }


# torch has no batching rule; and make_fx writes programs that overwrite parts of a constant state, where what
# made the parts gates is lost.
@function("sequence", "vmap", "make_fx", "decomposed make_fx")
def gru() -> Ways:
    layer = module(nn.GRU(8, 5, batch_first=True))
    w, u, b, d = layer._flat_weights
    return {
        "module": lambda x: layer(x)[0],
        "torch": lambda x: torch.gru(
            x, x.new_zeros(1, len(x), 5), [w, u, b, d], True, 1, 0.0, False, False, True
        )[0],
        "time first": lambda x: torch.gru(
            x.transpose(0, 1), x.new_zeros(1, len(x), 5), [w, u, b, d], True, 1, 0.0, False, False, False
        )[0].transpose(0, 1),
        # Cells stabilise what each step projects by itself, and the layer all steps at once.
    }


FUNCTIONS: dict[str, Callable[[], Written]] = dict(_TABLE)
"""Functions by name."""
