"""A call of every entry of the operation table, by what has to hold of it."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

N, C = 2, 4


CONSTANT = torch.randn(C, 6, generator=torch.Generator().manual_seed(5)).double()


def pooling(function: Callable[..., Any], dimensions: int, **options: Any) -> Callable[[Tensor], Tensor]:
    """Pooling by 2 of an image of this many dimensions, made of (N, 4, 6)."""
    shape = {1: (24,), 2: (4, 6), 3: (2, 2, 6)}[dimensions]

    def pool(x: Tensor) -> Tensor:
        result = function(x.view(N, 1, *shape), 2, **options)
        return result[0] if options else result

    return pool


def unpooling(dimensions: int) -> Callable[[Tensor], Tensor]:
    """Max-pooling of an image of this many dimensions, and its partial inverse."""
    shape = {1: (24,), 2: (4, 6), 3: (2, 2, 6)}[dimensions]
    pool = getattr(F, f"max_pool{dimensions}d")
    unpool = getattr(F, f"max_unpool{dimensions}d")
    return lambda x: unpool(*pool(x.view(N, 1, *shape), 2, return_indices=True), 2)


def fractional(dimensions: int, **options: Any) -> Callable[[Tensor], Tensor]:
    """Fractional max-pooling, of regions that are the same in every call."""
    function = getattr(F, f"fractional_max_pool{dimensions}d")
    shape, kernel, output = {2: ((4, 6), 2, (2, 3)), 3: ((2, 3, 4), (1, 1, 2), (1, 2, 2))}[dimensions]
    samples = torch.full((N, 1, dimensions), 0.4).double()

    def pool(x: Tensor) -> Tensor:
        result = function(x.view(N, 1, *shape), kernel, output, _random_samples=samples, **options)
        return result[0] if options else result

    return pool


def written(write: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """A function that writes to a copy of its operand."""

    def function(x: Tensor) -> Tensor:
        copy = x.clone()
        write(copy, x)
        return copy

    return function


def pooling_by_power(dimensions: int, *, frozen: bool = False) -> Callable[..., Tensor]:
    """Pooling (Σ x³)^(1/3) of non-negative values, or the same with all but one factor x constant."""
    shape = {1: (24,), 2: (4, 6), 3: (2, 2, 6)}[dimensions]
    pool, average = (getattr(F, f"{kind}_pool{dimensions}d") for kind in ("lp", "avg"))

    def linearised(x: Tensor, s: Tensor) -> Tensor:
        x, s = (t.abs().view(N, 1, *shape) for t in (x, s))
        count = 2**dimensions
        return count * average(x * s**2, 2) / (count * average(s**3, 2)) ** (2 / 3)

    return linearised if frozen else lambda x: pool(x.abs().view(N, 1, *shape), 3.0, 2)


def standardised(x: Tensor, s: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """x without its mean, over the deviation of s."""
    return (x - x.mean(dimensions, keepdim=True)) / (s.var(dimensions, False, keepdim=True) + 1e-5).sqrt()


def warned(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A deprecated function, of which torch warns."""

    def quiet(x: Tensor) -> Tensor:
        with pytest.warns(UserWarning, match="deprecated"):
            return function(x)

    return quiet


def first_row_becomes_the_second(h: Tensor, x: Tensor) -> None:
    h[:, 0] = x[:, 1]


ROW = torch.tensor([0])


GRID = torch.rand(1, 3, 5, 2, generator=torch.Generator().manual_seed(6)).double() * 2.6 - 1.3


def spectrum(name: str) -> Callable[[Tensor], Tensor]:
    """A Fourier transform of real values, real and imaginary parts beside each other."""
    return lambda x: torch.view_as_real(getattr(torch.fft, name)(x).resolve_conj())


def of_spectrum(name: str) -> Callable[[Tensor], Tensor]:
    """A Fourier transform of complex values to real ones."""
    return lambda x: getattr(torch.fft, name)(torch.complex(x, x.flip(-1)))


