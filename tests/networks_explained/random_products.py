"""Operations of two operands of random programs, in the ways in which a model may write them.

The marks are those of `random_steps`.
"""

from random_steps import Drawing, Shape, Ways, operation


@operation(2)
def total(_draw: Drawing, x: Shape, y: Shape) -> Ways:
    if x != y:
        return ()
    return (
        "$x + $y",
        "$y + $x",
        "torch.add($x, $y)",
        "$x.add($y)",
        "$own.add_($y)",
        "$z = $own\n$z += $y",
        "torch.add($y, $x, alpha=1)",
        "aten.add.Tensor($x, $y)",
        "torch.add($x, $y, out=torch.empty_like($x))",
        "$x - (-$y)",
        "~torch.stack([$x, $y]).sum(0)",
        "~torch.stack([$y, $x], -1).sum(-1)",
        "sum([$x, $y])",
    )


@operation(2)
def difference(_draw: Drawing, x: Shape, y: Shape) -> Ways:
    if x != y:
        return ()
    return (
        "$x - $y",
        "torch.sub($x, $y)",
        "$own.sub_($y)",
        "torch.rsub($y, $x)",
        "$x + (-$y)",
        "torch.add($x, $y, alpha=-1)",
        "-$y + $x",
        "-($y - $x)",
        "aten.sub.Tensor($x, $y)",
    )


@operation(2)
def product(_draw: Drawing, x: Shape, y: Shape) -> Ways:
    if x != y:
        return ()
    return (
        "$x * $y",
        "$y * $x",
        "torch.mul($x, $y)",
        "$y.mul($x)",
        "$own.mul_($y)",
        "torch.multiply($x, $y)",
        "~torch.einsum('n...,n...->n...', $x, $y)",
        "torch.addcmul(torch.zeros_like($x), $x, $y)",
        "aten.mul.Tensor($y, $x)",
        "torch.mul($x, $y, out=torch.empty_like($x))",
        "~($x[:, None] * $y[:, None])[:, 0]",
        "~$x.transpose(1, -1).mul($y.transpose(1, -1)).transpose(1, -1)",
    )


@operation(2)
def gate(draw: Drawing, x: Shape, y: Shape) -> Ways:
    if x != y:
        return ()
    made = draw.choose("sigmoid", "relu", "softmax(-1)", "tanh", "silu", "hardsigmoid", "1 + tanh")
    written = {
        "sigmoid": ("torch.sigmoid($y)", "(1 / (1 + torch.exp(-$y)))", "(0.5 * (1 + torch.tanh($y / 2)))"),
        "relu": ("torch.relu($y)", "$y.clamp(min=0)", "torch.where($y > 0, $y, 0.0)"),
        "softmax(-1)": ("torch.softmax($y, -1)", "F.softmin(-$y, -1)", "($y.exp() / $y.exp().sum(-1, True))"),
        "tanh": ("torch.tanh($y)", "(2 * torch.sigmoid(2 * $y) - 1)", "aten.tanh.default($y)"),
        "silu": ("F.silu($y)", "($y * torch.sigmoid($y))", "($y / (1 + (-$y).exp()))"),
        "hardsigmoid": ("F.hardsigmoid($y)", "(F.relu6($y + 3) / 6)", "($y / 6 + 0.5).clamp(0, 1)"),
        "1 + tanh": ("(1 + torch.tanh($y))", "torch.tanh($y).add_(1)", "(2 * torch.sigmoid(2 * $y))"),
    }[made]
    ways = [
        way.replace("GATE", by)
        for by in written
        for way in (
            "$x * GATE",
            "(GATE) * $x",
            "~torch.einsum('n...,n...->n...', GATE, $x)",
            "$own.mul_(GATE)",
            "torch.addcmul(torch.zeros_like($x), GATE, $x)",
        )
    ]
    if made == "sigmoid":
        ways.append("~F.glu(torch.cat([$x, $y], -1), -1)")
    return tuple(ways)


@operation(2)
def broadcast_product(draw: Drawing, x: Shape, y: Shape) -> Ways:
    """Each row of x times y, or each channel of x times a number of y."""
    return _broadcast(draw, x, y, "*", "mul")


@operation(2)
def broadcast_sum(draw: Drawing, x: Shape, y: Shape) -> Ways:
    return _broadcast(draw, x, y, "+", "add")


