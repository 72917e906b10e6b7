"""Layers and normalisations of random programs, in the ways in which a model may write them.

The marks are those of `random_steps`.
"""

from random_steps import Drawing, Shape, Ways, operation

# ---- linear ----


# As a product and a sum, (x[..., None, :] * w).sum(-1), it is no layer and gets no rule: docs/design.md.
# Torch writes an einsum over a dimension of size 1 as a product.
@operation()
def linear(draw: Drawing, x: Shape) -> Ways:
    if len(x) > 3 or x[-1] == 1:
        return ()
    size, out = x[-1], draw.choose(3, 4, 6)
    draw.tensor("w", out, size)
    draw.tensor("b", out)
    draw.define("layer", "dense($w, $b)")
    ways = (
        "F.linear($x, $w, $b)",
        "$layer($x)",
        "$x @ $w.T + $b",
        "$b + $x @ $w.mT",
        "torch.matmul($x, $w.t()).add_($b)",
        "$z = torch.matmul($x, $w.t())\n$z += $b",
        "torch.einsum('...i,oi->...o', $x, $w) + $b",
        "torch.einsum('oi,...i->...o', $w, $x) + $b",
        "torch.einsum('...i,io->...o', $x, $w.T.contiguous()).add($b)",
        "~torch.tensordot($x, $w, dims=([-1], [1])) + $b",
        "~torch.inner($x, $w) - (-$b)",
        "torch.cat([F.linear($x, $w[:2], $b[:2]), F.linear($x, $w[2:], $b[2:])], -1)",
        "~F.linear($x[:, None], $w, $b)[:, 0]",
        "aten.linear.default($x, $w, $b)",
        "torch.add($x @ $w.T, $b, out=torch.empty(0, dtype=torch.float64))",
    )
    if len(x) == 2:
        return (
            *ways,
            "torch.addmm($b, $x, $w.T)",
            "aten.addmm.default($b, $x, aten.t.default($w))",
            "aten.addmm.default($b, $x, aten.permute.default($w, [1, 0]))",
            "torch.mm($x, $w.transpose(0, 1)) + $b",
        )
    rows = f"$x.reshape(-1, {size})"
    return (
        *ways,
        f"~F.linear({rows}, $w, $b).view(-1, {x[1]}, {out})",
        f"~torch.addmm($b, {rows}, $w.T).view(-1, {x[1]}, {out})",
        f"torch.bmm($x, $w.T.expand(len($x), {size}, {out})) + $b",
        "~F.linear($x.transpose(0, 1), $w, $b).transpose(0, 1)",
    )


@operation()
def linear_without_bias(draw: Drawing, x: Shape) -> Ways:
    if len(x) > 3 or x[-1] == 1:
        return ()
    draw.tensor("w", draw.choose(3, 4, 6), x[-1])
    draw.define("layer", "dense($w)")
    return (
        "F.linear($x, $w)",
        "$layer($x)",
        "$x @ $w.T",
        "$x.matmul($w.mT)",
        "torch.einsum('...i,oi', $x, $w)" if len(x) == 2 else "torch.einsum('nti,oi->nto', $x, $w)",
        "~torch.tensordot($x, $w, dims=([-1], [1]))",
        "~torch.inner($x, $w)",
        "torch.cat([$x @ $w[:2].T, $x @ $w[2:].T], dim=-1)",
        "torch.cat([F.linear($x, row) for row in $w.split(1)], -1)",
        "aten.linear.default($x, $w)",
        "torch.matmul($x, $w.T, out=torch.empty(0, dtype=torch.float64))",
        *(("torch.mm($x, $w.t())", "aten.mm.default($x, aten.t.default($w))") if len(x) == 2 else ()),
    )


