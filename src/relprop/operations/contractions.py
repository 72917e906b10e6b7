"""Products with a constant that are no plain layers: einsum, batched products, a constant on the left."""

from collections.abc import Mapping
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from relprop.calls import Call
from relprop.intercept import Entry, Interception
from relprop.linear_maps import Contraction, Dense
from relprop.operations.exact import Exact
from relprop.operations.ruled import plain, start

_TWO = "both operands depend on the input; only the product of one with a constant is covered"


def matmul(run: Interception, call: Call) -> Any:
    """Product with a constant matrix, or with one for each element of a batch."""

    def arguments(input: Tensor, other: Tensor | None = None, mat2: Tensor | None = None) -> Any:
        return input, other if mat2 is None else mat2

    a, b = arguments(*call.args, **call.kwargs)
    if run.relevant(a) and not run.relevant(b) and b.dim() == 2:
        return start(run, call, "dense", a, b, None, Dense(transposed=True))
    batch = max(a.dim(), b.dim(), 2) - 2
    outer, inner = ascii_letters[:batch], "XYZ"
    letters_a = inner[1] if a.dim() == 1 else outer[batch + 2 - a.dim() :] + inner[:2]
    letters_b = inner[1] if b.dim() == 1 else outer[batch + 2 - b.dim() :] + inner[1:]
    letters_z = outer + inner[0] * (a.dim() > 1) + inner[2] * (b.dim() > 1)
    return _contract(run, call, [a, b], [letters_a, letters_b], letters_z)


def einsum(run: Interception, call: Call) -> Any:
    """torch.einsum of one relevant operand, alone or with one constant."""
    equation, *operands = call.args
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    relevant = [t for t in operands if run.relevant(t)]
    if not isinstance(equation, str) or len(operands) > 2:
        run.gap("einsum", "only an equation in letters, of one or two operands, is covered")
        return plain(run, call, relevant)
    if len(operands) == 1:
        return Exact(keeps_sign=True, slot="share")(run, call)
    parts = _letters(equation, operands)
    if parts is None:
        run.gap("einsum", f"{equation!r} takes a diagonal or broadcasts, which is not covered")
        return plain(run, call, relevant)
    if set("".join(parts[0])) == set(parts[1]):
        return _elementwise(run, operands, *parts)
    return _contract(run, call, operands, *parts)


def _elementwise(run: Interception, operands: list[Tensor], letters: list[str], z: str) -> Any:
    """A product that sums nothing, as of a scale or a gate: what `*` makes of it."""
    aligned = []
    for t, part in zip(operands, letters, strict=True):
        sizes = dict(zip(part, t.shape, strict=True))
        order = sorted(range(len(part)), key=lambda i: z.index(part[i]))
        t = run.perform(torch.permute, t, order)
        aligned.append(run.perform(torch.reshape, t, [sizes.get(letter, 1) for letter in z]))
    return run.perform(torch.mul, *aligned)


def _contract(run: Interception, call: Call, operands: list[Tensor], letters: list[str], z: str) -> Any:
    """Contract a relevant operand with a constant, by a rule of the composite."""
    relevant = [t for t in operands if run.relevant(t)]
    sizes: dict[str, int] = {}
    pairs = [
        pair for t, part in zip(operands, letters, strict=True) for pair in zip(part, t.shape, strict=True)
    ]
    broadcast = any(sizes.setdefault(letter, size) != size for letter, size in pairs)
    if len(relevant) == 2 or broadcast:
        run.gap(call.name, _TWO if len(relevant) == 2 else "operands that broadcast are not covered")
        return plain(run, call, relevant)
    which = 0 if relevant[0] is operands[0] else 1
    x, weight = operands[which], operands[1 - which]
    if (
        weight.dim() == 2
        and letters[which][:-1] == z[:-1]
        and set(letters[1 - which]) == {letters[which][-1], z[-1]}
    ):
        # A plain layer after all, to which a bias and a batch norm may belong.
        return start(run, call, "dense", x, weight, None, Dense(transposed=letters[1 - which][1] == z[-1]))
    map_ = Contraction(letters[which], letters[1 - which], z, tuple(weight.shape))
    return start(run, call, "dense", x, weight, None, map_)


def _letters(equation: str, operands: list[Tensor]) -> tuple[list[str], str] | None:
    """Letters of the operands' dimensions and of the result's, without dots; None for what is not covered."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    free = [letter for letter in ascii_letters if letter not in left]
    dots = max(t.dim() - len(part.replace("...", "")) for t, part in zip(operands, parts, strict=True))
    letters = "".join(free[:dots])
    expanded = []
    for t, part in zip(operands, parts, strict=True):
        count = t.dim() - len(part.replace("...", ""))
        expanded.append(part.replace("...", letters[dots - count :]))
    if arrow:
        z = right.replace("...", letters)
    else:
        every = "".join(parts).replace(".", "")
        z = letters + "".join(sorted(letter for letter in set(every) if every.count(letter) == 1))
    if any(len(set(part)) < len(part) for part in expanded):
        return None
    return expanded, z


TABLE: Mapping[str, Entry] = {
    "matmul": matmul,
    "bmm": matmul,
    "mv": matmul,
    "einsum": einsum,
}
