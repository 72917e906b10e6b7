"""A check of rules for linear operations, on every kind of linear operation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relprop.errors import RuleError
from relprop.linear.maps import Convolution, Dense, LinearMap, Scaling
from relprop.linear.operation import Incoming, LinearOperation, Propagated
from relprop.linear.products import Contraction
from relprop.rules.own import require_promises
from relprop.rules.rule import Rule
from relprop.testing.dense import Formula, dense_layer

SAMPLES = 3


@dataclass(frozen=True)
class _Case:
    """A linear operation: its name, its map, the shapes of its weight and a sample, its number of outputs."""

    name: str
    map: LinearMap
    weight: tuple[int, ...]
    sample: tuple[int, ...]
    outputs: int


def _convolution(kernel: tuple[int, ...], **options: object) -> Convolution:
    n = len(kernel)
    geometry = {
        "stride": (1,) * n,
        "padding": (0,) * n,
        "dilation": (1,) * n,
        "transposed": False,
        "output_padding": (0,) * n,
        "groups": 1,
    }
    return Convolution(kernel=kernel, **{**geometry, **options})  # type: ignore[arg-type]


CASES = (
    _Case("linear", Dense(), (3, 5), (5,), 3),
    _Case("x @ w", Dense(transposed=True), (5, 3), (2, 5), 3),
    _Case("conv1d", _convolution((3,), padding=(1,)), (4, 2, 3), (2, 6), 4),
    _Case("conv2d", _convolution((3, 2), stride=(2, 1), padding=(1, 0)), (3, 2, 3, 2), (2, 5, 4), 3),
    _Case("dilated conv2d", _convolution((2, 2), dilation=(2, 1)), (3, 2, 2, 2), (2, 5, 4), 3),
    _Case("grouped conv2d", _convolution((2, 2), groups=2), (4, 2, 2, 2), (4, 4, 4), 4),
    _Case("depthwise conv2d", _convolution((3, 3), groups=3, padding=(1, 1)), (3, 1, 3, 3), (3, 4, 4), 3),
    _Case("padded conv2d", _convolution((3, 3), pads=(1, 0, 2, 1)), (2, 2, 3, 3), (2, 4, 4), 2),
    _Case(
        "conv_transpose2d",
        _convolution((3, 3), stride=(2, 2), padding=(1, 1), transposed=True, output_padding=(1, 0)),
        (2, 3, 3, 3),
        (2, 3, 3),
        3,
    ),
    _Case("conv3d", _convolution((2, 2, 2)), (2, 2, 2, 2, 2), (2, 3, 3, 3), 2),
    _Case("einsum", Contraction("nhtd", "hde", "nhte"), (2, 3, 4), (2, 3, 3), 0),
    _Case("batch norm", Scaling(), (3,), (3, 4), 0),
)
"""Linear operations of every kind; `outputs` is 0 if the operation is checked without a bias only."""


def check_rule(rule: Rule, formula: Formula | None = None, *, seed: int = 0) -> None:
    """Check a rule for linear operations as relprop checks its own, in double precision.

    The rule is applied to dense layers, convolutions of every kind and products, with and without bias, on
    inputs of both signs and on non-negative inputs, with zeros among them. It is checked that

    - its result has the right form, and all relevance that is lost is in `absorbed`;
    - the rule is linear in relevance;
    - samples do not influence each other;
    - the rule changes neither the operation nor the relevance that it gets;
    - what its attributes `looks_everywhere`, `needs_values` and `needs_input` say is true, if it has them;
    - with a formula, every share is the formula's.

    A rule that refuses inputs that may be negative, by a `RuleError`, is checked on non-negative inputs only.

    Args:
        rule: the rule.
        formula: the rule a second time, straight from the paper: from a `DenseLayer` and the relevance of its
            outputs, (out,), to that of its inputs, (in,). Only a formula proves each share. A balance does
            not.
        seed: seed of the random numbers.

    Raises:
        AssertionError: a check failed; the error says which, and on which operation.
    """
    if isinstance(rule, type):
        raise AssertionError(f"{rule.__name__} is a class; check an instance, {rule.__name__}().")
    if not isinstance(rule, Rule):
        raise AssertionError(
            f"{rule!r} is no rule: it must be callable as rule(op, incoming), and say by puts_relevance "
            "whether it puts relevance on inputs that may be zero."
        )
    generator = torch.Generator().manual_seed(seed)
    refused = 0
    checked = 0
    for op, where in _operations(generator):
        R = torch.randn(op.z.shape, dtype=op.z.dtype, generator=generator)
        try:
            _check(rule, op, R, where, generator)
            if formula is not None:
                _check_formula(rule, formula, op, R, where)
        except RuleError as error:
            if op.nonnegative:
                raise AssertionError(f"{where}: {error}") from error
            refused += 1
            continue
        checked += 1
    if not checked:
        raise AssertionError(f"{rule} refused all {refused} operations.")


def _operations(generator: torch.Generator) -> Iterator[tuple[LinearOperation, str]]:
    """Yield every case with each kind of input, with and without bias, and its description."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    for case in CASES:
        for nonnegative in (False, True):
            for with_bias in (False, True) if case.outputs else (False,):
                weight, x = random(*case.weight), random(SAMPLES, *case.sample)
                x = x.abs() if nonnegative else x
                x.flatten()[::3] = 0
                bias = random(case.outputs) if with_bias else None
                z = case.map.apply(x, weight)
                z = z if bias is None else z + case.map.align_bias(bias)
                of = "non-negative inputs" if nonnegative else "inputs of both signs"
                op = LinearOperation(case.map, x, z, weight, bias, nonnegative)
                yield op, f"{case.name}, {'a bias' if with_bias else 'no bias'}, {of}"


