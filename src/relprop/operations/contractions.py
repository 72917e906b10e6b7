"""Products of matrices and einsum: linear if one operand is constant, else products of activations."""

from collections.abc import Mapping, Sequence
from string import ascii_letters
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.calls.call import Call
from relprop.calls.site import Kind
from relprop.crossing.exact import Exact
from relprop.crossing.parts import plus, with_own_value
from relprop.crossing.ruled import plain, start
from relprop.engine.interception import Entry
from relprop.engine.run import Run
from relprop.engine.seen import Seen, is_relevant, value_of
from relprop.linear.maps import Dense
from relprop.linear.products import Contraction, OfProducts, Sparse
from relprop.operations.linear import as_held
from relprop.operations.products import contracted


def matmul(run: Run, call: Call, a: Any, b: Any, *_options: Any) -> Any:
    """Product of matrices, or of batches of them."""
    if is_sparse(a) or is_sparse(b):
        return sparse_product(run, call, a, b)
    if _both(a, b):
        return contracted(run, call, [a, b])
    a, b = (t if is_relevant(t) else value_of(t) for t in (a, b))
    if (
        is_relevant(a)
        and b.dim() > 2
        and all(n == 1 or step == 0 for n, step in zip(b.shape[:-2], b.stride()[:-2], strict=True))
    ):
        b = b[(0,) * (b.dim() - 2)]  # one matrix for the whole batch
    if is_relevant(a) and b.dim() == 2:
        weight, map_ = as_held(b)
        return start(run, call, Kind.DENSE, a, weight, None, map_)
    batch = max(a.dim(), b.dim(), 2) - 2
    outer, inner = ascii_letters[:batch], "XYZ"
    letters_a = inner[1] if a.dim() == 1 else outer[batch + 2 - a.dim() :] + inner[:2]
    letters_b = inner[1] if b.dim() == 1 else outer[batch + 2 - b.dim() :] + inner[1:]
    letters_z = outer + inner[0] * (a.dim() > 1) + inner[2] * (b.dim() > 1)
    return _contract(run, call, [a, b], [letters_a, letters_b], letters_z)


def conjugated_dot(run: Run, call: Call, a: Any, b: Any) -> Any:
    """torch.vdot: the dot product with the conjugate of the first vector."""
    return run.perform(torch.dot, run.perform(torch.conj_physical, a), b)


def bilinear(run: Run, call: Call, one: Any, other: Any, weight: Any, bias: Any) -> Any:
    """F.bilinear: a linear layer on all products of an element of one input with one of the other."""
    columns, rows = run.perform(torch.unsqueeze, one, -1), run.perform(torch.unsqueeze, other, -2)
    products = run.perform(torch.flatten, run.perform(torch.mul, columns, rows), -2)
    if is_relevant(products) and not is_relevant(weight) and not is_relevant(bias):
        return start(run, call, Kind.DENSE, products, weight, bias, OfProducts())
    matrix = run.perform(torch.flatten, weight, 1)
    return with_own_value(run, call, run.perform(F.linear, products, matrix, bias))


def trilinear(run: Run, call: Call, *args: Any) -> Any:
    """The kernel of F.bilinear: the sum over some dimensions of a product of three factors."""
    factors, expanded, summed = args[:3], args[3:6], args[6]
    if (expanded, summed) == (([1, 3], [0], [1, 2]), [2, 3]):
        one, weight, other = factors
        return with_own_value(run, call, run.perform(F.bilinear, one, other, weight))
    letters = ascii_letters[: factors[0].dim() + len(expanded[0])]
    kept = ["".join(a for i, a in enumerate(letters) if i not in dims) for dims in (*expanded, summed)]
    equation = f"{','.join(kept[:3])}->{kept[3]}"
    return with_own_value(run, call, run.perform(torch.einsum, equation, *factors))


def sparse_product(run: Run, call: Call, a: Any, b: Any, reduce: str = "sum") -> Any:
    """A sparse matrix times a dense one, or the other way round: linear if the sparse one is a constant."""
    if not is_sparse(a) and not is_sparse(b):  # a dense matrix that stands for a sparse one
        return run.perform(torch.matmul, a, b)
    if is_sparse(b):
        turned = [run.perform(torch.transpose, t, 0, 1) for t in (b, a)]
        return run.perform(torch.transpose, run.perform(torch.sparse.mm, *turned), 0, 1)
    if is_relevant(a) or a.dim() != 2 or b.dim() not in (1, 2) or reduce != "sum":
        run.gap(call.name, "only the sum over a sparse matrix that is a constant is covered")
        return plain(run, call)
    if _both(a, b):
        return contracted(run, call, [a, b])
    if b.dim() == 1:
        return run.perform(
            torch.squeeze, run.perform(torch.sparse.mm, a, run.perform(torch.unsqueeze, b, 1)), 1
        )
    matrix = value_of(a).detach().to_sparse_coo().coalesce()
    rows, columns = matrix.indices()
    return start(run, call, Kind.DENSE, b, matrix.values(), None, Sparse(rows, columns, len(matrix)))


def is_sparse(t: Any) -> bool:
    """Whether an operand is a sparse tensor, in any layout."""
    return isinstance(t, Tensor) and t.layout is not torch.strided


