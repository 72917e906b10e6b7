"""Every function of torch's own list is explained, a constant, or refused for a reason."""

import warnings
from functools import cache
from typing import Any

import pytest
import torch

import relprop
from relprop.errors import CoverageError, ModelError
from relprop.rules import Epsilon
from torchs_own_samples import Sampled, functions, samples, weighed

REFUSED = {
    **dict.fromkeys(
        (
            *("acosh", "log", "log2", "log10", "lgamma", "digamma", "special_ndtri"),
            *(f"mvlgamma_mvlgamma_p_{n}" for n in (1, 3, 5)),
            *(f"polygamma_polygamma_n_{n}" for n in range(5)),
            "special_polygamma_special_polygamma_n_0",
        ),
        "alone they are not finite at 0, where the secant of a pointwise function begins",
    ),
    **dict.fromkeys(("angle", "atan2"), "an angle is no sum of parts that are due to its two sides"),
    **dict.fromkeys(("dot", "vdot", "linalg_vecdot"), "a vector alone has no dimension for samples"),
    **dict.fromkeys(
        (
            *("cholesky", "cholesky_inverse", "linalg_cholesky", "linalg_cholesky_ex", "matrix_exp"),
            *("lu", "lu_unpack", "linalg_lu", "linalg_lu_factor", "linalg_lu_factor_ex"),
            *("qr", "linalg_qr", "geqrf", "ormqr", "linalg_householder_product"),
            *("svd", "linalg_svd", "linalg_svdvals", "svd_lowrank", "pca_lowrank", "norm_nuc", "linalg_cond"),
            *("linalg_eig", "linalg_eigvals", "linalg_eigh", "linalg_eigvalsh"),
            *("linalg_ldl_factor", "linalg_ldl_factor_ex", "linalg_ldl_solve"),
            *("linalg_det", "linalg_slogdet", "logdet"),
        ),
        "a decomposition or a determinant of a matrix is no sum of its elements' parts",
    ),
    **dict.fromkeys(
        (*("triangular_solve", "linalg_lstsq", "linalg_lstsq_grad_oriented"),),
        "torch has better functions for it",
    ),
    **dict.fromkeys(
        (
            *("nn_functional_binary_cross_entropy", "nn_functional_binary_cross_entropy_with_logits"),
            *(f"nn_functional_{name}_loss" for name in ("ctc", "huber", "mse", "nll", "smooth_l1")),
            *(f"nn_functional_{name}_loss" for name in ("multi_margin", "multilabel_margin", "soft_margin")),
            *(f"nn_functional_linear_cross_entropy{kind}" for kind in ("", "_chunked", "_chunked_none")),
        ),
        "a loss is no score to explain",
    ),
    **dict.fromkeys(
        ("_softmax_backward_data", "max_pool2d_with_indices_backward", "native_dropout_backward"),
        "a gradient that the model computes would be a coefficient here",
    ),
    **dict.fromkeys(
        ("_segment_reduce_lengths", "_segment_reduce_offsets"),
        "products of segments, and their initial values, are not covered",
    ),
    **dict.fromkeys(
        ("histogram", "histogramdd", "linspace_tensor_overload", "logspace_tensor_overload"),
        "torch has no gradient of it",
    ),
    **dict.fromkeys(("unique", "unique_consecutive"), "torch has no gradient of it"),
    **dict.fromkeys(
        ("resize_", "resize_as_"), "where the result is larger than the tensor, it has no values"
    ),
    **dict.fromkeys(
        ("_chunk_cat", "_unsafe_masked_index", "_unsafe_masked_index_put_accumulate", "as_strided_scatter"),
        "models do not call it, but what compilers make of them",
    ),
    "__rmod__": "the divisor depends on the input",
    "_batch_norm_with_update": "statistics of a batch mix its samples",
    "nextafter": "it is about the precision of numbers, and no function of them",
}
"""What is a gap in all of torch's samples, and why."""

PARTLY = {
    **dict.fromkeys(
        (*("matmul", "__rmatmul__", "inner", "tensordot", "nn_functional_bilinear"),),
        "refused: a vector alone, which has no dimension for samples",
    ),
    **dict.fromkeys(
        (
            *("nn_functional_dropout", "nn_functional_dropout2d", "nn_functional_dropout3d"),
            *("nn_functional_alpha_dropout", "nn_functional_feature_alpha_dropout_with_train"),
            *("nn_functional_multi_head_attention_forward", "nn_functional_scaled_dot_product_attention"),
        ),
        "refused: dropout that draws, as in training",
    ),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "nn_functional_batch_norm"),
        "refused: statistics of a batch, as in training",
    ),
    "linalg_matrix_norm": "refused: norms of singular values",
    "logit": "refused: without a floor, since it is not finite at 0",
    "nn_functional_cross_entropy": "refused: by classes; by probabilities it is a sum of log_softmax",
    "nn_functional_embedding": "refused: with max_norm, by which the model overwrites its rows",
    "scatter": "refused: with reduce=..., of which torch has no gradient",
}
"""What is a gap in some of torch's samples, and why. The others are explained."""