def _broadcast(_draw: Drawing, x: Shape, y: Shape, sign: str, name: str) -> Ways:
    if len(y) != 2 or len(x) < 3:
        return ()
    if len(x) == 3 and y[1] == x[2]:
        aligned, equation, expand = "$y[:, None]", "nti,ni->nti", f"repeat(1, {x[1]}, 1)"
    elif y[1] == x[1]:
        aligned = "$y[..., None]" if len(x) == 3 else "$y[..., None, None]"
        equation, expand = "nc...,nc->nc...", f"repeat(1, 1, {', '.join(map(str, x[2:]))})"
    else:
        return ()
    ways = (
        f"$x {sign} {aligned}",
        f"{aligned} {sign} $x",
        f"torch.{name}($x, {aligned})",
        f"$x {sign} {aligned}.expand_as($x)",
        f"{aligned}.expand($x.shape).{name}($x)",
        f"{aligned}.{expand} {sign} $x",
        f"$own.{name}_({aligned})",
        f"torch.{name}(*torch.broadcast_tensors($x, {aligned}))",
        f"aten.{name}.Tensor({aligned}, $x)",
        f"aten.{name}.Tensor($x, aten.expand.default({aligned}, list($x.shape)))",
    )
    return (*ways, f"torch.einsum('{equation}', $x, $y)") if sign == "*" else ways


@operation(2)
def dot_product(_draw: Drawing, x: Shape, y: Shape) -> Ways:
    """Over the last dimension of both, or of each row of x with y."""
    if x == y and len(x) in (2, 3):
        return (
            "($x * $y).sum(-1, keepdim=True)",
            "torch.sum($y * $x, -1)[..., None]",
            "torch.einsum('...i,...i->...', $x, $y).unsqueeze(-1)",
            "($x[..., None, :] @ $y[..., None])[..., 0]",
            "torch.matmul($y[..., None, :], $x[..., None]).squeeze(-1)",
            "torch.linalg.vecdot($x, $y)[..., None]",
            *(("torch.bmm($x[:, None], $y[:, :, None])[:, 0]",) if len(x) == 2 else ()),
        )
    if len(x) == 3 and y == (x[0], x[2]):
        return (
            "($x * $y[:, None]).sum(-1)",
            "($y.unsqueeze(1) * $x).sum(-1)",
            "($y[:, None].expand_as($x) * $x).sum(2)",
            "torch.einsum('nti,ni->nt', $x, $y)",
            "torch.bmm($x, $y[:, :, None])[..., 0]",
            "($x @ $y.unsqueeze(-1)).squeeze(-1)",
            "($y[:, None] @ $x.mT)[:, 0]",
        )
    return ()


@operation(2)
def matrix_product(_draw: Drawing, x: Shape, y: Shape) -> Ways:
    if len(x) != 3 or len(y) != 3 or x[2] != y[2]:
        return ()
    return (
        "$x @ $y.mT",
        "torch.matmul($x, $y.transpose(1, 2))",
        "torch.bmm($x, $y.permute(0, 2, 1))",
        "torch.einsum('nti,nsi->nts', $x, $y)",
        "torch.einsum('nsi,nti->nts', $y, $x)",
        "($y @ $x.mT).mT",
        "aten.bmm.default($x, aten.transpose.int($y, 1, 2))",
        "($x[:, None] @ $y[:, None].mT)[:, 0]",
        f"torch.baddbmm($x.new_empty(1, {x[1]}, {y[1]}), $x, $y.mT, beta=0)",
        "($x[:, :, None] * $y[:, None]).sum(-1)",
    )


