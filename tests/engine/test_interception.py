"""The model is used as it is and left as it was; spellings agree; runs do not know of each other."""

import gc
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as module_internals

import relprop
from networks import modules
from relprop.places import First
from relprop.rules import Epsilon, Flat, Gamma, WSquare, ZPlus

RULES = [
    Epsilon(0.1),
    Gamma(0.25),
    ZPlus(),
    relprop.rules.AlphaBeta(2, 1),
    Flat(),
    WSquare(),
    Epsilon(0.1, bias="distribute"),
]


def inplace() -> nn.Module:
    """The same with operations that overwrite."""
    network = modules()
    network[1], network[4], network[7] = (
        nn.ReLU(inplace=True),
        nn.ReLU6(inplace=True),
        nn.Dropout(inplace=True),
    )
    return network.eval()


class Functional(nn.Module):
    """The same in functions, methods and operators."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (modules()[i] for i in (0, 3, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(F.conv2d(F.pad(x, (1, 1, 1, 1)), self.first.weight, self.first.bias))
        x = F.max_pool2d(x, kernel_size=2)
        x = torch.conv2d(x, self.second.weight) + self.second.bias.view(-1, 1, 1)
        x = x.clamp(0, 6)
        x = (x[:, :, :, 0::2] + x[:, :, :, 1::2]) / 2 if x.shape[-1] % 2 == 0 else F.avg_pool2d(x, 2)
        x = x.mean(2) if x.dim() == 4 and x.shape[-1] == 1 and x.shape[2] == 2 else x
        x = F.dropout(x.reshape(len(x), -1), training=self.training)
        return x @ self.last.weight.T + self.last.bias


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", [inplace, lambda: Functional().eval()])
def test_spellings_agree(spelling: Any, rule: Any, x: Tensor) -> None:
    expected = relprop.explain(modules(), x, rules=rule)
    found = relprop.explain(spelling(), x, rules=rule)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert expected.ledger.gap.max() < 1e-12
    assert found.ledger.gap.max() < 1e-12


def snapshot(model: nn.Module) -> list[Any]:
    """What is on a model, its classes and torch: tensors by identity, version and value; hooks; flags."""
    return [
        *(
            (
                name,
                type(m),
                dict(vars(type(m))),
                {k: repr(v) for k, v in vars(m).items() if k != "_parameters"},
            )
            for name, m in model.named_modules()
        ),
        *((name, id(p), p._version, p.requires_grad, p.grad) for name, p in model.named_parameters()),
        *(p.detach().numpy().tobytes() for p in model.parameters()),
        [
            dict(getattr(module_internals, name))
            for name in vars(module_internals)
            if name.startswith("_global") and isinstance(getattr(module_internals, name), dict)
        ],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch._C._is_multithreading_enabled(),
        torch.overrides._get_current_function_mode(),
        torch.get_num_threads(),
    ]


def test_nothing_stays_behind(x: Tensor) -> None:
    model = modules()
    before = snapshot(model)
    relprop.explain(model, x, rules="epsilon-gamma-box", bounds=(-5, 5))
    assert snapshot(model) == before


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("the model's own")


@dataclass(frozen=True)
class FailingRule:
    """Fails in the backward."""

    puts_relevance: bool = False

    def __call__(self, op: Any, incoming: Any) -> Any:
        raise KeyError("the rule's own")


def failing_target(output: Tensor) -> Tensor:
    raise KeyError("the target's own")


@pytest.mark.parametrize("whose", ["model", "rule", "target"])
def test_nothing_stays_behind_after_an_exception(whose: str, x: Tensor) -> None:
    model = modules()
    if whose == "model":
        model.append(Failing().eval())
    before = snapshot(model)
    with pytest.raises(KeyError, match=f"the {whose}'s own"):
        relprop.explain(
            model,
            x,
            rules=FailingRule() if whose == "rule" else Epsilon(),
            target=failing_target if whose == "target" else None,
        )
    assert snapshot(model) == before
    relprop.explain(modules(), x)


def test_no_tensor_stays_alive(x: Tensor) -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(weakref.ref(x))
            return x

    model = modules()
    model.insert(4, Watching().eval())
    e = relprop.explain(model, x)
    gc.collect()
    assert e.relevance is not None
    assert seen[0]() is None


def test_no_gradient_is_computed_for_parameters(x: Tensor) -> None:
    model = modules()
    relprop.explain(model, x)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_explaining_within_no_grad_and_inference_mode(x: Tensor) -> None:
    expected = relprop.explain(modules(), x).relevance
    with torch.no_grad():
        torch.testing.assert_close(relprop.explain(modules(), x).relevance, expected)
    with torch.inference_mode():
        made_here = x.clone()
        torch.testing.assert_close(relprop.explain(modules(), made_here).relevance, expected)


def test_two_composites_do_not_know_of_each_other(x: Tensor) -> None:
    model = modules()
    alone = {rule: relprop.explain(model, x, rules=rule).relevance for rule in RULES}
    for rule in reversed(RULES):
        torch.testing.assert_close(
            relprop.explain(model, x, rules=rule).relevance, alone[rule], rtol=0, atol=0
        )


def test_runs_in_threads_do_not_know_of_each_other(x: Tensor) -> None:
    model = modules()
    expected = [relprop.explain(model, x, rules=rule).relevance for rule in RULES]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        for _ in range(5):
            found[i] = relprop.explain(model, x, rules=RULES[i]).relevance

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(RULES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, desired in enumerate(expected):
        torch.testing.assert_close(found[i], desired, rtol=1e-12, atol=1e-14)


def test_a_run_within_a_run(x: Tensor) -> None:
    inner_results = []

    class Curious(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inner_results.append(relprop.explain(modules(), images, rules=ZPlus()).relevance)
            return x

    images = x
    model = modules()
    model.insert(2, Curious().eval())
    outer = relprop.explain(model, x, rules=Epsilon(0.1))
    torch.testing.assert_close(outer.relevance, relprop.explain(modules(), x, rules=Epsilon(0.1)).relevance)
    torch.testing.assert_close(inner_results[0], relprop.explain(modules(), x, rules=ZPlus()).relevance)


def test_a_model_that_explains_a_value_of_its_own(x: Tensor) -> None:
    head = modules()

    class Weighted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            half = x / 2
            return head(half * relprop.explain(head, half, rules=ZPlus()).relevance)

    weights = relprop.explain(head, x / 2, rules=ZPlus()).relevance
    outer = relprop.explain(Weighted().eval(), x, rules=Epsilon(0.1))
    alike = relprop.explain(lambda x: head(x / 2 * weights), x, rules=Epsilon(0.1))
    torch.testing.assert_close(outer.relevance, alike.relevance)


def test_hooks_on_gradients_of_modules_are_not_called(x: Tensor) -> None:
    model, called = modules(), list[Any]()
    plain = relprop.explain(model, x, rules=Gamma(0.25)).relevance
    for module in model:
        module.register_full_backward_hook(lambda *arguments: called.append(arguments))
        module.register_full_backward_pre_hook(lambda *arguments: called.append(arguments))
    assert torch.equal(relprop.explain(model, x, rules=Gamma(0.25)).relevance, plain)
    assert not called


def test_parts_of_a_parameter_that_are_joined_are_of_parameters() -> None:
    weight = nn.Parameter(torch.randn(4))
    e = relprop.explain(
        lambda x: x + torch.cat([weight[:1], weight[1:]]), torch.randn(2, 4), target=0, rules=Epsilon()
    )
    assert set(e.ledger.absorbed) == {"parameters"}


def test_the_engine_without_explain(x: Tensor) -> None:
    model, leaf = modules(), x.clone().requires_grad_()
    with relprop.propagating([(First(), Gamma(0.25)), ("*", Epsilon(0.1))]) as run:
        (c,) = torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)
    expected = relprop.explain(model, x, target=3, rules=[(First(), Gamma(0.25)), ("*", Epsilon(0.1))])
    torch.testing.assert_close(c * x, expected.relevance)
    assert [str(a) for a in run.applied] == [str(a) for a in expected.rules]


def test_the_engines_ledger_says_what_sinks_took() -> None:
    model, leaf = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    with relprop.propagating(Epsilon(0.1)) as run:
        (c,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    total = (c * leaf).detach().sum(1) + sum(run.ledger.absorbed.values())
    torch.testing.assert_close(total, model(leaf)[:, 1].detach())
    assert "bias" in str(run.ledger)


def test_a_cast_to_what_a_tensor_is_already_is_the_tensor_itself() -> None:
    same = []

    def model(x: Tensor) -> Tensor:
        same.extend([x.to(x.dtype) is x, x.to("cpu") is x, x.to(x) is x, x.to(x.dtype, copy=True) is not x])
        same.append(x.to(torch.float32).dtype == torch.float32)
        return x * 2

    relprop.explain(model, torch.rand(1, 3, dtype=torch.float64), target=1, rules=Epsilon())
    assert same == [True] * 5


def test_what_tensors_say_of_themselves_is_true() -> None:
    linear, x = nn.Linear(6, 8).double().eval(), torch.randn(4, 6, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        h = linear(x)
        h.retain_grad()
        assert torch.is_tensor(h)
        assert isinstance(h, Tensor)
        assert torch.equal(torch.from_dlpack(h.detach()), torch.as_tensor(h.detach().numpy()))
        return h * 2 if h.requires_grad and not h.is_leaf else h

    e = relprop.explain(model, x, target=0)
    torch.testing.assert_close(e.output, 2 * linear(x), check_stride=False)


def test_the_output_does_not_keep_the_graph(x: Tensor) -> None:
    model = modules()
    e = relprop.explain(lambda x: {"logits": model(x), "more": (x, 3)}, x, target=lambda y: y["logits"][:, 0])
    assert not e.output["logits"].requires_grad
    assert not e.output["more"][0].requires_grad


def test_many_children_are_looked_up_once() -> None:
    layers = nn.Sequential(*[nn.Identity() for _ in range(3000)], nn.Linear(2, 2)).eval()
    assert relprop.explain(layers, torch.rand(1, 2)).rules[0].path == "3000"
