"""The ways of explaining: the gradient, relprop in Python and by graphs, and the peers.

A way takes a subject and the rules by name, prepares what is needed once, and returns a function that
explains the subject once.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import oracle
import relprop
from benchmarks import peers
from benchmarks.case import Subject
from relprop.places import First
from relprop.rules import AlphaBeta, Epsilon, Gamma, WSquare, ZPlus
from relprop.runs import planned

Explain = Callable[[], Any]

RULES: Mapping[str, Any] = {
    "z+": ZPlus(),
    "gamma": Gamma(0.25),
    "alpha2-beta1": AlphaBeta(2, 1),
    "w2-epsilon": [(First(), WSquare()), ("*", Epsilon())],
}
"""Rules that are no presets; the other names are presets."""


def gradient(subject: Subject, rules: str = "", model: Callable[..., Any] | None = None) -> Explain:
    """Forward, and the gradient of the score by the input."""

    def explain() -> Tensor:
        x = subject.x.clone().requires_grad_()
        return torch.autograd.grad(subject.output(x, model).sum(), x)[0]

    return explain


def compiled_gradient(subject: Subject, rules: str = "") -> Explain:
    """The gradient of a copy of the model after torch.compile, which graphs would notice as a change."""
    return gradient(subject, model=torch.compile(subject.copy_for("torch.compile"), dynamic=False))


def checkpointed_gradient(subject: Subject, rules: str = "") -> Explain:
    """The gradient with torch's checkpoints around the blocks."""
    explain = gradient(subject)

    def with_checkpoints() -> Any:
        with _checkpoints(subject):
            return explain()

    return with_checkpoints


@contextmanager
def _checkpoints(subject: Subject) -> Iterator[None]:
    model: Any = subject.model
    blocks = list(model.get_submodule(subject.blocks))
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _explainer(subject: Subject, rules: str, **options: Any) -> relprop.Explainer:
    chosen = RULES.get(rules, rules)
    needs_bounds = isinstance(chosen, str) and relprop.PRESETS[chosen].needs_bounds
    bounds = subject.bounds if needs_bounds else None
    return relprop.Explainer(subject.model, rules=chosen, bounds=bounds, **options)


def in_python(subject: Subject, rules: str, **options: Any) -> Explain:
    """relprop without a plan, as its first explanations are computed."""
    inputs, arguments = subject.given(subject.x)
    explainer = _explainer(subject, rules, plan=False, **options)
    return lambda: explainer(*inputs, target=subject.target, kwargs=arguments)


def by_plan(subject: Subject, rules: str) -> Explain:
    """relprop as it is after a few explanations: by a plan, which is made here."""
    inputs, arguments = subject.given(subject.x)
    explainer = _explainer(subject, rules)
    with peers.replaced(vars(planned), {"AFTER": 1}):  # the first explanations take long, and tell nothing
        for _ in range(3):
            explainer(*inputs, target=subject.target, kwargs=arguments)
    require_plan(explainer)
    return lambda: explainer(*inputs, target=subject.target, kwargs=arguments)


def require_plan(explainer: relprop.Explainer) -> None:
    """Check that an explainer has a plan.

    Raises:
        RuntimeError: it has none.
    """
    assert explainer._plans is not None
    kinds = list(explainer._plans._kinds.values())
    if not kinds or not all([kind.is_proven for kind in kinds]):
        raise RuntimeError(f"there is no plan: {[kind.refused for kind in kinds]}")


def with_checkpoints(subject: Subject, rules: str) -> Explain:
    """relprop, with checkpoints at the blocks."""
    return in_python(subject, rules, checkpoint=f"{subject.blocks}.*")


def by_graph(subject: Subject, rules: str, mode: Literal["replay", "inductor"] = "replay") -> Explain:
    """relprop by a graph, which is traced here."""
    inputs, arguments = subject.given(subject.x)
    explainer = _explainer(subject, rules)
    compiled = explainer.compile(*inputs, target=subject.target, mode=mode, kwargs=arguments)
    return lambda: compiled(*inputs, target=subject.target, kwargs=arguments)


def by_numpy(subject: Subject, rules: str) -> Explain:
    """The tutorial's CNN, in the code of docs/from-scratch.md."""
    return _numpy(subject, rules)


def by_numpy_of_2017(subject: Subject, rules: str) -> Explain:
    """The same, with products by `numpy.dot`, as the code of 2017 has them."""
    return _numpy(subject, rules, {"Convolution": peers.dot_convolution(oracle.page()["Convolution"])})


def _numpy(subject: Subject, rules: str, parts: Mapping[str, Any] | None = None) -> Explain:
    model: Any = subject.model
    state, images, labels = model.state_dict(), subject.x.double().numpy(), subject.target
    method: Any = rules

    def explain() -> Any:
        with peers.replaced(oracle.page(), parts or {}):
            return oracle.maps("cnn", method, state, images, labels)

    return explain


WAYS: Mapping[str, Callable[[Subject, str], Explain]] = {
    "gradient": gradient,
    "compiled gradient": compiled_gradient,
    "relprop": in_python,
    "plan": by_plan,
    "graph": by_graph,
    "inductor": partial(by_graph, mode="inductor"),
    "checkpointed gradient": checkpointed_gradient,
    "checkpointed relprop": with_checkpoints,
    "zennit": peers.by_zennit,
    "captum": peers.by_captum,
    "autolrp": peers.by_autolrp,
    "NumPy": by_numpy,
    "NumPy of 2017": by_numpy_of_2017,
}
"""By name. LXT has a process of its own: see `lxt.py`."""

UNCOUNTED = ("compiled gradient", "inductor", "plan", "NumPy", "NumPy of 2017")
"""Ways whose products are not calls of torch's operations, or that go another way where calls are counted."""


STATELESS = ("zennit", "captum", "autolrp")
"""Ways that keep nothing from one explanation to the next."""