@operation()
def convolution(draw: Drawing, x: Shape) -> Ways:
    """Of signals and of images. As a dense layer on windows it is another kind of operation."""
    n, out = len(x) - 2, draw.choose(2, 4)
    size, stride, padding = draw.choose((3, 1, 1), (3, 1, 0), (2, 2, 0), (3, 2, 1), (1, 1, 0))
    if n not in (1, 2) or min(x[2:]) < 3:
        return ()
    groups = draw.choose(1, 2) if x[1] % 2 == 0 else 1
    per_group = x[1] // groups
    draw.tensor("w", out, per_group, *[size] * n)
    draw.tensor("b", out)
    options = f"{stride}, {padding}, 1, {groups}"
    draw.define("layer", f"conv{n}d($w, $b, {options})")
    f, one = f"conv{n}d", f"(-1, {', '.join('1' * n)})"
    lists = f"[{stride}] * {n}, [{padding}] * {n}, [1] * {n}"
    ways = [
        f"F.{f}($x, $w, $b, {options})",
        "$layer($x)",
        f"torch.{f}($x, $w, bias=$b, stride={stride}, padding={padding}, groups={groups})",
        f"torch.convolution($x, $w, $b, {lists}, False, [0] * {n}, {groups})",
        f"aten.convolution.default($x, $w, $b, {lists}, False, [0] * {n}, {groups})",
        f"aten.{f}.default($x, $w, $b, {lists}, {groups})",
        f"F.{f}($x, $w, None, {options}) + $b.view{one}",
        f"$b.view{one} + F.{f}($x, $w, None, {options})",
        f"F.{f}($x, $w, None, {options}).add_($b.view{one})",
        f"torch.cat([F.{f}($x, $w[:1], $b[:1], {options}), F.{f}($x, $w[1:], $b[1:], {options})], 1)"
        if groups == 1
        else f"~torch.cat([F.{f}(p, v, c, {stride}, {padding}) for p, v, c in"
        " zip($x.chunk(2, 1), $w.chunk(2), $b.chunk(2))], 1)",
    ]
    if padding:
        border = ", ".join(["1"] * 2 * n)
        ways += [
            f"F.{f}(F.pad($x, ({border})), $w, $b, {stride}, 0, 1, {groups})",
            f"F.{f}(nn.ZeroPad{n}d(1)($x), $w, $b, {stride}, groups={groups})",
            f"F.{f}(aten.constant_pad_nd($x, [{border}], 0.0), $w, $b, {stride}, groups={groups})",
        ]
        if n == 1:
            zeros = "torch.zeros_like($x[..., :1])"
            ways.append(f"F.{f}(torch.cat([{zeros}, $x, {zeros}], -1), $w, $b, {stride}, groups={groups})")
    if stride == 1 and size == 3 and padding == 1:
        ways.append(f"F.{f}($x, $w, $b, padding='same', groups={groups})")
    if n == 1:
        ways.append(
            f"~F.conv2d($x[:, :, None], $w[:, :, None], $b, (1, {stride}), (0, {padding}), 1, {groups})"
            "[:, :, 0]"
        )
    return tuple(ways)


# ---- normalisation ----


@operation(continues=True)
def batch_norm(draw: Drawing, x: Shape) -> Ways:
    """Of two channels at least: of one it is a single number, which is part of a pointwise chain."""
    if x[1] < 2:
        return ()
    for name in ("m", "w", "b"):
        draw.tensor(name, x[1])
    draw.tensor("v", x[1], positive=True)
    one = f"({', '.join(['-1', *['1'] * (len(x) - 2)])})"
    m, v, w, b = (f"${name}.view{one}" for name in "mvwb")
    draw.define("s", "$w * ($v + 1e-05).rsqrt()")
    draw.define("layer", "batch_norm($m, $v, $w, $b)")
    return (
        "F.batch_norm($x, $m, $v, $w, $b)",
        "$layer($x)",
        "torch.batch_norm($x, $w, $b, $m, $v, False, 0.1, 1e-05, False)",
        "aten.native_batch_norm.default($x, $w, $b, $m, $v, False, 0.1, 1e-05)[0]",
        "aten._native_batch_norm_legit_no_training.default($x, $w, $b, $m, $v, 0.1, 1e-05)[0]",
        f"F.batch_norm($x, $m, $v) * {w} + {b}",
        f"$x * $s.view{one} + ($b - $m * $s).view{one}",
        f"torch.addcmul(($b - $m * $s).view{one}, $x, $s.view{one})",
        f"($x - {m}) / torch.sqrt({v} + 1e-05) * {w} + {b}",
        f"$own.sub_({m}).div_(({v} + 1e-05).sqrt()).mul_({w}).add_({b})",
        f"{b} + ($x - {m}) * $s.view{one}",
    )


