"""The mode that torch gives the calls of a thread to, on wrapper tensors and on plain tensors alone."""

from typing import Any

import torch
from torch._ops import OpOverload
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode

from relprop.engine.seen import Seen, run_of


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base of dispatch modes. Torch wraps others, and imports its compiler for it, which takes a second."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what is compiled is not seen in any case (`relprop.engine.active.uncompiled`)


class Mode(DispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode for the calls of a thread, on wrapper tensors and on plain tensors alone."""

    def __enter__(self) -> "Mode":
        # Each thread has its own stack. Torch's own method would also set flags that all threads share.
        torch._C._push_on_torch_dispatch_stack(self)
        return self

    def __exit__(self, *_error: object) -> None:
        torch._C._pop_torch_dispatch_stack(None)

    def __init__(self, interception: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._interception = interception

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, interception = kwargs or {}, self._interception
        if Seen not in types and type(func) is OpOverload and not interception.writing.looks_at_plain:
            return interception.plain(func, args, kwargs)
        run = run_of(args) or run_of(kwargs.values())
        if run is not None and not run.is_over:
            interception = run.interception  # the tensors may be of a run around this one, or within it
        return interception.see(func, args, kwargs)


if TorchVersion(torch.__version__) < "2.9":
    # Modes get operations of functions there that they are registered for, and not the others.
    from torch._higher_order_ops.flex_attention import flex_attention

    @flex_attention.py_impl(Mode)
    def _see_flex_attention(mode: Mode, *args: Any, **kwargs: Any) -> Any:
        return mode.__torch_dispatch__(flex_attention, (), args, kwargs)
