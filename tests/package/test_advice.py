"""What messages about targets, inputs and runs say is to be written: it is written, and runs."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import RelpropError


class Net(nn.Module):
    """A classifier of three inputs, with an argument that has the name of an option, and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(3, 4)

    def forward(self, x: Tensor, other: Any = 0, start: float = 1.0) -> Tensor:
        return (self.part(x) + other) * start


class Texts(nn.Module):
    """A language model, or what remains of one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table(input_ids) * 2.0


def names() -> dict[str, Any]:
    """What the calls below speak of."""
    torch.manual_seed(0)
    net = Net().eval()
    net.part.bias.data[:] = torch.tensor([4.0, 5.0, 6.0, 7.0])
    return {
        "relprop": relprop,
        "torch": torch,
        "nn": nn,
        "np": np,
        **{name: getattr(relprop.targets, name) for name in relprop.targets.__all__},
        "Epsilon": relprop.rules.Epsilon,
        "Uniform": relprop.rules.Uniform,
        "First": relprop.places.First,
        "explain": relprop.explain,
        "explainer": relprop.Explainer(net),
        "Net": Net,
        "net": net,
        "x": torch.rand(2, 3),
        "y": torch.rand(5, 4),
        "names": ["dog", "cat"],
        "conv": nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval(),
        "pictures": torch.rand(2, 1, 5, 5),
        "texts": Texts().eval(),
        "ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }


ADVICE: dict[str, tuple[str, str, str]] = {
    # of targets
    "a class by its name": (
        "explain(net, x, target='cat')",
        "names.index('cat')",
        "explain(net, x, target={})",
    ),
    "a class by its name in a target": (
        "Contrastive('cat')",
        "names.index('cat')",
        "explain(net, x, target=Contrastive({}))",
    ),
    "classes by their names": (
        "explain(net, x, target=['cat', 'dog'])",
        "[names.index(name) for name in ['cat', 'dog']]",
        "explain(net, x, target={})",
    ),
    "a rule as target": (
        "explain(net, x, target=Epsilon())",
        "rules=relprop.rules.Epsilon(epsilon=1e-06)",
        "explain(net, x, {})",
    ),
    "a rule for products as target": (
        "explain(net, x, target=Uniform())",
        "rules=[('*', relprop.rules.Uniform()), ('*', relprop.rules.Epsilon())]",
        "explain(lambda x: net(x) * net(x), x, {})",
    ),
    "a place as target": (
        "explain(net, x, target=First())",
        "rules=[(First(), relprop.rules.Epsilon()), ('*', relprop.rules.Epsilon())]",
        "explain(nn.Sequential(net, nn.Linear(4, 4)).eval(), x, {}, target=lambda y: y.abs().sum())",
    ),
    "a function without arguments": (
        "explain(net, x, target=lambda: 1)",
        "target=lambda output: output[:, 0]",
        "explain(net, x, {})",
    ),
    "a class of Python as target": (
        "explain(net, x, target=RunnerUp)",
        "RunnerUp()",
        "explain(net, x, target={})",
    ),
    "a difference from nothing": (
        "explain(net, x, target=Difference(1))",
        "RunnerUp",
        "explain(net, x, target={}())",
    ),
    "no rival": (
        "explain(lambda x: net(x)[:, :1], x, target=RunnerUp())",
        "target=0",
        "explain(lambda x: net(x)[:, :1], x, {})",
    ),
    "a list of outputs": (
        "explain(lambda x: [1, net(x)], x)",
        "target=lambda output: output[1][:, 0]",
        "explain(lambda x: [1, net(x)], x, {})",
    ),
    "a dictionary of outputs": (
        "explain(lambda x: {'a': 1, 'b': net(x)}, x)",
        "target=lambda output: output['b'][:, 0]",
        "explain(lambda x: {{'a': 1, 'b': net(x)}}, x, {})",
    ),
    "no tensor": (
        "explain(lambda x: str(net(x)), x)",
        "explain(lambda x: model.part(x), x)",
        "[{} for model in [net]]",
    ),
    "positions": (
        "explain(texts, ids)",
        "target=relprop.targets.At(-1)",
        "explain(texts, ids, {}, rules=Epsilon())",
    ),
    "pixels": (
        "explain(conv, pictures)",
        "target=relprop.targets.Region(0)",
        "explain(lambda x: conv(x)[:, :1] + 1, pictures, {})",
    ),
    "voxels": (
        "explain(lambda x: x[..., None] * 1.0, pictures)",
        "target=relprop.targets.Region(0)",
        "explain(lambda x: x[..., None] * 1.0, pictures, {})",
    ),
    "a mask of another library": (
        "Region(0, np.ones((3, 3)))",
        "torch.as_tensor(mask)",
        "[explain(conv, pictures, target=Region(0, {})) for mask in [np.ones((3, 3))]]",
    ),
    "a region of one of several outputs": (
        "explain(lambda x: {'out': conv(x)}, pictures, target=Region(0))",
        "Part('out', Region(...))",
        "explain(lambda x: {{'out': conv(x)[:, :1] + 1}}, pictures, target={})",
    ),
    # of inputs
    "an array": (
        "explain(texts, np.array([[1, 2]]), target=At(-1))",
        "torch.from_numpy(x)",
        "[explain(texts, {}, target=At(-1), rules=Epsilon()) for x in [np.array([[1, 2]])]]",
    ),
    "a list": (
        "explain(texts, [[1, 2]], target=At(-1))",
        "torch.tensor(x)",
        "[explain(texts, {}, target=At(-1), rules=Epsilon()) for x in [[[1, 2]]]]",
    ),
    "whole numbers": ("explain(net, x.byte())", "x.float()", "explain(net, {})"),
    "whole numbers of 64 bits": ("explain(net, x.long())", "x.float()", "explain(net, {})"),
    "complex numbers": (
        "explain(net, x + 0j)",
        "torch.view_as_real(x)",
        "[explain(lambda x: net(x[..., 0]), {}) for x in [x + 0j]]",
    ),
    "one sample": ("explain(net, x[0])", "x.unsqueeze(0)", "[explain(net, {}) for x in [x[0]]]"),
    "other samples": (
        "explain(net, x, y)",
        "explain(lambda x: model(x, other=y), x)",
        "[{} for model, y in [(net, y[:2])]]",
    ),
    "an option that is an argument": (
        "explain(net, x, start=2.0)",
        "kwargs={'start': ...}",
        "explain(net, x, {})",
    ),
    "an option that is an argument, for relprop": (
        "explain(net, x, start='part')",
        "kwargs={}",
        "explain(net, x, start='part', target=1, kwargs={{}})",
    ),
    "several targets": (
        "explain(nn.Linear(3, 2).eval(), x, targets=[0, 1])",
        "relprop.explain_each(model, ..., targets=[...])",
        "[relprop.explain_each(model, x, targets=[0, 1]) for model in [net]]",
    ),
    "an option by position": ("explain(net, x, 0, 1.0, 'epsilon')", "rules=...", "explain(net, x, {})"),
    "a class of models": (
        "explain(Net, x)",
        "Net(...).eval()",
        "explain({}, x, target=lambda y: y.abs().sum())",
    ),
    "training": ("explain(net.train(), x)", "model.eval()", "[explain({}, x) for model in [net]]"),
    # of runs
    "a negative score": (
        "explain(lambda x: -net(x), x)",
        "target=relprop.targets.Contrastive(...)",
        "explain(lambda x: -net(x), x, {})",
    ),
    "a negative score beside others": (
        "explain(lambda x: -net(x), x)",
        "relprop.targets.RunnerUp(...)",
        "explain(lambda x: -net(x), x, target={})",
    ),
    "a negative number": (
        "explain(lambda x: -net(x)[:, :1], x)",
        "target=lambda y: y[:, 0] - reference",
        "[explain(lambda x: -net(x)[:, :1], x, {}) for reference in [-100]]",
    ),
    "a negative number, turned": (
        "explain(lambda x: -net(x)[:, :1], x)",
        "target=lambda y: -y[:, 0]",
        "explain(lambda x: -net(x)[:, :1], x, {})",
    ),
    "padding": (
        "explain(texts, input_ids=ids, attention_mask=attention_mask, target=At(-1), rules=Epsilon())",
        "relprop.targets.At((attention_mask.sum(1) - 1).tolist(), ...)",
        "explain(texts, input_ids=ids, attention_mask=attention_mask, target={}, rules=Epsilon())",
    ),
    "a gate": (
        "explain(lambda x, z: z * torch.softmax(net(x), 1)[:, :1], x, torch.rand(2, 4), rules=Epsilon())",
        "('*', relprop.rules.Uniform())",
        "explain(lambda x, z: z * torch.softmax(net(x), 1)[:, :1], x, torch.rand(2, 4), "
        "rules=[{}, ('*', Epsilon())])",
    ),
    "half precision": (
        "explain(lambda x: x * 60000, x.half() + 9, target=0)",
        "model.to(torch.bfloat16)",
        "[explain({}, 9 + x.bfloat16()) for model in [net]]",
    ),
    "an operation of no name": (
        "explain(net, x, accept=[1])",
        "accept=torch.atan2",
        "explain(lambda x: net(x) + x.atan2(x)[:, :1] * 0, x, {})",
    ),
    "bounds in vain": (
        "explain(net, x, rules=[('*', Epsilon())], bounds=(0, 1))",
        "(relprop.places.First(), relprop.rules.ZBox())",
        "explain(net, x, rules=[{}, ('*', Epsilon())], bounds=(0, 1))",
    ),
    "an option of a call": (
        "relprop.Explainer(net, target=0)",
        "explainer(x, target=...)",
        "{}",
    ),
    "an option of an explainer": (
        "explainer(x, rules='epsilon')",
        "Explainer(model, rules=...)",
        "[relprop.{}(x) for model in [net]]",
    ),
    "progress": (
        "relprop.explain_each(net, x, targets=[1], progress=1)",
        "progress=print",
        "relprop.explain_each(net, x, targets=[1], {})",
    ),
    "a target for a list": (
        "relprop.explain_each(net, x, targets=3)",
        "explain(..., target=...)",
        "explain(net, x, target=3)",
    ),
}
"""A call, the code in its error or warning, and where this code is put. Calls are expressions."""

FILLED = {
    "Part('out', Region(...))": "Part('out', Region(0))",
    "kwargs={'start': ...}": "kwargs={'start': 2.0}",
    "rules=...": "rules='epsilon'",
    "Net(...).eval()": "Net().eval()",
    "target=relprop.targets.Contrastive(...)": "target=relprop.targets.Contrastive(0)",
    "relprop.targets.RunnerUp(...)": "relprop.targets.RunnerUp()",
    "relprop.targets.At((attention_mask.sum(1) - 1).tolist(), ...)": (
        "relprop.targets.At((attention_mask.sum(1) - 1).tolist(), lambda y: y.abs().sum(1))"
    ),
    "explainer(x, target=...)": "explainer(x, target=0)",
    "Explainer(model, rules=...)": "Explainer(model, rules='epsilon')",
}
"""What takes the place of the dots."""


def told_by(call: str) -> str:
    """What a call says, in an error or in warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            eval(call, names())
        except RelpropError as error:
            return str(error)
    assert said, f"{call} says nothing"
    return "\n".join(str(warning.message) for warning in said)


@pytest.mark.parametrize("case", ADVICE)
def test_what_a_message_says_is_to_be_written_runs(case: str) -> None:
    wrong, code, right = ADVICE[case]
    said = told_by(wrong)
    assert code in said
    with warnings.catch_warnings(record=True) as again:
        warnings.simplefilter("always")
        assert eval(right.format(FILLED.get(code, code)), names()) is not None
    # It may say something else, but not the same.
    assert not [str(warning.message) for warning in again if code in str(warning.message)]
