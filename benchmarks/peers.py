"""Other libraries, each as its documentation advises.

Each gets a copy of the model, since they write to modules and weights. zennit and captum are for networks of
modules; captum has no rule for sums of branches, so that its relevance of residual networks is not right,
and takes as long.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.case import Subject
from torchvision_shim import import_torchvision


def by_zennit(subject: Subject, rules: str) -> Callable[[], Any]:
    """zennit: a composite with the network's canonizer, and its attributor."""
    import_torchvision()  # zennit imports it
    composites, rule = import_module("zennit.composites"), import_module("zennit.rules")
    attribution, types = import_module("zennit.attribution"), import_module("zennit.types")
    canonizers = [getattr(import_module("zennit.torchvision"), subject.canonizer)()]
    base = composites.layer_map_base()

    def everywhere(hook: Any) -> Any:
        return composites.LayerMapComposite([*base, (types.Linear, hook)], canonizers=canonizers)

    low, high = subject.bounds or (0.0, 1.0)
    composite = {
        "epsilon": lambda: everywhere(rule.Epsilon(1e-6)),
        "z+": lambda: everywhere(rule.ZPlus()),
        "gamma": lambda: everywhere(rule.Gamma(0.25)),
        "alpha2-beta1": lambda: everywhere(rule.AlphaBeta(2, 1)),
        "epsilon-gamma-box": lambda: composites.EpsilonGammaBox(
            low=torch.full_like(subject.x, low), high=torch.full_like(subject.x, high), canonizers=canonizers
        ),
    }[rules]()
    model = subject.copy_for("zennit")

    def explain() -> Any:
        with attribution.Gradient(model=model, composite=composite) as attributor:
            return attributor(subject.x.clone(), lambda output: _one_hot(output, subject.target))

    return explain


def by_captum(subject: Subject, rules: str) -> Callable[[], Any]:
    """captum's `LRP`, with its rule on all layers that have weights; its default is ε."""
    lrp = import_module("captum.attr").LRP
    known = import_module("captum.attr._utils.lrp_rules")
    rule = {
        "epsilon": lambda: known.EpsilonRule(1e-6),
        "z+": known.Alpha1_Beta0_Rule,
        "gamma": lambda: known.GammaRule(0.25),
    }[rules]
    model = subject.copy_for("captum")

    def explain() -> Any:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.rule = rule()  # which captum takes off afterwards
        return lrp(model).attribute(subject.x.clone().requires_grad_(), target=subject.target)

    return explain


def by_autolrp(subject: Subject, rules: str) -> Callable[[], Any]:
    """autolrp: the input as a tensor of its own, and `lrp` of the score."""
    autolrp = import_module("autolrp")
    layers = ("AddmmBackward", "MmBackward", "ConvolutionBackward")
    config = {
        "epsilon": lambda: autolrp.LRPConfig(eps=1e-6),
        "gamma": lambda: autolrp.LRPConfig(
            rule={**autolrp.BASE, **autolrp.on(layers, ("gamma", {"gamma": 0.25}))}
        ),
        "attnlrp": autolrp.LRPConfig.attnlrp,
        "cp-lrp": autolrp.LRPConfig.cplrp,
    }[rules]()
    copied = subject.copy_for("autolrp")

    def explain() -> Any:
        x = autolrp.tensor(subject.x.clone())
        output: Any = subject.output(x, copied).sum()
        output.lrp(config=config)
        return x.relevance

    return explain


def _one_hot(output: torch.Tensor, target: int) -> torch.Tensor:
    """A one for the class, as zennit's attributors take it."""
    return torch.eye(output.shape[1])[[target] * len(output)]


def dot_convolution(convolution: Any) -> Any:
    """The convolution of docs/from-scratch.md, its products spelled as in the code of 2017."""

    class DotConvolution(convolution):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            self.x = x
            rows, columns = self.weight.shape[:2]
            height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
            z = self.bias
            for i, j in np.ndindex(rows, columns):
                z = z + np.dot(x[:, i : i + height, j : j + width], self.weight[i, j])
            return np.asarray(z)

        def gradient(self, g: Any) -> Any:
            rows, columns, channels = self.weight.shape[:3]
            count, height, width = g.shape[:3]
            result = np.zeros((count, height + rows - 1, width + columns - 1, channels), g.dtype)
            for i, j in np.ndindex(rows, columns):
                result[:, i : i + height, j : j + width] += np.dot(g, self.weight[i, j].T)
            return result

    return DotConvolution


@contextmanager
def replaced(names: Any, others: Mapping[str, Any]) -> Iterator[None]:
    """Put other things for some names."""
    with mock.patch.dict(names, others):
        yield
