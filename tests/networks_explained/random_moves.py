"""Reductions, pooling and moves of random programs, in the ways in which a model may write them.

The marks are those of `random_steps`.
"""

from random_steps import Drawing, Shape, Ways, operation

# ---- reductions and pooling ----


@operation()
def mean(draw: Drawing, x: Shape) -> Ways:
    if len(x) < 3:
        return ()
    dim = draw.choose(*range(1, len(x)))
    n, letters = x[dim], "nabc"[: len(x)]
    return (
        f"$x.mean({dim})",
        f"torch.mean($x, dim={dim - len(x)})",
        f"$x.mean({dim}, keepdim=True).squeeze({dim})",
        f"=$x.sum({dim}) / {n}",
        f"=torch.sum($x, ({dim},)).div_({n})",
        f"aten.mean.dim($x, [{dim}])",
        f"=torch.einsum('{letters}->{letters.replace(letters[dim], '')}', $x) / {n}",
        f"torch.stack($x.unbind({dim})).mean(0)",
        f"=($x / {n}).sum({dim})",
        f"=sum($x.unbind({dim})) / {n}",
        f"$x.transpose({dim}, -1).mean(-1)" if dim >= len(x) - 2 else f"$x.movedim({dim}, -1).mean(-1)",
    )


@operation()
def largest(draw: Drawing, x: Shape) -> Ways:
    if len(x) < 3:
        return ()
    dim = draw.choose(*range(1, len(x)))
    return (
        f"$x.amax({dim})",
        f"torch.amax($x, dim={dim})",
        f"$x.max({dim}).values",
        f"torch.max($x, {dim})[0]",
        f"$x.topk(1, {dim}).values.squeeze({dim})",
        f"$x.sort({dim}, descending=True).values.select({dim}, 0)",
        f"-(-$x).amin({dim})",
        f"$x.cummax({dim}).values.select({dim}, -1)",
        f"$x.gather({dim}, $x.argmax({dim}, keepdim=True)).squeeze({dim})",
    )


# As the largest value of windows, by amax, it is no max-pooling for composites.
@operation()
def max_pool(_draw: Drawing, x: Shape) -> Ways:
    if len(x) != 4 or x[2] % 2 or x[3] % 2:
        return ()
    return (
        "F.max_pool2d($x, 2)",
        "nn.MaxPool2d(2)($x)",
        "torch.max_pool2d($x, 2, stride=2)",
        "F.max_pool2d($x, 2, return_indices=True)[0]",
        "aten.max_pool2d.default($x, [2, 2])",
        "aten.max_pool2d_with_indices.default($x, [2, 2], [2, 2])[0]",
        f"F.adaptive_max_pool2d($x, ({x[2] // 2}, {x[3] // 2}))",
    )


@operation()
def average_pool(_draw: Drawing, x: Shape) -> Ways:
    if len(x) != 4 or x[2] % 2 or x[3] % 2:
        return ()
    h, w = x[2] // 2, x[3] // 2
    windows = f"$x.reshape(-1, {x[1]}, {h}, 2, {w}, 2)"
    return (
        "F.avg_pool2d($x, 2)",
        "nn.AvgPool2d(2)($x)",
        "aten.avg_pool2d.default($x, [2, 2], [2, 2])",
        f"F.adaptive_avg_pool2d($x, ({h}, {w}))",
        f"aten._adaptive_avg_pool2d.default($x, [{h}, {w}])",
        f"{windows}.mean((3, 5))",
        f"={windows}.sum((3, 5)) / 4",
        "$x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2).mean(-1)",
        "=($x[:, :, ::2, ::2] + $x[:, :, 1::2, ::2] + $x[:, :, ::2, 1::2] + $x[:, :, 1::2, 1::2]) / 4",
    )