# Functions of a tensor (N, C, 6) or, by the number in the operation's name, of an image.
HOMOGENEOUS: dict[str, Callable[[Tensor], Any]] = {
    "view_as_complex": lambda x: torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)))),
    "view_as_real": lambda x: torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * 1j),
    "real": lambda x: (torch.view_as_complex(x.unflatten(-1, (-1, 2))) * (2 + 1j)).real,
    "imag": lambda x: (torch.view_as_complex(x.unflatten(-1, (-1, 2))) * (2 + 1j)).imag,
    "complex": lambda x: (torch.complex(x, x.flip(-1)) * 1j).real,
    "conj": lambda x: torch.complex(x, x.flip(-1)).conj().imag,
    "resolve_conj": lambda x: torch.view_as_real(torch.complex(x, x.flip(-1)).conj().resolve_conj()),
    **{f"fft_{name}": spectrum(name) for name in ("fft", "ifft", "rfft", "ihfft", "fft2", "ifft2", "rfft2")},
    **{f"fft_{name}": spectrum(name) for name in ("fftn", "ifftn", "rfftn")},
    **{f"fft_{name}": of_spectrum(name) for name in ("irfft", "hfft", "irfft2", "irfftn")},
    "nan_to_num": torch.nan_to_num,
    "linalg_solve_triangular": lambda x: torch.linalg.solve_triangular(
        CONSTANT[:, :C].triu() + 2 * torch.eye(C).double(), x, upper=True
    ),
    "as_strided": lambda x: x.as_strided((N, C, 4, 2), (6 * C, 6, 1, 2)),
    "relu": F.relu,
    "abs": torch.abs,
    "absolute": torch.absolute,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25]).double()),
    "rrelu": F.rrelu,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "dropout": lambda x: F.dropout(x, training=False),
    "dropout1d": lambda x: F.dropout1d(x, training=False),
    "dropout2d": lambda x: F.dropout2d(x.unsqueeze(-1), training=False),
    "dropout3d": lambda x: F.dropout3d(x[..., None, None], training=False),
    "feature_dropout": lambda x: torch.feature_dropout(x, 0.5, False),
    "alpha_dropout": lambda x: F.alpha_dropout(x, training=False),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, training=False),
    "add": lambda x: x + x.flip(1),
    "sub": lambda x: x - 0.5 * x.flip(1),
    "rsub": lambda x: torch.rsub(x, x.flip(1), alpha=2),
    "mul": lambda x: 2 * x * CONSTANT,
    "div": lambda x: x / 3 / (CONSTANT.abs() + 1),
    "neg": lambda x: -x,
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(1, keepdim=True),
    "cumsum": lambda x: x.cumsum(1),
    "norm": lambda x: torch.norm(x, dim=1),
    "linalg_norm": lambda x: torch.linalg.norm(x, dim=2),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
    "std": lambda x: x.std(2),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin(2, keepdim=True),
    "max": lambda x: torch.cat([x.max(1).values, torch.max(x, x.flip(1)).flatten(1)], 1),
    "min": lambda x: torch.cat([x.min(1).values, torch.min(x, x.flip(2)).flatten(1)], 1),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "minimum": lambda x: torch.minimum(x.flip(2), x),
    "mode": lambda x: x.mode(1).values,
    "copysign": lambda x: x.copysign(CONSTANT),
    "deg2rad": torch.deg2rad,
    "rad2deg": torch.rad2deg,
    "frexp": lambda x: torch.frexp(x).mantissa,
    "segment_reduce": lambda x: torch.segment_reduce(
        x, "mean", lengths=torch.tensor([[1, 3], [2, 2]]), axis=1
    ),
    "cholesky_solve": lambda x: torch.cholesky_solve(x, SOLVED.tril()),
    "linalg_lu_solve": lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(SOLVED), x),
    "block_diag": lambda x: torch.block_diag(*x),
    "unfold_backward": lambda x: ATEN.unfold_backward(x, [N, 12], 1, 6, 2),
    "as_strided_copy": lambda x: ATEN.as_strided_copy(x, (N, C, 4, 2), (6 * C, 6, 1, 2)),
    "median": lambda x: x.median(2).values,
    "topk": lambda x: x.topk(2, 1).values,
    "sort": lambda x: x.sort(1).values,
    "where": lambda x: torch.cat([torch.where(CONSTANT > 0, x, 2.0), x.where(x > 0, x.flip(1))], 1),
    "view": lambda x: x.view(N, -1),
    "view_as": lambda x: x.view_as(torch.empty(N, 6 * C)),
    "reshape": lambda x: torch.reshape(x, (N, 6, C)),
    "reshape_as": lambda x: x.reshape_as(torch.empty(N, 6 * C)),
    "flatten": lambda x: torch.flatten(x, 1),
    "unflatten": lambda x: x.unflatten(2, (3, 2)),
    "ravel": lambda x: x.permute(1, 0, 2).ravel().view(C, N, 6).permute(1, 0, 2),
    "squeeze": lambda x: x.unsqueeze(2).squeeze(2),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1),
    "expand_as": lambda x: x.unsqueeze(1).expand_as(torch.empty(N, 3, C, 6)),
    "broadcast_to": lambda x: torch.broadcast_to(x.unsqueeze(1), (N, 3, C, 6)),
    "permute": lambda x: x.permute(0, 2, 1),
    "swapaxes": lambda x: x.transpose(1, 2),
    "movedim": lambda x: torch.movedim(x, 1, 2),
    "t": lambda x: x.flatten(1).t().t(),
    "T": lambda x: x.flatten(1).T.T,
    "mT": lambda x: x.mT,
    "flip": lambda x: x.flip(1),
    "roll": lambda x: torch.roll(x, 1, 2),
    "rot90": lambda x: torch.rot90(x, 1, (1, 2)),
    "fliplr": torch.fliplr,
    "flipud": lambda x: torch.flipud(x.permute(1, 0, 2)).permute(1, 0, 2),
    "channel_shuffle": lambda x: torch.channel_shuffle(x.view(N, C, 2, 3), 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.view(N, C, 2, 3), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x.view(N, 1, 4, 6), 2),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: x.tile(2),
    "contiguous": lambda x: x.transpose(1, 2).contiguous(),
    "clone": lambda x: x.clone(),
    "cat": lambda x: torch.cat([x, x.flip(1), CONSTANT.expand(N, -1, -1)], 1),
    "stack": lambda x: torch.stack(tensors=(x, x.flip(2), CONSTANT.expand(N, -1, -1)), dim=1),
    "hstack": lambda x: torch.hstack([x, x]),
    "vstack": lambda x: torch.vstack([x[:1], x[1:]]),
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "chunk": lambda x: torch.chunk(x, 2, 2)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "tensor_split": lambda x: x.tensor_split(2, 1)[1],
    "unsafe_chunk": lambda x: x.unsafe_chunk(2, 2)[0],
    "unsafe_split": lambda x: x.unsafe_split(2, 1)[1],
    "diagonal": lambda x: x.diagonal(1, 1, 2),
    "tril": torch.tril,
    "triu": torch.triu,
    "unfold": lambda x: torch.cat(
        [x.unfold(2, 3, 1).flatten(1), F.unfold(x.view(N, 1, 4, 6), 2).flatten(1)], 1
    ),
    "fold": lambda x: F.fold(x, (4, 3), (2, 2), stride=(1, 1)),
    "narrow": lambda x: x.narrow(2, 1, 3),
    "select": lambda x: x.select(1, 0),
    "getitem": lambda x: x[:, [0, 0, 2], 1:],
    "gather": lambda x: x.gather(2, torch.tensor([0, 0, 3]).expand(N, C, 3)),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 2, 1])),
    "take_along_dim": lambda x: torch.take_along_dim(x, torch.tensor([[[1]]]), 2),
    "masked_fill": lambda x: x.masked_fill(CONSTANT > 0, 2.0),
    "to": lambda x: x.to(torch.float64),
    "type": lambda x: x.type(torch.float64),
    "type_as": lambda x: x.type_as(CONSTANT),
    "float": lambda x: x.float(),
    "double": lambda x: x.double(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "cpu": lambda x: x.cpu(),
    "cuda": lambda x: x.cuda() if torch.cuda.is_available() else x.cpu(),
    "positive": lambda x: +x,
    "pad": lambda x: F.pad(x, (1, 2)),
    "interpolate": lambda x: F.interpolate(x.view(N, 1, 4, 6), (6, 5), mode="bicubic"),
    "upsample": warned(lambda x: F.upsample(x, scale_factor=2)),
    "upsample_nearest": warned(lambda x: F.upsample_nearest(x.view(N, 1, 4, 6), scale_factor=2)),
    "upsample_bilinear": warned(lambda x: F.upsample_bilinear(x.view(N, 1, 4, 6), (6, 5))),
    "grid_sample": lambda x: F.grid_sample(
        x.view(N, 2, 3, 4), GRID.expand(N, -1, -1, -1), align_corners=False, padding_mode="zeros"
    ),
    "affine_grid": lambda x: F.affine_grid(x[..., :3].unflatten(1, (2, 2))[:, 0], [N, 1, 2, 2], True),
    **{f"max_unpool{n}d": unpooling(n) for n in (1, 2, 3)},
    **{f"fractional_max_pool{n}d": fractional(n) for n in (2, 3)},
    **{f"fractional_max_pool{n}d_with_indices": fractional(n, return_indices=True) for n in (2, 3)},
    # not homogeneous, but with the plain gradient too; what that loses is in the ledger
    "softmax": lambda x: x.softmax(2),
    "softmin": lambda x: F.softmin(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 2),
    "logsumexp": lambda x: x.logsumexp((1, 2)),
    "logcumsumexp": lambda x: x.logcumsumexp(2),
    # writing to a part
    "setitem": written(first_row_becomes_the_second),
    "copy": written(lambda h, x: h[:, 0].copy_(x[:, 1])),
    "fill": written(lambda h, x: h[:, 0].fill_(2.0)),
    "zero": written(lambda h, x: h[:, 0].zero_()),
    "index_put": lambda x: x.index_put((ROW, ROW + 1), x[0, 2:3]),
    "put": lambda x: x.put(LINES, x[0, 0, :2]),
    "index_copy": lambda x: x.index_copy(1, ROW, x[:, 1:2]),
    "index_fill": lambda x: x.index_fill(1, ROW, 2.0),
    "index_add": lambda x: x.index_add(1, ROW, x[:, 1:2], alpha=2),
    "scatter": lambda x: x.scatter(1, ROW.expand(N, 1, 6), x[:, 1:2]),
    "scatter_add": lambda x: x.scatter_add(1, ROW.expand(N, 2, 6), x[:, 1:3]),
    "masked_scatter": lambda x: x.masked_scatter(CONSTANT > 0, x.flip(1)),
    **{
        f"{kind}_pool{n}d": pooling(getattr(F, f"{kind}_pool{n}d"), n)
        for kind, n in itertools.product(("avg", "max", "adaptive_avg", "adaptive_max"), (1, 2, 3))
    },
    **{
        f"{kind}_pool{n}d_with_indices": pooling(getattr(F, f"{kind}_pool{n}d"), n, return_indices=True)
        for kind, n in itertools.product(("max", "adaptive_max"), (1, 2, 3))
    },
}