def _check(rule: Rule, op: LinearOperation, R: Tensor, where: str, generator: torch.Generator) -> None:
    incoming = Incoming(None, R, op.z)
    held = {"x": op.x, "z": op.z, "weight": op.weight, "R": R}
    held |= {} if op.bias is None else {"bias": op.bias}
    before = {name: t.clone() for name, t in held.items()}
    propagated = rule(op, incoming)
    require_promises(rule, op, incoming, propagated)
    for name, old in before.items():
        _require(torch.equal(old, held[name]), f"{where}: {rule} changed {name}; work on copies.")
    found = _relevance(op, propagated)

    nonzero = op.z.masked_fill(op.z == 0, 1)
    for c, direct, form in (
        (R / nonzero, R.masked_fill(op.z != 0, 0), "a coefficient c and relevance on zeros"),
        (R / (2 * nonzero), R - R / (2 * nonzero) * op.z, "half of it as a coefficient c, the rest directly"),
    ):
        _require_close(
            _relevance(op, rule(op, Incoming(c, direct, op.z))),
            found,
            f"{where}: {rule} treats the same relevance differently if it arrives as {form}. Use "
            "incoming.relevance, or expect that each of c and direct may be there or None. It",
        )

    other = torch.randn(R.shape, dtype=R.dtype, generator=generator)
    summed = _of(rule, op, 2 * R + other)
    _require_close(
        summed, 2 * found + _of(rule, op, other), f"{where}: {rule} is not linear in relevance: of 2R + S it"
    )
    for n in range(len(op.x)):
        one = replace(op, x=op.x[n : n + 1], z=op.z[n : n + 1])
        _require_close(
            _of(rule, one, R[n : n + 1])[0],
            found[n],
            f"{where}: {rule} gives sample {n} other relevance alone than in a batch. Alone it",
        )
    if not getattr(rule, "looks_everywhere", True):
        sparse = R * (op.z > 0)
        clipped = replace(op, z=op.z.clamp(min=0))
        _require_close(
            _of(rule, clipped, sparse),
            _of(rule, op, sparse),
            f"{where}: {rule} has looks_everywhere=False, so outputs without relevance must not matter, but "
            "behind a ReLU it",
        )
    if not getattr(rule, "needs_input", True):
        blind = replace(op, x=torch.full_like(op.x, torch.nan))
        _require_close(
            _parts(rule(blind, Incoming(None, R, op.z))),
            _parts(rule(op, Incoming(None, R, op.z))),
            f"{where}: {rule} has needs_input=False, but without the values of x it",
        )
    if not getattr(rule, "needs_values", True):
        blind = replace(op, x=torch.full_like(op.x, torch.nan), z=torch.full_like(op.z, torch.nan))
        c = torch.randn(op.z.shape, dtype=op.z.dtype, generator=generator)
        without = rule(blind, Incoming(c, None, blind.z)).coefficient
        with_values = rule(op, Incoming(c, None, op.z)).coefficient
        if without is None or with_values is None:
            raise AssertionError(
                f"{where}: {rule} has needs_values=False. Then it must return a coefficient if a coefficient "
                "arrives."
            )
        _require_close(
            without,
            with_values,
            f"{where}: {rule} has needs_values=False, but without values it",
        )


def _check_formula(rule: Rule, formula: Formula, op: LinearOperation, R: Tensor, where: str) -> None:
    bias = 0 if op.b is None else op.b
    # One sample is enough: `_check` has shown that samples do not influence each other.
    layer = dense_layer(
        lambda x: op.map.apply(x, op.weight) + bias,
        lambda x: op.map.apply(x, torch.ones_like(op.weight)),
        op.x[0],
    )
    one = replace(op, x=op.x[:1], z=op.z[:1])
    found, expected = _of(rule, one, R[:1]).flatten(), formula(layer, R[0].flatten())
    _require(bool(expected.isfinite().all()), f"{where}: the formula gives NaN or infinity.")
    _require_close(found, expected, f"{where}: {rule} differs from the formula: it")


def _of(rule: Rule, op: LinearOperation, R: Tensor) -> Tensor:
    return _relevance(op, rule(op, Incoming(None, R, op.z)))


def _parts(propagated: Propagated) -> Tensor:
    """Return coefficient and direct relevance, one behind the other: their product with x needs x."""
    return torch.cat([t.flatten() for t in (propagated.coefficient, propagated.direct) if t is not None])


def _relevance(op: LinearOperation, propagated: Propagated) -> Tensor:
    """Return the relevance of the input."""
    c, direct = propagated.coefficient, propagated.direct
    R = torch.zeros_like(op.x) if c is None else op.x * c
    return R if direct is None else R + direct


def _require_close(found: Tensor, expected: Tensor, what: str) -> None:
    size = float(expected.abs().max()) or 1.0
    apart = (found - expected).abs()
    if bool((apart <= 1e-9 * size).all()):
        return
    place = int(apart.nan_to_num(torch.inf).flatten().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), found.shape))
    raise AssertionError(
        f"{what} gives {float(found.flatten()[place]):.6g} instead of "
        f"{float(expected.flatten()[place]):.6g} at {index}, {float(apart.flatten()[place]):.2g} apart. "
        "(The check computes in float64. A constant in single precision makes a difference of 1e-8.)"
    )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
