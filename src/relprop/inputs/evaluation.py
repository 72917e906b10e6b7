"""Refusing models that cannot be explained as they are: what cannot be called, and training mode."""

from typing import Any

from torch import fx, nn

from relprop.calls.site import every_module
from relprop.errors import ModelError
from relprop.rules.elsewhere import told_of


def require_evaluation_mode(model: Any) -> None:
    """Refuse a model that cannot be called, and a module in training mode.

    A part that computes the same in both modes may be in training mode.

    Raises:
        ModelError: the model cannot be called, is a class, or has a part in training mode.
    """
    if not callable(model):
        raise ModelError(
            f"the model is a {type(model).__name__}, which cannot be called; give a module or a function."
            + told_of(model)
        )
    if isinstance(model, type):
        raise ModelError(
            f"the model is the class {model.__name__}; make one, as in {model.__name__}(...).eval()."
        )
    if not isinstance(model, nn.Module):
        return
    if not _any_trains(model):
        return
    graph = isinstance(model, fx.GraphModule)
    itself = _trains(model) and _depends_on_mode(model, in_graph=graph)
    training = ["the model itself"] if itself else []
    training += [
        path
        for path, m in model.named_modules()
        if path and _trains(m) and _depends_on_mode(m, in_graph=graph)
    ]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        raise ModelError(
            f"the model is in training mode ({training[0]}{more}), where dropout and batch statistics "
            "change its output: call model.eval() before explaining."
        )


def _any_trains(model: nn.Module) -> bool:
    """Whether a module or one within it has `training` set."""
    return any([getattr(module, "training", False) for module in every_module(model)])


def _trains(module: nn.Module) -> bool:
    """Whether a module is in training mode.

    A frozen module has no mode. An exported module cannot leave training mode, and does not count.
    """
    return getattr(module, "training", False) and not isinstance(module, fx.GraphModule)


def _depends_on_mode(module: nn.Module, *, in_graph: bool) -> bool:
    """Whether a module may compute something else in training mode.

    A module of the user's own may. Of torch's modules, and of those in an exported graph, only a few do.
    """
    own = not in_graph and not type(module).__module__.startswith("torch.nn.modules")
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return own or module.dropout > 0
    return own or isinstance(
        module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    )