# f(0) = 0, or what f(0) carries is absorbed
POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(-0.3, 0.7),
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "clamp_min": lambda x: x.clamp_min(-0.3),
    "clamp_max": lambda x: x.clamp_max(0.7),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "tanhshrink": F.tanhshrink,
    "log_sigmoid": F.logsigmoid,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "log": lambda x: torch.log(1 + torch.exp(x)),
    "log of a square": lambda x: torch.log(x**2 + 1e-3),
    "log of a clamp": lambda x: x.clamp(min=0.1).log(),
    "log2": lambda x: torch.log2(F.relu(x) + 1),
    "log10": lambda x: torch.log10(x.abs() + 0.5),
    "logit": lambda x: torch.logit(0.9 * torch.sigmoid(x)),
    "logit with a floor": lambda x: x.logit(0.01),
    "acosh": lambda x: torch.acosh(x.cosh() + 1),
    "lgamma": lambda x: x.exp().lgamma(),
    "mvlgamma": lambda x: (x.exp() + 1).mvlgamma(2),
    "digamma": lambda x: x.exp().digamma(),
    "polygamma": lambda x: torch.polygamma(1, x.exp()),
    "ndtri": lambda x: torch.special.ndtri(x.sigmoid()),
    "log_ndtr": torch.special.log_ndtr,
    "erfcx": torch.special.erfcx,
    "entr": torch.special.entr,
    "i0": torch.i0,
    **{name: getattr(torch.special, name) for name in ("i0e", "i1", "i1e")},
    "logaddexp": lambda x: torch.logaddexp(x, torch.zeros((), dtype=x.dtype)),
    "logaddexp2": lambda x: torch.logaddexp2(2 * x, -x),
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "pow": lambda x: x**3,
    "pow of a constant": lambda x: 2**x,
    "square": torch.square,
    "sqrt": torch.sqrt,
}