@operation(2)
def attention(draw: Drawing, x: Shape, y: Shape) -> Ways:
    """Queries of x; keys and values of y."""
    if len(x) != 3 or len(y) != 3 or x[2] != y[2]:
        return ()
    draw.tensor("k", x[2], x[2])
    scale = f"{x[2]} ** -0.5"
    values = "values = $y @ $k\n"
    return (
        values + "$z = F.scaled_dot_product_attention($x, $y, values)",
        values + "$z = aten.scaled_dot_product_attention.default($x, $y, values)",
        values + f"$z = torch.softmax($x @ $y.mT * {scale}, -1) @ values",
        values + f"$z = torch.softmax($x @ $y.transpose(-1, -2) / {x[2]} ** 0.5, dim=-1).matmul(values)",
        values + f"$z = torch.softmax(torch.einsum('nti,nsi->nts', $x, $y) * ({scale}), -1)\n"
        "$z = torch.einsum('nts,nsi->nti', $z, values)",
        values + f"$z = torch.bmm(F.softmax(torch.bmm($x * ({scale}), $y.mT), -1), values)",
        values + f"$z = F.scaled_dot_product_attention($x * ({scale}), $y, values, scale=1.0)",
        values + "$z = F.scaled_dot_product_attention($x[:, None], $y[:, None], values[:, None])[:, 0]",
        values + f"$z = ($x @ $y.mT * {scale}).exp()\n$z = ($z / $z.sum(-1, keepdim=True)) @ values",
    )


@operation(2)
def joined(draw: Drawing, x: Shape, y: Shape) -> Ways:
    dim = draw.choose(*range(1, len(x)))
    if len(x) != len(y) or any(
        a != b for i, (a, b) in enumerate(zip(x, y, strict=True)) if i not in (0, dim)
    ):
        return ()
    size, more = x[dim], y[dim]
    before = "[:, " + ":, " * (dim - 1)
    both = [*x[:dim], size + more, *x[dim + 1 :]]
    empty = f"$x.new_empty(len($x), {', '.join(map(str, both[1:]))})"
    sides = ", ".join(["0, 0"] * (len(x) - 1 - dim) + [""])
    ways = [
        f"torch.cat([$x, $y], {dim})",
        f"torch.cat(($x, $y), dim={dim - len(x)})",
        f"torch.concat([$x, $y], {dim})",
        f"torch.concatenate([$x, $y], axis={dim})",
        f"aten.cat.default([$x, $y], {dim})",
        f"torch.cat([$x.transpose({dim}, 1), $y.transpose({dim}, 1)], 1).transpose({dim}, 1)",
        f"torch.cat([*$x.split(1, {dim}), $y], {dim})",
        f"$z = {empty}\n$z{before}:{size}], $z{before}{size}:] = $x, $y",
        f"$z = torch.zeros_like({empty})\n$z{before}{size}:] = $y\n$z{before}:{size}].copy_($x)",
        f"F.pad($x, ({sides}0, {more})).slice_scatter($y, {dim}, {size}, {size + more})",
        f"torch.cat([$x, $y], {dim}, out=torch.empty(0, dtype=torch.float64))",
    ]
    if size == more:
        ways.append(f"torch.stack([$x, $y], {dim}).flatten({dim}, {dim + 1})")
    return tuple(ways)


@operation(2)
def write_part(draw: Drawing, x: Shape, y: Shape) -> Ways:
    """A part of y, written over a part of x."""
    if x != y or x[1] < 2:
        return ()
    i, j = draw.choose(*range(x[1])), draw.choose(*range(x[1]))
    rest = ", ".join([""] + [str(n) for n in x[2:]])
    at = f"torch.tensor([{i}])"
    mask = f"(torch.arange({x[1]}) == {i}).view(-1{', 1' * (len(x) - 2)})"
    return (
        f"torch.cat([$x[:, :{i}], $y[:, {j}:{j + 1}], $x[:, {i + 1}:]], 1)",
        f"$z = $x.clone()\n$z[:, {i}] = $y[:, {j}]",
        f"$z = $own\n$z[:, {i}] = $y[:, {j}]",
        f"$z = $x.clone()\n$z[:, {i}:{i + 1}] = $y.narrow(1, {j}, 1)",
        f"$z = $x.clone()\n$z.select(1, {i}).copy_($y[:, {j}])",
        f"$x.index_copy(1, {at}, $y[:, {j}:{j + 1}])",
        f"$x.slice_scatter($y[:, {j}:{j + 1}], 1, {i}, {i + 1})",
        f"$x.select_scatter($y[:, {j}], 1, {i})",
        f"torch.where({mask}, $y[:, {j}:{j + 1}], $x)",
        f"$x.index_put((torch.arange(len($x)), {at}), $y[:, {j}])",
        f"aten.select_scatter.default($x, aten.select.int($y, 1, {j}), 1, {i})",
        f"$x.scatter(1, {at}.view(1, 1{', 1' * (len(x) - 2)}).expand(len($x), 1{rest}), $y[:, {j}:{j + 1}])",
    )
