"""A device on a machine without one. It is made of C++, which is compiled when it is first used.

See `pretended_device.cpp` for what differs on it from the CPU.
"""

import os
import sys
import sysconfig
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension

NAME = "pretended"


@cache
def made() -> Any:
    """Make the device known to torch, and return what notes its reads.

    Raises:
        OSError: there is no compiler.
        RuntimeError: there is no compiler, or it fails.
    """
    source = Path(__file__).with_suffix(".cpp")
    # Torch looks for ninja on the path.
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    folder = Path(sys.prefix) / "pretended_device"  # which goes with the environment
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of compilers that torch has not been tried with
        noted = cpp_extension.load(
            NAME + "_device", [str(source)], extra_cflags=["-O1"], build_directory=str(folder)
        )
    torch.utils.rename_privateuse1_backend(NAME)
    torch.utils.generate_methods_for_privateuse1_backend()
    nothing = torch.zeros(1, dtype=torch.uint8)
    torch._register_device_module(
        NAME,
        SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16],
            manual_seed_all=lambda _seed: None,
            get_rng_state=lambda *_device: nothing,
            set_rng_state=lambda *_state: None,
            _is_in_bad_fork=lambda: False,
        ),
    )
    torch.library.impl("aten::_thnn_fused_lstm_cell", "PrivateUse1", _lstm_cell)
    torch.library.impl("aten::_thnn_fused_gru_cell", "PrivateUse1", _gru_cell)
    return noted


# ---- cells that the CPU has in parts ----


def _with(gates: Tensor, bias: Tensor | None) -> Tensor:
    return gates if bias is None else gates + bias


def _lstm_cell(
    of_x: Tensor, of_h: Tensor, c: Tensor, bias: Tensor | None = None, bias_of_h: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    gates = _with(of_x, bias) + _with(of_h, bias_of_h)
    i, f, g, o = gates.chunk(4, 1)
    new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * new.tanh(), new, gates


def _gru_cell(
    of_x: Tensor, of_h: Tensor, h: Tensor, bias: Tensor | None = None, bias_of_h: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    of_x, of_h = _with(of_x, bias), _with(of_h, bias_of_h)
    (xr, xz, xn), (hr, hz, hn) = of_x.chunk(3, 1), of_h.chunk(3, 1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return n + z * (h - n), of_x