OF_NONNEGATIVE = {"sqrt", "log1p", "entr"}


INFINITE_SLOPE = {"sqrt", "entr"}
"""At zero."""


def covariances(x: Tensor) -> Tensor:
    """A matrix of each sample that has an inverse."""
    return x @ x.mT + torch.eye(C, dtype=x.dtype)


# Functions of a tensor (N, C, 6), and the same with a second operand for what counts as a constant.
STATISTIC: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "inv": (
        lambda x: torch.linalg.inv(covariances(x)) @ x,
        lambda x, s: torch.linalg.solve(covariances(s), x),
    ),
    "pinv": (
        lambda x: torch.linalg.pinv(covariances(x)) @ x,
        lambda x, s: torch.linalg.solve(covariances(s), x),
    ),
    "solve": (
        lambda x: torch.linalg.solve(covariances(x), x),
        lambda x, s: torch.linalg.solve(covariances(s), x),
    ),
    "batch_norm": (
        lambda x: F.batch_norm(x, CONSTANT[:, 0], CONSTANT[:, 1].abs(), CONSTANT[:, 2], CONSTANT[:, 3]),
        lambda x, _: F.batch_norm(x, CONSTANT[:, 0], CONSTANT[:, 1].abs(), CONSTANT[:, 2], CONSTANT[:, 3]),
    ),
    "layer_norm": (
        lambda x: F.layer_norm(x, (C, 6), CONSTANT, CONSTANT + 1),
        lambda x, s: standardised(x, s, (1, 2)) * CONSTANT + CONSTANT + 1,
    ),
    "rms_norm": (
        lambda x: F.rms_norm(x, (6,), CONSTANT[0], 1e-3),
        lambda x, s: x / (s.square().mean(2, keepdim=True) + 1e-3).sqrt() * CONSTANT[0],
    ),
    "group_norm": (
        lambda x: F.group_norm(x, 2, CONSTANT[:, 0], CONSTANT[:, 1]),
        lambda x, s: (
            standardised(x.view(N, 2, -1), s.view(N, 2, -1), (2,)).view_as(x) * CONSTANT[:, :1]
            + CONSTANT[:, 1:2]
        ),
    ),
    "instance_norm": (
        lambda x: F.instance_norm(x, weight=CONSTANT[:, 0], bias=CONSTANT[:, 1]),
        lambda x, s: standardised(x, s, (2,)) * CONSTANT[:, :1] + CONSTANT[:, 1:2],
    ),
    "local_response_norm": (
        lambda x: F.local_response_norm(x, 3, alpha=0.5),
        lambda x, s: (
            x / (1 + 0.5 * sum(F.pad(s.square(), (0, 0, 1, 1))[:, i : i + C] for i in range(3)) / 3) ** 0.75
        ),
    ),
    "normalize": (F.normalize, lambda x, s: x / s.norm(dim=1, keepdim=True)),
    "reciprocal": (
        lambda x: x * (x.square().mean(2, keepdim=True) + 0.1).reciprocal(),
        lambda x, s: x / (s.square().mean(2, keepdim=True) + 0.1),
    ),
    "rsqrt": (
        lambda x: x * torch.rsqrt(x.pow(2).mean(2, keepdim=True) + 0.1),
        lambda x, s: x / (s.square().mean(2, keepdim=True) + 0.1).sqrt(),
    ),
    "rdiv": (
        lambda x: (1 / (x.var(2, keepdim=True) + 0.1).sqrt()) * x,
        lambda x, s: x / (s.var(2, keepdim=True) + 0.1).sqrt(),
    ),
    "var": (
        lambda x: x.var(2),
        lambda x, s: ((x - x.mean(2, keepdim=True)) * (s - s.mean(2, keepdim=True))).sum(2) / 5,
    ),
    **{f"lp_pool{n}d": (pooling_by_power(n), pooling_by_power(n, frozen=True)) for n in (1, 2, 3)},
    "renorm": (
        lambda x: x.renorm(2, 1, 1.5),
        lambda x, s: x / (s.norm(dim=(0, 2), keepdim=True) / 1.5).clamp(min=1),
    ),
    "glu": (lambda x: F.glu(x, 2), lambda x, s: x[..., :3] * torch.sigmoid(s[..., 3:])),
    "addcmul": (
        lambda x: torch.addcmul(x, x, x.flip(1), value=0.5),
        lambda x, s: x + 0.25 * (x * s.flip(1) + s * x.flip(1)),
    ),
    "addcdiv": (
        lambda x: torch.addcdiv(x, x, x.norm(dim=1, keepdim=True), value=0.5),
        lambda x, s: x + 0.5 * x / s.norm(dim=1, keepdim=True),
    ),
}


