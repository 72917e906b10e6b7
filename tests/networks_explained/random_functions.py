"""Pointwise functions of random programs, in the ways in which a model may write them.

The marks are those of `random_steps`.
"""

from random_steps import Drawing, Shape, Ways, operation, pointwise

pointwise(
    "relu",
    "torch.relu($x)",
    "F.relu($x)",
    "nn.ReLU()($x)",
    "nn.ReLU(inplace=True)($own)",
    "$own.relu_()",
    "$x.clamp(min=0)",
    "torch.clamp_min($x, 0)",
    "$own.clamp_min_(0)",
    "F.threshold($x, 0, 0)",
    "$x * ($x > 0)",
    "torch.maximum($x, torch.zeros_like($x))",
    "=($x + $x.abs()) / 2",
    "torch.where($x > 0, $x, 0.0)",
    "$x.masked_fill($x < 0, 0.0)",
    "aten.relu.default($x)",
    "aten.where.self($x <= 0, torch.zeros_like($x), $x)",
)
pointwise(
    "leaky relu",
    "F.leaky_relu($x, 0.1)",
    "nn.LeakyReLU(0.1)($x)",
    "F.leaky_relu_($own, 0.1)",
    "^torch.where($x > 0, $x, 0.1 * $x)",
    "torch.maximum($x, 0.1 * $x)",
    "=F.relu($x) - 0.1 * F.relu(-$x)",
    "aten.leaky_relu.default($x, 0.1)",
)
pointwise(
    "relu6",
    "F.relu6($x)",
    "nn.ReLU6()($x)",
    "$own.clamp_(0, 6)",
    "F.hardtanh($x, 0, 6)",
    "$x.clamp_min(0).clamp_max(6)",
    "aten.hardtanh.default($x, 0.0, 6.0)",
    "torch.clip($x, 0, 6)",
)
pointwise(
    "silu",
    "F.silu($x)",
    "nn.SiLU()($x)",
    "nn.SiLU(inplace=True)($own)",
    "$x * torch.sigmoid($x)",
    "torch.sigmoid($x) * $x",
    "$own.mul_($own.sigmoid())",
    "$x * (1 / (1 + torch.exp(-$x)))",
    "$x / (1 + torch.exp(-$x))",
    "torch.mul($x, (1 + $x.neg().exp()).reciprocal())",
    "aten.silu.default($x)",
)
pointwise(
    "gelu",
    "F.gelu($x)",
    "nn.GELU()($x)",
    "$x * 0.5 * (1.0 + torch.erf($x / sqrt(2.0)))",
    "0.5 * $x * (1 + torch.special.erf($x * sqrt(0.5)))",
    "$x * 0.5 * torch.erfc(-$x / sqrt(2.0))",
    "$z = ($x / sqrt(2.0)).erf_().add_(1.0).mul_(0.5)\n$z = $z.mul_($x)",
)
pointwise(
    "hardswish",
    "F.hardswish($x)",
    "nn.Hardswish(inplace=True)($own)",
    "=$x * F.relu6($x + 3) / 6",
    "$x * (F.relu6($x + 3) / 6)",
    "$x * F.hardsigmoid($x)",
    "$z = ($x + 3).clamp_(0, 6).div_(6)\n$z = $z * $x",
)
pointwise(
    "elu",
    "F.elu($x)",
    "nn.ELU(inplace=True)($own)",
    "^~torch.where($x > 0, $x, torch.exp($x) - 1)",
    "~F.relu($x) + $x.clamp(max=0).expm1()",
    "aten.elu.default($x)",
)
pointwise(
    "tanh",
    "torch.tanh($x)",
    "nn.Tanh()($x)",
    "$own.tanh_()",
    "=2 * torch.sigmoid(2 * $x) - 1",
    "aten.tanh.default($x)",
)
pointwise(
    "sigmoid",
    "torch.sigmoid($x)",
    "nn.Sigmoid()($x)",
    "$own.sigmoid_()",
    "F.sigmoid($x)",
    "1 / (1 + torch.exp(-$x))",
    "=0.5 * (1 + torch.tanh($x / 2))",
    "(-$x).exp_().add_(1).reciprocal_()",
    "(1 + torch.exp(-$x)).pow(-1)",
    "torch.special.expit($x)",
    "aten.sigmoid.default($x)",
)
pointwise(
    "hardsigmoid",
    "F.hardsigmoid($x)",
    "=F.relu6($x + 3) / 6",
    "($x / 6 + 0.5).clamp(0, 1)",
    "=$own.add_(3.0).clamp_(0.0, 6.0).div_(6.0)",
)
pointwise(
    "softplus",
    "F.softplus($x)",
    "nn.Softplus()($x)",
    "torch.log(1 + $x.exp())",
    "$x.exp().log1p()",
    "=-F.logsigmoid(-$x)",
)
pointwise(
    "square",
    "$x.square()",
    "$x ** 2",
    "$x * $x",
    "torch.pow($x, 2.0)",
    "torch.mul($x, $x)",
    "aten.mul.Tensor($x, $x)",
)
pointwise(
    "absolute", "$x.abs()", "torch.abs($x)", "$own.abs_()", "torch.absolute($x)", "aten.abs.default($x)"
)
pointwise("softsign", "F.softsign($x)", "$x / (1 + $x.abs())", "$x.div(torch.abs($x) + 1)")