@operation()
def cumulative_sum(_draw: Drawing, x: Shape) -> Ways:
    return (
        "$x.cumsum(1)",
        f"torch.cumsum($x, dim={1 - len(x)})",
        "$own.cumsum_(1)",
        "aten.cumsum.default($x, 1)",
        f"torch.stack([$x[:, : i + 1].sum(1) for i in range({x[1]})], 1)",
    )


# ---- rearranging ----


@operation(fresh=False)
def transpose(_draw: Drawing, x: Shape) -> Ways:
    if len(x) != 3:
        return ()
    return (
        "$x.transpose(1, 2)",
        "$x.mT",
        "$x.permute(0, 2, 1)",
        "torch.movedim($x, 1, 2)",
        "$x.swapaxes(1, 2)",
        "torch.einsum('nij->nji', $x)",
        "^torch.stack($x.unbind(1), 2)",
        "$x.mT.contiguous()",
        "aten.permute.default($x, [0, 2, 1])",
        "$x.permute(2, 1, 0).permute(2, 0, 1)",
    )


@operation(fresh=False)
def flatten(_draw: Drawing, x: Shape) -> Ways:
    """The last two dimensions become one."""
    if len(x) < 3:
        return ()
    shape = f"-1, {', '.join(map(str, [*x[1:-2], x[-2] * x[-1]]))}"
    return (
        "$x.flatten(-2)",
        "torch.flatten($x, start_dim=-2)",
        f"$x.reshape({shape})",
        f"torch.reshape($x, ({shape}))",
        f"$x.contiguous().view({shape})",
        "^torch.cat($x.unbind(-2), -1)",
        f"aten.reshape.default($x, [{shape}])",
        f"nn.Flatten({len(x) - 2})($x)",
        f"$x.ravel().view({shape})",
    )


@operation(fresh=False)
def unflatten(draw: Drawing, x: Shape) -> Ways:
    size = x[-1]
    parts = [n for n in (2, 3) if size % n == 0 and size > n]
    if len(x) > 3 or not parts:
        return ()
    n = draw.choose(*parts)
    shape = f"-1, {', '.join(map(str, [*x[1:-1], n, size // n]))}"
    return (
        f"$x.unflatten(-1, ({n}, {size // n}))",
        f"$x.reshape({shape})",
        f"^torch.stack($x.chunk({n}, -1), -2)",
        f"$x.contiguous().view({shape})",
        f"^torch.stack($x.split({size // n}, -1), dim=-2)",
        f"nn.Unflatten({len(x) - 1}, ({n}, {size // n}))($x)",
        f"aten.reshape.default($x, [{shape}])",
        f"^$x.unfold(-1, {size // n}, {size // n})",
    )


@operation(fresh=False)
def part(draw: Drawing, x: Shape) -> Ways:
    dim = draw.choose(*range(1, len(x)))
    n = x[dim]
    if n < 3:
        return ()
    start, stop = draw.choose((0, n - 1), (1, n), (0, 2), (1, 3))
    before = ":, " * dim
    index = f"torch.arange({start}, {stop})"
    return (
        f"$x[{before}{start}:{stop}]",
        f"$x.narrow({dim}, {start}, {stop - start})",
        f"$x.split([{start}, {stop - start}, {n - stop}], {dim})[1]",
        f"$x.tensor_split(({start}, {stop}), {dim})[1]",
        f"$x.index_select({dim}, {index})",
        f"$x[{before}{index}]",
        f"$x[{before}{list(range(start, stop))}]",
        f"torch.stack($x.unbind({dim})[{start}:{stop}], {dim})",
        f"aten.slice.Tensor($x, {dim}, {start}, {stop})",
        f"$x.roll(-{start}, {dim}).narrow({dim}, 0, {stop - start})",
        f"torch.slice_copy($x, {dim}, {start}, {stop})",
    )