IMAGES = {1: (24,), 2: (4, 6), 3: (2, 2, 6)}
"""Images of so many dimensions that (N, 4, 6) makes, each of one channel."""


ATEN = torch.ops.aten


SQUARE = torch.randn(6, 6, generator=torch.Generator().manual_seed(7)).double()


SOLVED = SQUARE[:C, :C] @ SQUARE[:C, :C].T + torch.eye(C).double()


SPARSE = SQUARE[:, :C].where(SQUARE[:, :C] > 0, 0).to_sparse()


STEP = torch.tensor([0.1])


def quantised(name: str, *args: Any) -> Callable[[Tensor], Tensor]:
    """One of torch's kernels of fake quantisation, which take single precision."""

    def function(x: Tensor) -> Tensor:
        result = getattr(ATEN, name)(x.float(), *args)
        return result[0] if isinstance(result, tuple) else result

    return function


def observed(x: Tensor) -> Tensor:
    """Fake quantisation that looks at the values first."""
    on, low, high, zero = torch.ones(1).long(), STEP - 1, STEP + 1, torch.zeros(1).int()
    return torch.fused_moving_avg_obs_fake_quant(
        x.float(), on, on, low, high, STEP.clone(), zero, 0.01, -8, 7, 0
    )


FILTERS = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(8)).double()


LINES = torch.tensor([0, 2])


CONVOLVED: tuple[Any, ...] = ((1,), (0,), (1,), False, (0,), 1)
"""Stride, padding, dilation, not transposed, output padding, groups."""


AFFINE = CONSTANT[:, 2:4].T.contiguous()


STATISTICS = CONSTANT[:, :2].T.abs()