@operation(fresh=False, continues=True)
def nothing(_draw: Drawing, x: Shape) -> Ways:
    last = ", ".join(["0"] * 2)
    return (
        "$x",
        "$x.clone()",
        "nn.Identity()($x)",
        "F.dropout($x, 0.4, training=False)",
        "nn.Dropout(0.4).eval()($x)",
        "$x.contiguous()",
        "$x.view_as($x)",
        "$x[...]",
        "+$x",
        f"^F.pad($x, ({last}))",
        "aten.alias.default($x)",
        f"^$x.unsqueeze(1).reshape(-1, {', '.join(map(str, x[1:]))})",
        "$x.to(torch.float64)",
    )


@operation(continues=True)
def scale(_draw: Drawing, _x: Shape) -> Ways:
    return (
        "$x * 0.5",
        "0.5 * $x",
        "torch.mul($x, torch.tensor(0.5, dtype=torch.float64))",
        "$own.mul_(0.5)",
        "$x / 2",
        "$x.div(torch.tensor(2.0, dtype=torch.float64))",
        "-($x * -0.5)",
        "aten.mul.Scalar($x, 0.5)",
        "aten.div.Tensor($x, 2.0)",
    )


@operation(continues=True)
def scale_and_shift(draw: Drawing, x: Shape) -> Ways:
    """One number for each of several features."""
    if x[-1] < 2:
        return ()
    draw.tensor("s", x[-1])
    draw.tensor("b", x[-1])
    return (
        "$x * $s + $b",
        "$b + $s * $x",
        "torch.addcmul($b, $x, $s)",
        "$b.addcmul($s, $x)",
        "$own.mul_($s).add_($b)",
        "$x.mul($s).sub(-$b)",
        "torch.einsum('...i,i->...i', $x, $s) + $b",
        "aten.add.Tensor(aten.mul.Tensor($x, $s), $b)",
        "$x * $s.expand_as($x) + $b.expand_as($x)",
    )


@operation(continues=True)
def one_minus(_draw: Drawing, _x: Shape) -> Ways:
    return (
        "1 - $x",
        "torch.rsub($x, 1)",
        "-$x + 1",
        "$x * -1 + 1",
        ":-($x - 1)",
        "$own.neg_().add_(1)",
        "torch.add(torch.ones_like($x), $x, alpha=-1)",
        "torch.ones_like($x) - $x",
    )