@operation(fresh=False)
def select(draw: Drawing, x: Shape) -> Ways:
    if len(x) < 3:
        return ()
    i, n = draw.choose(*range(x[1])), x[1]
    return (
        f"$x[:, {i}]",
        f"$x.select(1, {i})",
        f"$x.unbind(1)[{i}]",
        f"$x[:, {i}:{i + 1}].squeeze(1)",
        f"$x.index_select(1, torch.tensor([{i}])).squeeze(1)",
        f"$x.split(1, 1)[{i}][:, 0]",
        f"aten.select.int($x, 1, {i})",
        f"$x[:, {i - n}]",
        f"$x.transpose(0, 1)[{i}]",
    )


@operation(fresh=False)
def expand(draw: Drawing, x: Shape) -> Ways:
    """Copies in a new dimension."""
    if len(x) > 3:
        return ()
    n, rest = draw.choose(2, 3, 4), ", ".join(map(str, x[1:]))
    return (
        f"$x[:, None].expand(-1, {n}, {', '.join(['-1'] * (len(x) - 1))})",
        f"$x.unsqueeze(1).repeat(1, {n}{', 1' * (len(x) - 1)})",
        f"torch.stack([$x] * {n}, 1)",
        f"torch.broadcast_to($x[:, None], (len($x), {n}, {rest}))",
        f"$x.unsqueeze(1).repeat_interleave({n}, 1)",
        f"$x[:, None].tile(1, {n}{', 1' * (len(x) - 1)})",
        f"torch.cat([$x[:, None]] * {n}, 1)",
        f"aten.expand.default(aten.unsqueeze.default($x, 1), [-1, {n}, {rest}])",
        f"$x[:, None][:, [0] * {n}]",
    )


@operation(fresh=False)
def flip(_draw: Drawing, x: Shape) -> Ways:
    n = x[1]
    return (
        "$x.flip(1)",
        f"torch.flip($x, ({1 - len(x)},))",
        f"$x[:, torch.arange({n - 1}, -1, -1)]",
        "^torch.stack($x.unbind(1)[::-1], 1)",
        "^torch.cat($x.split(1, 1)[::-1], 1)",
        f"$x.index_select(1, torch.tensor({list(range(n))[::-1]}))",
        "aten.flip.default($x, [1])",
    )


@operation(continues=True)
def mask(draw: Drawing, x: Shape) -> Ways:
    """Zeros in place of every other element of a dimension."""
    n = x[1]
    ones = [bool((i + draw.choose(0, 1)) % 2) for i in range(n)]
    if not any(ones) or all(ones):
        return ()
    draw.define("keep", f"torch.tensor({ones}).view(-1{', 1' * (len(x) - 2)})")
    return (
        "torch.where($keep, $x, 0.0)",
        "^torch.where($keep, $x, torch.zeros_like($x))",
        "^torch.where(~$keep, torch.zeros_like($x), $x)",
        "^$x.masked_fill(~$keep, 0.0)",
        "^$own.masked_fill_(~$keep, 0)",
        ":!$x * $keep",
        ":!$keep.double() * $x",
        f"^$x.index_fill(1, torch.tensor({[i for i, one in enumerate(ones) if not one]}), 0.0)",
        f"^$z = $own\n$z[:, {[i for i, one in enumerate(ones) if not one]}] = 0.0",
        "^aten.masked_fill.Scalar($x, ~$keep, 0)",
    )


@operation(continues=True)
def zeros_around(_draw: Drawing, x: Shape) -> Ways:
    """One zero on either side of the last dimension."""
    if len(x) < 3:
        return ()
    zeros = "torch.zeros_like($x[..., :1])"
    return (
        "F.pad($x, (1, 1))",
        "nn.ConstantPad1d(1, 0.0)($x)" if len(x) == 3 else "nn.ZeroPad2d((1, 1, 0, 0))($x)",
        "aten.constant_pad_nd.default($x, [1, 1])",
        f"torch.cat([{zeros}, $x, {zeros}], -1)",
        f"torch.cat([F.pad($x, (1, 0)), {zeros}], -1)",
        "F.pad(F.pad($x, (0, 1)), (1, 0))",
    )