UNUSED = {
    **dict.fromkeys(
        (
            *("arange", "linspace", "logspace", "eye", "empty", "empty_permuted", "empty_strided", "full"),
            *("ones", "zeros", "randn", "randint", "scalar_tensor", "normal_number_mean"),
            *("broadcast_shapes", "triu_indices", "tril_indices"),
            *(f"signal_windows_{name}" for name in ("bartlett", "blackman", "cosine", "exponential")),
            *(f"signal_windows_{name}" for name in ("gaussian", "general_cosine", "general_hamming")),
            *(f"signal_windows_{name}" for name in ("hamming", "hann", "kaiser", "nuttall")),
        ),
        "takes no tensor",
    ),
    **dict.fromkeys(
        (
            *("bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "__rand__", "__ror__", "__rxor__"),
            *("bitwise_left_shift", "bitwise_right_shift", "lcm", "gcd", "unravel_index", "bincount"),
            "nn_functional_one_hot",
        ),
        "takes integers",
    ),
    **dict.fromkeys(("item", "allclose", "equal"), "returns no tensor"),
    **dict.fromkeys(
        ("view_as_real", "imag", "istft", "nn_functional_silu_complex"),
        "takes complex numbers: test_complex_numbers.py, test_written_out.py",
    ),
    **dict.fromkeys(
        ("sparse_sampled_addmm", "sparse_mm_reduce", "to_sparse"),
        "takes or returns sparse tensors: test_written_out.py",
    ),
    **dict.fromkeys(
        (
            *("torch__scaled_mm", "torch__scaled_mm_v2", "nn_functional_batch_norm_without_cudnn"),
            *("torch_ops_aten__flash_attention_forward", "torch_ops_aten__efficient_attention_forward"),
            *("jiterator_unary", "jiterator_binary", "jiterator_binary_return_by_ref"),
            *("jiterator_2inputs_2outputs", "jiterator_4inputs_with_extra_args"),
        ),
        "runs on other devices",
    ),
    **dict.fromkeys(
        (
            *(
                "igamma",
                "igammac",
                "__rpow__",
                "special_zeta",
                "special_entr",
                "special_bessel_y0",
                "special_bessel_y1",
            ),
            *(f"special_{kind}modified_bessel_k{n}" for kind in ("", "scaled_") for n in (0, 1)),
        ),
        "is infinite in torch's samples",
    ),
    **dict.fromkeys(
        ("igamma", "igammac"), "is NaN in torch's samples, or has no gradient in its first argument"
    ),
}
"""What torch's samples do not show, and why."""

UNWRITTEN = {"empty_like", "new_empty", "new_empty_strided"}
"""What returns memory as it was, by chance with NaN: constants, which are not tried."""

LOW_PRECISION = {"half", "bfloat16", "chalf"}

PARTS = 8
FEW = 3
"""Tests that share the functions, so that several processes can."""


@cache
def listed() -> dict[str, Any]:
    return functions()


def outcome(sampled: Sampled) -> str:
    """What relprop does with a call: the books close, or torch knows no gradient either, or it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            e = relprop.explain(sampled, sampled.x, target=weighed, rules=Epsilon(0))
        except CoverageError:
            return "refused"
        except ModelError as error:
            if "does not depend on the input" not in str(error) or sampled.has_gradient():
                raise
            return "constant"
    torch.testing.assert_close(e.output, sampled(sampled.x), rtol=0, atol=0)
    assert isinstance(e.relevance, torch.Tensor)
    assert e.relevance.isfinite().all()
    amounts = [e.ledger.seed, e.relevance, *e.ledger.absorbed.values()]
    size = max(float(a.abs().max()) for a in amounts)
    missing = float(e.ledger.gap.max()) * float(e.ledger.seed.abs().max())
    assert missing <= (1e-2 if sampled.op.name in LOW_PRECISION else 1e-7) * size
    return "explained"


@pytest.mark.parametrize(
    ("part", "most"),
    [
        *((part, FEW) for part in range(PARTS)),
        *(pytest.param(part, None, marks=pytest.mark.zoo) for part in range(PARTS)),
    ],
)
def test_every_function_is_what_it_is_said_to_be(part: int, most: int | None) -> None:
    """`make zoo` tries all samples that torch has of a function, `make test` a few of each."""
    wrong = {}
    for name in sorted(listed().keys() - UNWRITTEN)[part::PARTS]:
        of_torch = list(samples(listed()[name]))
        if most is not None and name not in PARTLY:
            of_torch = of_torch[:: -(-len(of_torch) // most) or 1]
        try:
            found = {outcome(sampled) for sampled in of_torch}
        except Exception as error:
            raise AssertionError(name) from error
        if name in UNUSED:
            right = not found
        elif name in REFUSED:
            right = found == {"refused"}
        elif name in PARTLY:
            right = found == {"refused", "explained"}
        else:
            right = bool(found) and "refused" not in found
        if not right:
            wrong[name] = found
    assert not wrong


def test_every_function_that_is_an_exception_is_in_torchs_list_once() -> None:
    exceptions = [*REFUSED, *PARTLY, *UNUSED]
    assert len(exceptions) == len({*exceptions})
    assert {*exceptions} <= {*listed()}
    assert len(listed()) > 3 * len(exceptions)