def each(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What takes no batch, of one sample (C, 6) after the other."""
    return lambda x: torch.stack([function(sample) for sample in x])


def of_image(name: str, dimensions: int, *args: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: getattr(ATEN, name)(x.view(N, 1, *IMAGES[dimensions]), *args)


def of_heads(name: str) -> Callable[[Tensor], Tensor]:
    """One of torch's kernels of attention, of two heads with different queries, keys and values."""
    return lambda x: getattr(ATEN, name)(*(t.view(N, 2, 4, 3) for t in (x, x.flip(1), 2 * x)))[0]


def small(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that is defined near zero only."""
    return lambda x: function(0.6 * torch.tanh(x))


def copied(name: str, *args: Any) -> Callable[[Tensor], Tensor]:
    """A view that is copied, as functionalised programs have it; of several ones the last."""

    def function(x: Tensor) -> Tensor:
        result = getattr(ATEN, f"{name}_copy")(x, *args)
        return result if isinstance(result, Tensor) else result[-1]

    return function


def attention_kernel(x: Tensor) -> Tensor:
    weights = torch.cat([SQUARE, SQUARE.T, SQUARE + 1])
    output, _ = ATEN._native_multi_head_attention(
        *(x, x, x, 6, 2, weights, weights[:, 0], SQUARE, SQUARE[0], None, True)
    )
    return output


# Operations as programs have them that were written out, or by a name that no case above comes to.
KERNELS: dict[str, Callable[[Tensor], Any]] = {
    # linear
    "linear": lambda x: F.linear(x, CONSTANT, CONSTANT[:, 0]),
    "addmm": lambda x: torch.addmm(CONSTANT[0], x[:, 0], SQUARE),
    "mm": lambda x: torch.mm(x[:, 0], SQUARE),
    "matmul": lambda x: torch.matmul(SQUARE[:3, :4], x),
    "bmm": lambda x: torch.bmm(x, x.mT),
    "mv": each(lambda x: torch.mv(x, SQUARE[0])),
    "dot": each(lambda x: torch.dot(x[0], x[1])),
    "einsum": lambda x: torch.einsum("nci,io,nko->nck", x, SQUARE, x.flip(1)),
    "baddbmm": lambda x: torch.baddbmm(CONSTANT[:, :C], x, x.mT, beta=0.5, alpha=2),
    "addbmm": each(lambda x: torch.addbmm(CONSTANT[:2], x.view(2, 2, 6), SQUARE.expand(2, 6, 6), beta=0.5)),
    "addmv": each(lambda x: torch.addmv(x[:, 0], x, SQUARE[0], alpha=0.5)),
    "vdot": each(lambda x: torch.vdot(x[0], x[1])),
    "bilinear": lambda x: F.bilinear(x, x.flip(1), SQUARE.expand(3, 6, 6), SQUARE[0, :3]),
    "_trilinear": lambda x: ATEN._trilinear(x, x.flip(1), CONSTANT, [], [], [0], [1], 1),
    "_sparse_mm": each(lambda x: torch.sparse.mm(SPARSE, x)),
    "_sparse_addmm": each(lambda x: torch.sparse.addmm(SQUARE, SPARSE, x, beta=0.5)),
    "addr": each(lambda x: torch.addr(x, x[:, 0], SQUARE[0], alpha=0.5)),
    "_grouped_mm": lambda x: ATEN._grouped_mm(
        x.float().view(-1, 8),
        torch.linspace(-1, 1, 64).view(2, 8, 4),
        torch.tensor([2, 6], dtype=torch.int32),
    ),
    "conv1d": lambda x: F.conv1d(x, FILTERS, FILTERS[:, 0, 0], padding=1),
    "conv2d": lambda x: F.conv2d(x.unsqueeze(1), FILTERS.unsqueeze(1)),
    "conv3d": lambda x: F.conv3d(x.view(N, 1, *IMAGES[3]), FILTERS[:, None, None, :2]),
    "convolution": lambda x: ATEN.convolution(x, FILTERS, None, *CONVOLVED),
    "_convolution": lambda x: ATEN._convolution(x, FILTERS, None, *CONVOLVED, False, False, True, True),
    # functions of single values
    **{name: small(getattr(torch, name)) for name in ("acos", "asin", "atanh", "tan", "erfinv")},
    **{name: getattr(torch, name) for name in ("asinh", "cosh", "sinh", "exp2", "sinc")},
    "xlogy": lambda x: torch.xlogy(x, CONSTANT.abs()),
    "special_xlog1py": lambda x: torch.special.xlog1py(x.flip(1), x.abs()),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
    "logaddexp2": lambda x: torch.logaddexp2(x, x.flip(1)),
    "frac": torch.frac,
    "fmod": lambda x: x.fmod(0.3),
    "remainder": lambda x: x % CONSTANT,
    "polar": lambda x: torch.view_as_real(torch.polar(x.abs(), x.flip(1))),
    **{
        f"fake quantisation {i}": quantised(*args)
        for i, args in enumerate(
            (
                ("fake_quantize_per_tensor_affine_cachemask", 0.1, 1, -8, 7),
                ("fake_quantize_per_channel_affine", STEP.expand(C), torch.zeros(C).int(), 1, -8, 7),
                (
                    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
                    *(STEP, torch.zeros(1).int(), torch.ones(1).long(), -8, 7),
                ),
                ("_fake_quantize_learnable_per_tensor_affine", STEP, torch.zeros(1), -8, 7, 1.0),
                (
                    "_fake_quantize_learnable_per_channel_affine",
                    *(STEP.expand(C), torch.zeros(C), 1, -8, 7, 1.0),
                ),
            )
        )
    },
    "_fused_moving_avg_obs_fq_helper": observed,
    "log_sigmoid_forward": lambda x: ATEN.log_sigmoid_forward(x)[0],
    "native_dropout": lambda x: ATEN.native_dropout(x, 0.5, False)[0],
    # sums, products, extremes
    "nansum": lambda x: x.nansum(1),
    "trace": each(lambda x: x[:, :C].trace()),
    "norm": lambda x: ATEN.norm(x, 3, [1]),
    "std_mean": lambda x: torch.cat(torch.std_mean(x, 2), 1),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, 2), 1),
    "prod": lambda x: x.prod(1),
    "cumprod": lambda x: x.cumprod(1),
    "aminmax": lambda x: torch.cat(torch.aminmax(x, dim=1), 1),
    "cummax": lambda x: x.cummax(1).values,
    "cummin": lambda x: x.cummin(1).values,
    "fmax": lambda x: torch.fmax(x, CONSTANT),
    "clamp between tensors": lambda x: x.clamp(-CONSTANT.abs(), CONSTANT.abs()),
    "fmin": lambda x: torch.fmin(x, x.flip(1)),
    "nanmedian": lambda x: x.nanmedian(1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "_adaptive_avg_pool2d": of_image("_adaptive_avg_pool2d", 2, (2, 4)),
    "_adaptive_avg_pool3d": of_image("_adaptive_avg_pool3d", 3, (1, 2, 4)),
    # of two
    "dist": each(lambda x: torch.dist(x, CONSTANT, 3)),
    "_cdist_forward": lambda x: ATEN._cdist_forward(x, CONSTANT.expand(N, C, 6), 2.0, None),
    "_pdist_forward": each(F.pdist),
    "hypot": lambda x: torch.hypot(x, CONSTANT),
    "ldexp": lambda x: torch.ldexp(x, LINES.repeat(3)),
    "lerp": lambda x: torch.lerp(x, x.flip(1), CONSTANT),
    "linalg_cross": lambda x: torch.linalg.cross(x[:, :3], x[:, 1:], dim=1),
    "_linalg_solve_ex": lambda x: ATEN._linalg_solve_ex(SQUARE[:C, :C].expand(N, C, C), x)[0],
    # normalisation, softmax, attention
    "native_batch_norm": lambda x: ATEN.native_batch_norm(x, *AFFINE, *STATISTICS, False, 0.1, 1e-5)[0],
    "_native_batch_norm_legit": lambda x: ATEN._native_batch_norm_legit(
        x, *AFFINE, *STATISTICS, False, 0.1, 1e-5
    )[0],
    "_native_batch_norm_legit_no_training": lambda x: ATEN._native_batch_norm_legit_no_training(
        x, *AFFINE, *STATISTICS, 0.1, 1e-5
    )[0],
    "native_layer_norm": lambda x: ATEN.native_layer_norm(x, [6], CONSTANT[0], CONSTANT[1], 1e-5)[0],
    "native_group_norm": lambda x: ATEN.native_group_norm(x, *AFFINE, N, C, 6, 2, 1e-5)[0],
    "_fused_rms_norm": lambda x: ATEN._fused_rms_norm(x, [6], CONSTANT[0], 1e-3)[0],
    "_softmax": lambda x: ATEN._softmax(x, 1, False),
    "_log_softmax": lambda x: ATEN._log_softmax(x, 1, False),
    "_safe_softmax": lambda x: ATEN._safe_softmax(x, 1),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x.flip(1), 2 * x),
    "_scaled_dot_product_attention_math": of_heads("_scaled_dot_product_attention_math"),
    "_scaled_dot_product_flash_attention_for_cpu": of_heads("_scaled_dot_product_flash_attention_for_cpu"),
    "_native_multi_head_attention": attention_kernel,
    # resampling and padding
    **{
        name: of_image(name, n, [i + 1 for i in IMAGES[n]], *options)
        for name, n, *options in (
            *((f"_upsample_nearest_exact{n}d", n) for n in (1, 2, 3)),
            ("upsample_nearest3d", 3),
            ("upsample_linear1d", 1, False),
            ("upsample_trilinear3d", 3, False),
            ("_upsample_bilinear2d_aa", 2, False),
            ("_upsample_bicubic2d_aa", 2, False),
        )
    },
    "grid_sampler_2d": lambda x: ATEN.grid_sampler_2d(
        x.view(N, 2, 3, 4), GRID.expand(N, -1, -1, -1), 0, 0, False
    ),
    "grid_sampler_3d": lambda x: ATEN.grid_sampler_3d(
        x.view(N, 1, *IMAGES[3]), GRID[:, :, :4].reshape(1, 2, 2, 2, 3).expand(N, -1, -1, -1, -1), 0, 0, False
    ),
    **{
        f"{kind}_pad{n}d": of_image(f"{kind}_pad{n}d", n, [1] * 2 * n)
        for kind, n in itertools.product(("reflection", "replication"), (1, 2, 3))
    },
    "constant_pad_nd": lambda x: ATEN.constant_pad_nd(x, [1, 1], 0.5),
    # moved
    "alias": lambda x: ATEN.alias(x),
    "_reshape_alias": lambda x: ATEN._reshape_alias(x, [N, 24], [24, 1]),
    "_unsafe_view": lambda x: ATEN._unsafe_view(x, [N, 24]),
    "_conj_physical": lambda x: torch.view_as_real(ATEN._conj_physical(torch.complex(x, x.flip(1)))),
    "conj_physical": lambda x: torch.view_as_real(torch.conj_physical(torch.complex(x, x.flip(1)))),
    "diag_embed": torch.diag_embed,
    "embedding": each(lambda x: F.embedding(LINES, x)),
    "embedding_bag": each(lambda x: F.embedding_bag(LINES.repeat(2, 2), x, mode="sum")),
    "_embedding_bag": each(lambda x: ATEN._embedding_bag(x, LINES, LINES[:1], False, 1)[0]),
    "masked_select": each(lambda x: x.masked_select(CONSTANT > 0)),
    "native_channel_shuffle": lambda x: ATEN.native_channel_shuffle(x.unsqueeze(-1), 2),
    "split": lambda x: x.split(3, 1)[0],
    "unsafe_split_with_sizes": lambda x: x.unsafe_split_with_sizes([1, 3], 1)[1],
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "take": each(lambda x: x.take(LINES)),
    "_unsafe_index": lambda x: ATEN._unsafe_index(x, [None, LINES]),
    "lift_fresh_copy": lambda x: ATEN.lift_fresh_copy(x),
    **{
        f"{name}_copy": copied(name, *args)
        for name, *args in (
            ("alias",),
            ("diagonal", 0, 1, 2),
            ("expand", (N, C, 6)),
            ("narrow", 1, 1, 2),
            ("permute", (0, 2, 1)),
            ("select", 1, 0),
            ("slice", 1, 1, 3),
            ("split", 3, 1),
            ("split_with_sizes", [1, 3], 1),
            ("squeeze",),
            ("transpose", 1, 2),
            ("unbind", 1),
            ("unfold", 2, 3, 1),
            ("unsqueeze", 1),
            ("view", (N, -1)),
        )
    },
    "t_copy": lambda x: ATEN.t_copy(ATEN.t_copy(x.flatten(1))),
    "view_as_real_copy": lambda x: ATEN.view_as_real_copy(torch.complex(x, x.flip(1))),
    # written
    "_unsafe_index_put": lambda x: ATEN._unsafe_index_put(x, [None, LINES], CONSTANT[:2].expand(N, 2, 6)),
    "diagonal_scatter": lambda x: torch.diagonal_scatter(x, CONSTANT[:, 0].expand(N, C), 0, 1, 2),
    "select_scatter": lambda x: torch.select_scatter(CONSTANT.expand(N, C, 6), x[:, 1], 1, 0),
    "slice_scatter": lambda x: torch.slice_scatter(x, CONSTANT[:2].expand(N, 2, 6), 1, 0, 2),
    "scatter_reduce": lambda x: x.scatter_reduce(1, LINES[:, None].expand(N, 2, 6), x[:, 1:3], "amax"),
    "index_reduce": lambda x: x.index_reduce(1, LINES, CONSTANT[:2].expand(N, 2, 6), "amax"),
}


# Constants between their steps, or altogether.
STEPS: dict[str, Callable[[Tensor], Any]] = {
    **{name: getattr(torch, name) for name in ("ceil", "floor", "round", "trunc", "sgn", "detach")},
    "ge": lambda x: x >= 0,
    "le": lambda x: x <= 0,
    "lt": lambda x: x < 0,
    "floor_divide": lambda x: x // 0.3,
    "div": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "norm": lambda x: x.norm(0, dim=1, keepdim=True),
    "normal": lambda x: torch.normal(x, 1.0),
    **{
        name: lambda x, name=name, by=by: getattr(x.clone(), f"{name}_")(*by)
        for name, by in (("exponential", ()), ("geometric", (0.5,)), ("log_normal", ()), ("uniform", ()))
    },
    "cauchy": lambda x: x.clone().cauchy_().clamp(-9, 9),
    "heaviside": lambda x: torch.heaviside(x, CONSTANT),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
}
