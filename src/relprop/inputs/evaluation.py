"""Refusing models that cannot be explained as they are: what cannot be called, and training mode."""

from typing import Any, TypeGuard

from torch import fx, nn

from relprop.calls.site import every_module
from relprop.errors import ModelError
from relprop.rules.elsewhere import told_of


def require_evaluation_mode(model: Any) -> None:
    """Refuse a model that cannot be called, and a module in training mode.

    A part that computes the same in both modes may be in training mode.

    Raises:
        ModelError: the model cannot be called, is a class, has a part in training mode, or was exported in
            training mode.
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
    exported = [m for m in model.modules() if _is_exported(m)]
    for each in exported:
        _require_exported_in_evaluation(each)
    within = {m for each in exported for m in each.modules()}
    graph = isinstance(model, fx.GraphModule)
    training = [
        repr(path) if path else "the model itself"
        for path, m in model.named_modules()
        if m not in within and _trains(m) and _depends_on_mode(m, in_graph=graph)
    ]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        remedy = "call model.eval() before explaining"
        if exported:
            remedy = (
                "write `for m in model.modules(): m.training = False` before explaining; model.eval() is "
                "refused by the exported module in it"
            )
        raise ModelError(
            f"the model is in training mode ({training[0]}{more}), where dropout and batch statistics "
            f"change its output: {remedy}."
        )


def _is_exported(module: nn.Module) -> TypeGuard[fx.GraphModule]:
    """Whether a module is that of a program of torch.export, which torch gives an `eval` that only raises."""
    return isinstance(module, fx.GraphModule) and "eval" in vars(module)


def _require_exported_in_evaluation(module: fx.GraphModule) -> None:
    """Refuse an exported module whose graph has an operation as it is in training mode.

    Raises:
        ModelError: there is one.
    """
    for node in module.graph.nodes:
        name = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::").rstrip("_")
        position = _MODE_AT.get(name)
        if position is None or len(node.args) <= position or node.args[position] is not True:
            continue
        # Without running statistics a batch norm takes those of the batch in both modes.
        if (name not in _NORMS and node.args[1] != 0) or (name in _NORMS and node.args[3] is not None):
            raise ModelError(
                f"the model was exported in training mode: its graph has {name} as in training, and torch "
                "refuses eval() for it. Export it again: torch.export.export(model.eval(), args).module()."
            )


def _any_trains(model: nn.Module) -> bool:
    """Whether a module or one within it has `training` set."""
    return any([getattr(module, "training", False) for module in every_module(model)])


def _trains(module: nn.Module) -> bool:
    """Whether a module is in training mode.

    A frozen module has no mode. An exported module cannot leave training mode, and does not count.
    """
    return getattr(module, "training", False) and not isinstance(module, fx.GraphModule)


_NORMS = ("batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")
_MODE_AT = {
    **dict.fromkeys(_NORMS, 5),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), 2),
    "native_dropout": 2,
}
"""Number of the argument that has the mode, by operation."""


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
