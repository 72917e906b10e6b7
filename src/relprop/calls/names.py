"""Names of operations, in aten and in torch's documentation."""

from collections.abc import Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

_DOCUMENTED = MappingProxyType(
    {
        **dict.fromkeys(("addmm", "mm"), "linear"),
        **dict.fromkeys(("mv", "dot", "_sparse_mm", "_sparse_addmm"), "matmul"),
        "_trilinear": "bilinear",
        "_sparse_coo_tensor_with_dims_and_tensors": "sparse_coo_tensor",
        "sparse_compressed_tensor": "sparse_csr_tensor",
        "_sparse_sum": "sparse.sum",
        "_sparse_softmax": "sparse.softmax",
        **{f"_{name}": name for name in ("coalesce", "to_dense", "to_sparse", "values", "indices", "nnz")},
        **{f"_{name}": name for name in ("to_sparse_csr", "to_sparse_csc")},
        **{f"special_{name}": name for name in ("entr", "erfcx", "i0e", "i1", "i1e", "log_ndtr", "ndtri")},
        **dict.fromkeys(
            (
                *("fake_quantize_per_tensor_affine_cachemask", "_fake_quantize_learnable_per_tensor_affine"),
                "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
                "_fused_moving_avg_obs_fq_helper",
            ),
            "fake_quantize_per_tensor_affine",
        ),
        **dict.fromkeys(
            ("fake_quantize_per_channel_affine_cachemask", "_fake_quantize_learnable_per_channel_affine"),
            "fake_quantize_per_channel_affine",
        ),
        **dict.fromkeys(
            (
                *("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"),
                *("_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
                *("_batch_norm_with_update", "_batch_norm_no_update"),
            ),
            "batch_norm",
        ),
        "native_layer_norm": "layer_norm",
        "native_group_norm": "group_norm",
        "_fused_rms_norm": "rms_norm",
        "_grouped_mm": "grouped_mm",
        **dict.fromkeys(("_softmax", "_safe_softmax"), "softmax"),
        "_log_softmax": "log_softmax",
        **dict.fromkeys(("nll_loss_forward", "nll_loss2d_forward"), "nll_loss"),
        "_ctc_loss": "ctc_loss",
        "log_sigmoid_forward": "logsigmoid",
        "log_sigmoid": "logsigmoid",
        "_prelu_kernel": "prelu",
        "rrelu_with_noise": "rrelu",
        **{f"max_pool{n}d_with_indices": f"max_pool{n}d" for n in (2, 3)},
        **{f"_adaptive_avg_pool{n}d": f"adaptive_avg_pool{n}d" for n in (2, 3)},
        **dict.fromkeys(
            (
                *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
                *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
                *("_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable"),
            ),
            "scaled_dot_product_attention",
        ),
        **dict.fromkeys(
            (
                *(f"upsample_{kind}" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")),
                *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
                *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
                *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"),
            ),
            "interpolate",
        ),
        **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), "grid_sample"),
        "affine_grid_generator": "affine_grid",
        **dict.fromkeys(
            (
                "constant_pad_nd",
                *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
            ),
            "pad",
        ),
        "im2col": "unfold",
        "col2im": "fold",
        **dict.fromkeys(("slice", "index"), "getitem"),
        **dict.fromkeys(("_unsafe_view", "_reshape_alias"), "view"),
        "_to_copy": "to",
        "split_with_sizes": "split",
        "unsafe_split_with_sizes": "split",
        "_conj": "conj",
        "_conj_physical": "conj",
    }
)
"""Name in torch's documentation by the name in aten, where the two differ."""


def documented_name(name: str, args: Sequence[Any] = ()) -> str:
    """Return the name of an aten operation in torch's documentation.

    Args:
        name: name in aten, the same for all overloads.
        args: arguments in the order of the schema. Only the names of convolutions depend on them.
    """
    if name in CONVOLUTIONS:
        dimensions = args[1].dim() - 2
        transposed = name != "_convolution_mode" and args[6]
        return f"conv_transpose{dimensions}d" if transposed else f"conv{dimensions}d"
    return _DOCUMENTED.get(name, name)


def aten_names(documented: str) -> list[str]:
    """Return the names that aten has for an operation of torch's documentation, that name itself first."""
    return [documented, *(name for name, known in _DOCUMENTED.items() if known == documented)]


_ALIASES = MappingProxyType(
    {
        "subtract": "sub",
        "multiply": "mul",
        **dict.fromkeys(("divide", "true_divide", "truediv"), "div"),
        "negative": "neg",
        "absolute": "abs",
        **dict.fromkeys(("concat", "concatenate"), "cat"),
        "clip": "clamp",
        "relu6": "hardtanh",
        "selu": "elu",
        "swapaxes": "transpose",
        "swapdims": "transpose",
        "moveaxis": "movedim",
    }
)
"""Functions that are other spellings of a function."""


@cache
def name_of(function: Any) -> str:
    """Return the name in torch's documentation of a function that a user gives.

    `torch.relu`, `F.relu_`, `Tensor.relu` and `torch.ops.aten.relu` are "relu". `operator.add` and
    `Tensor.__iadd__` are "add". For anything else, such as a function of another library, the result is its
    `repr`, which matches no operation.
    """
    name = getattr(function, "__name__", None)
    module = getattr(function, "__module__", None) or type(function).__module__
    root = str(module).split(".")[0]
    if name is None or root not in ("torch", "builtins", "_operator"):
        return repr(function)
    if str(module).startswith("torch._ops.") and str(module) != "torch._ops.aten":
        return repr(function)  # an operation of another library may have the name of one of torch's
    name = name.split(".")[0]  # without the overload
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        for prefix in ("i", "r"):
            if name[1:] in _OPERATORS and name.startswith(prefix):
                name = name[1:]
        name = _OPERATORS.get(name, name)
    name = name.removesuffix("_").removeprefix("special_")
    return documented_name(_ALIASES.get(name, name)) if name not in CONVOLUTIONS else name


_OPERATORS = MappingProxyType(
    {name: name for name in ("add", "sub", "mul", "matmul", "neg", "abs", "pow", "getitem")}
    | {"truediv": "div", "div": "div", "setitem": "copy"}
)

CONVOLUTIONS = frozenset(("convolution", "_convolution", "convolution_overrideable", "_convolution_mode"))
"""Operations whose names in torch's documentation depend on their arguments."""