def _both(*operands: Any) -> bool:
    """Whether both operands are computed from the samples, so that it is a product of activations.

    A constant that is computed from the samples, as attention weights may be, is no weight of a layer. A
    constant that the samples only pick, as the weights of experts, is one.
    """
    return all([type(t) is Seen and not t.picked for t in operands])


def einsum(run: Run, call: Call, equation: str, operands: Sequence[Any], *_options: Any) -> Any:
    """torch.einsum of one operand, of a relevant operand and a constant, or of several operands."""
    operands = list(operands)
    if len(operands) == 1:
        alone = _letters(equation, operands)
        if alone is not None and sorted(alone[0][0]) == sorted(alone[1]):
            order = [alone[0][0].index(letter) for letter in alone[1]]
            return with_own_value(run, call, run.perform(torch.permute, operands[0], order))
        return Exact(keeps_sign=True, slot="share")(run, call)
    if len(operands) > 2 and all(is_relevant(t) for t in operands):
        return contracted(run, call, operands)
    parts = _letters(equation, operands)
    if parts is not None and len(operands) > 2:
        return _one_after_the_other(run, operands, *parts)
    if parts is None:
        run.gap("einsum", f"{equation!r} takes a diagonal or broadcasts, which is not covered")
        return plain(run, call)
    if set("".join(parts[0])) == set(parts[1]):
        return _elementwise(run, operands, *parts)
    if _both(*operands):
        return contracted(run, call, operands)
    return _contract(run, call, operands, *parts)


def _one_after_the_other(run: Run, operands: list[Any], letters: list[str], z: str) -> Any:
    """Write an einsum of several operands as products of two, so that each constant gets a rule."""
    (a, b, *operands), (of_a, of_b, *letters) = operands, letters
    wanted = "".join(letters) + z
    between = "".join(letter for letter in dict.fromkeys(of_a + of_b) if letter in wanted)
    product = run.perform(torch.einsum, f"{of_a},{of_b}->{between}", a, b)
    if len(operands) > 1:
        return _one_after_the_other(run, [product, *operands], [between, *letters], z)
    return run.perform(torch.einsum, f"{between},{letters[0]}->{z}", product, operands[0])


def _elementwise(run: Run, operands: list[Any], letters: list[str], z: str) -> Any:
    """An einsum that sums over nothing, as with a scale or a gate: the elementwise product."""
    aligned = []
    for t, part in zip(operands, letters, strict=True):
        sizes = dict(zip(part, t.shape, strict=True))
        order = sorted(range(len(part)), key=lambda i: z.index(part[i]))
        shape = [sizes.get(letter, 1) for letter in z]
        # Only if it is needed, because a pointwise chain ends at a permutation.
        t = t if order == sorted(order) else run.perform(torch.permute, t, order)
        aligned.append(t if list(t.shape) == shape else run.perform(torch.reshape, t, shape))
    return run.perform(torch.mul, *aligned)


def _contract(run: Run, call: Call, operands: list[Any], letters: list[str], z: str) -> Any:
    """Contract a relevant operand with a constant, by a rule of the composite."""
    which = 0 if is_relevant(operands[0]) else 1
    x, weight = operands[which], value_of(operands[1 - which])
    sizes = [dict(zip(part, t.shape, strict=True)) for t, part in zip(operands, letters, strict=True)]
    shared = [
        letter for letter in letters[0] if letter in letters[1] and sizes[0][letter] != sizes[1][letter]
    ]
    if shared:  # one of them broadcasts
        of_x, of_weight = letters[which], letters[1 - which]
        full = [max(sizes[0].get(letter, 1), sizes[1].get(letter, 1)) for letter in of_x]
        x = run.perform(torch.Tensor.expand, x, full) if full != list(x.shape) else x
        alone = [letter in shared and sizes[1 - which][letter] == 1 for letter in of_weight]
        weight = weight[tuple(0 if is_alone else slice(None) for is_alone in alone)]
        of_weight = "".join(letter for letter, is_alone in zip(of_weight, alone, strict=True) if not is_alone)
        letters = [of_x, of_weight] if which == 0 else [of_weight, of_x]
    if (
        weight.dim() == 2
        and letters[which][:-1] == z[:-1]
        and set(letters[1 - which]) == {letters[which][-1], z[-1]}
    ):
        # This is a dense layer, into which a bias and a batch norm may be folded.
        return start(run, call, Kind.DENSE, x, weight, None, Dense(transposed=letters[1 - which][1] == z[-1]))
    map_ = Contraction(letters[which], letters[1 - which], z)
    return start(run, call, Kind.DENSE, x, weight, None, map_)


def _letters(equation: str, operands: Sequence[Tensor]) -> tuple[list[str], str] | None:
    """Return the letters of the operands' and the result's dimensions, without dots; None for a diagonal."""
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
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), matmul),
    "baddbmm": plus(torch.bmm),  # attention scores are often written so
    "addmv": plus(torch.mv),
    "addbmm": plus(lambda one, other: torch.bmm(one, other).sum(0)),
    "addr": plus(torch.outer),
    "einsum": einsum,
    "vdot": conjugated_dot,
    "bilinear": bilinear,
    "_trilinear": trilinear,
    "_sparse_mm": sparse_product,
    "_sparse_addmm": plus(torch.sparse.mm),
}