@operation()
def layer_norm(draw: Drawing, x: Shape) -> Ways:
    size = x[-1]
    if size < 3:
        return ()
    draw.tensor("w", size)
    draw.tensor("b", size)
    centred = "$z = $x - $x.mean(-1, keepdim=True)\n"
    return (
        f"F.layer_norm($x, ({size},), $w, $b)",
        f"F.layer_norm($x, bias=$b, weight=$w, normalized_shape=[{size}])",
        f"torch.layer_norm($x, [{size}], $w, $b)",
        f"aten.native_layer_norm.default($x, [{size}], $w, $b, 1e-05)[0]",
        f"F.layer_norm($x, ({size},)) * $w + $b",
        centred + "$z = $z / torch.sqrt($z.pow(2).mean(-1, keepdim=True) + 1e-05) * $w + $b",
        centred + "$z = $z * torch.rsqrt(($z * $z).mean(-1, keepdim=True) + 1e-05) * $w + $b",
        centred + "$z = $b + $w * ($z / ($x.var(-1, correction=0, keepdim=True) + 1e-05).sqrt())",
        "$z, mean = torch.var_mean($x, -1, correction=0, keepdim=True)\n"
        "$z = ($x - mean) * ($z + 1e-05).rsqrt() * $w + $b",
    )


@operation()
def rms_norm(draw: Drawing, x: Shape) -> Ways:
    size = x[-1]
    if size < 3:
        return ()
    draw.tensor("w", size)
    return (
        f"F.rms_norm($x, ({size},), $w, 1e-05)",
        "$x * torch.rsqrt($x.pow(2).mean(-1, keepdim=True) + 1e-05) * $w",
        "$w * ($x * torch.rsqrt(($x * $x).mean(-1, keepdim=True) + 1e-05))",
        "$x / torch.sqrt($x.square().mean(-1, keepdim=True) + 1e-05) * $w",
        "$x.div((torch.mean($x ** 2, dim=-1, keepdim=True) + 1e-05).sqrt()).mul($w)",
        "torch.rsqrt($x.pow(2).mean(-1, keepdim=True) + 1e-05) * $x * $w",
    )


@operation()
def group_norm(draw: Drawing, x: Shape) -> Ways:
    if len(x) < 3 or x[1] % 2:
        return ()
    draw.tensor("w", x[1])
    draw.tensor("b", x[1])
    one = f"(-1, {', '.join('1' * (len(x) - 2))})"
    pixels = x[2] * (x[3] if len(x) > 3 else 1)
    return (
        "F.group_norm($x, 2, $w, $b)",
        "torch.group_norm($x, 2, bias=$b, weight=$w)",
        f"aten.native_group_norm.default($x.contiguous(), $w, $b, len($x), {x[1]}, {pixels}, 2, 1e-05)[0]",
        f"F.group_norm($x, 2) * $w.view{one} + $b.view{one}",
    )


@operation()
def unit_length(_draw: Drawing, x: Shape) -> Ways:
    if x[-1] < 2:
        return ()
    return (
        "$x / $x.norm(dim=-1, keepdim=True)",
        "$x / torch.linalg.vector_norm($x, dim=-1, keepdim=True)",
        "F.normalize($x, dim=-1)",
        "$x / $x.norm(dim=-1)[..., None]",
        "$x.div($x.norm(dim=-1, keepdim=True).expand_as($x))",
        "$x / $x.pow(2).sum(-1, keepdim=True).sqrt()",
        "$x * $x.square().sum(-1, keepdim=True).rsqrt()",
    )


@operation()
def softmax(_draw: Drawing, x: Shape) -> Ways:
    """As log_softmax(x).exp() it is a weight, too, but crossed by its parts: docs/design.md."""
    if x[-1] < 2:
        return ()
    return (
        "torch.softmax($x, -1)",
        "$x.softmax(dim=-1)",
        "F.softmax($x, -1)",
        "nn.Softmax(-1)($x)",
        f"aten._softmax.default($x, {len(x) - 1}, False)",
        "$x.transpose(1, -1).softmax(1).transpose(1, -1)",
        "F.softmin(-$x, -1)",
        "$z = $x.exp()\n$z = $z / $z.sum(-1, keepdim=True)",
        "!$z = torch.exp($x - $x.amax(-1, keepdim=True))\n$z = $z / torch.sum($z, -1, True)",
    )
