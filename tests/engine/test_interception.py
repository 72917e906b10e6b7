"""The model is used as it is and left as it was; spellings agree; runs do not know of each other."""

import copy
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
from relprop import Epsilon, Flat, Gamma, WSquare, ZPlus

RULES = [
    Epsilon(0.1),
    Gamma(0.25),
    ZPlus(),
    relprop.AlphaBeta(2, 1),
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


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", [inplace, lambda: Functional().eval()])
def test_spellings_agree(spelling: Any, rule: Any, x: Tensor) -> None:
    expected = relprop.explain(modules(), x, rules=rule)
    found = relprop.explain(spelling(), x, rules=rule)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert expected.ledger.gap.max() < 1e-12
    assert found.ledger.gap.max() < 1e-12


def test_an_inplace_operation_keeps_its_meaning_for_other_names_of_the_tensor() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            z = self.linear(x)
            view = z.view(-1)
            view.relu_()
            return z  # has been through the ReLU, too

    model, x = Aliased().eval(), torch.randn(3, 4)
    e = relprop.explain(model, x, target=lambda y: y.sum(1), rules=Epsilon(0))
    torch.testing.assert_close(e.output, model(x))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    torch.testing.assert_close(e.relevance, gradient * x)


def test_a_reused_module_and_an_overwritten_input() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return self.linear(self.linear(x).relu_()).relu()

    model, x = Reused().double().eval(), torch.randn(3, 4, dtype=torch.float64)
    before = x.clone()
    e = relprop.explain(model, x, target=0, rules=Epsilon(1e-3))
    assert torch.equal(x, before)
    assert [a.path for a in e.rules] == ["linear", "linear"]
    assert e.ledger.gap.max() < 1e-12
    torch.testing.assert_close(e.output, model(x.clone()))


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


def test_what_is_written_without_gradient_over_something_relevant_is_a_constant() -> None:
    def model(x: Tensor) -> Tensor:
        buffer = torch.zeros(2, 4)
        buffer.copy_(x)
        with torch.no_grad():
            buffer[:, :2].copy_(x[:, :2])
        return x + buffer

    x = torch.rand(2, 4)
    for target, times in ((0, 1), (3, 2)):
        e = relprop.explain(model, x, target=target)
        assert torch.equal(e.relevance[:, target], times * x[:, target])
        assert e.ledger.gap.max() < 1e-6


def test_parts_of_a_parameter_that_are_joined_are_of_parameters() -> None:
    weight = nn.Parameter(torch.randn(4))
    e = relprop.explain(
        lambda x: x + torch.cat([weight[:1], weight[1:]]), torch.randn(2, 4), target=0, rules=Epsilon()
    )
    assert set(e.ledger.absorbed) == {"parameters"}


def test_changed_weights_are_noticed(x: Tensor) -> None:
    model = modules()
    relprop.explain(model, x, rules=ZPlus())
    with torch.no_grad():
        model[0].weight.mul_(-1)
    model[3].weight.data.neg_()  # counts no version
    fresh = copy.deepcopy(model)
    torch.testing.assert_close(
        relprop.explain(model, x, rules=ZPlus()).relevance, relprop.explain(fresh, x, rules=ZPlus()).relevance
    )


def test_the_engine_without_explain(x: Tensor) -> None:
    model, leaf = modules(), x.clone().requires_grad_()
    with relprop.propagating([("first", Gamma(0.25)), ("*", Epsilon(0.1))]) as run:
        (c,) = torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)
    expected = relprop.explain(model, x, target=3, rules=[("first", Gamma(0.25)), ("*", Epsilon(0.1))])
    torch.testing.assert_close(c * x, expected.relevance)
    assert [str(a) for a in run.applied] == [str(a) for a in expected.rules]


def test_the_engines_ledger_says_what_sinks_took() -> None:
    model, leaf = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    with relprop.propagating(Epsilon(0.1)) as run:
        (c,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    total = (c * leaf).detach().sum(1) + sum(run.ledger.absorbed.values())
    torch.testing.assert_close(total, model(leaf)[:, 1].detach())
    assert "bias" in str(run.ledger)


def test_several_inputs_are_explained_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, left: Tensor, right: Tensor, flag: bool, scale: float = 1.0) -> Tensor:
            assert flag
            return (self.a(left).relu() + self.b(right).relu()) * scale

    left, right = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    e = relprop.explain(Two().double().eval(), left, flag=True, right=right, scale=2.0, rules=ZPlus())
    assert isinstance(e.relevance, dict)
    assert {name: R.shape for name, R in e.relevance.items()} == {"left": left.shape, "right": right.shape}
    assert e.ledger.gap.max() < 1e-12


def test_a_model_that_mixes_its_samples_closes_for_the_batch() -> None:
    linear = nn.Linear(4, 4).double().eval()
    x = torch.randn(2, 4, 4, dtype=torch.float64)
    mixing = torch.tensor([[1.0, 0.5], [0.2, 1.0]], dtype=torch.float64)
    e = relprop.explain(lambda x: (mixing @ linear(x).flatten(1))[:, :3], x, target=1, rules=Epsilon(0.1))
    assert e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_books_are_each_samples_wherever_the_model_has_the_samples(order: tuple[int, ...]) -> None:
    linear, back = nn.Linear(4, 4).double().eval(), torch.tensor(order).argsort().tolist()
    x = torch.randn(2, 4, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        turned = x.permute(order)
        turned = linear(turned) if turned.shape[-1] == 4 else linear(turned.mT).mT
        return torch.relu(turned + 1).permute(back).sum(2)

    e = relprop.explain(model, x, target=1, rules=Epsilon(0.1))
    assert not e.ledger.mixed
    assert e.ledger.gap.max() < 1e-12
    for i in range(2):
        alone = relprop.explain(model, x[i : i + 1], target=1, rules=Epsilon(0.1)).ledger
        for sink, amount in alone.absorbed.items():
            torch.testing.assert_close(e.ledger.absorbed[sink][i : i + 1], amount)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), Flat()], ids=str)
def test_books_of_recurrent_modules_are_each_samples(kind: Any, rule: Any) -> None:
    recurrent = kind(4, 5, num_layers=2, bidirectional=True).double().eval()

    def model(x: Tensor) -> Tensor:
        states: Tensor = recurrent(x.transpose(0, 1))[0]
        return torch.stack([states[0], states[-1] * 2]).sum(0)

    x = torch.randn(3, 6, 4, dtype=torch.float64)
    together = relprop.explain(model, x, target=1, rules=rule)
    assert not together.ledger.mixed
    for i in range(len(x)):
        alone = relprop.explain(model, x[i : i + 1], target=1, rules=rule)
        torch.testing.assert_close(together.relevance[i : i + 1], alone.relevance)
        for sink, amount in alone.ledger.absorbed.items():
            torch.testing.assert_close(together.ledger.absorbed[sink][i : i + 1], amount)


class Lazy(nn.Module):
    """Makes a buffer in its first call and keeps it."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.first, self.second, self.make = nn.Linear(6, 8), nn.Linear(8, 5), make
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.kept is None:
            self.kept = self.make(h)
        return self.second((h + self.kept[:1, :].expand(len(x), -1)).relu())


@pytest.mark.parametrize(
    "make", [lambda h: torch.ones_like(h) * 0.3, lambda h: h.detach() * 2, lambda h: h * 2]
)
def test_what_a_model_keeps_of_a_run_is_a_tensor_like_others(make: Any) -> None:
    model, x = Lazy(make).double().eval(), torch.randn(4, 6, dtype=torch.float64)
    e = relprop.explain(model, x, target=0)
    torch.testing.assert_close(model(x), e.output)
    torch.testing.assert_close(copy.deepcopy(model)(x), e.output)
    assert model.kept is not None
    kept = model.kept
    for view in (kept.t(), kept.view(-1), kept[:, 1:], kept.unsqueeze(0), *kept.unbind(1), *kept.split(2)):
        assert float(view.sum()) == pytest.approx(float(view.clone().sum()))
    kept[0, 0] = 7
    assert float(kept[0, 0]) == 7
    again = relprop.explain(model, x, target=0)
    torch.testing.assert_close(model(x), again.output)


def test_a_cast_to_what_a_tensor_is_already_is_the_tensor_itself() -> None:
    same = []

    def model(x: Tensor) -> Tensor:
        same.extend([x.to(x.dtype) is x, x.to("cpu") is x, x.to(x) is x, x.to(x.dtype, copy=True) is not x])
        same.append(x.to(torch.float32).dtype == torch.float32)
        return x * 2

    relprop.explain(model, torch.rand(1, 3, dtype=torch.float64), target=1, rules=Epsilon())
    assert same == [True] * 5


def test_a_constant_of_a_shape_alone_is_a_bias_whoever_made_it() -> None:
    model, x = Lazy(lambda h: torch.ones_like(h[:1]) * 0.3).double().eval(), torch.randn(4, 6).double()
    first = relprop.explain(model, x, target=0, rules=ZPlus()).relevance
    model.kept = None
    model(x)
    torch.testing.assert_close(relprop.explain(model, x, target=0, rules=ZPlus()).relevance, first)


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


def test_an_output_that_is_a_buffer_of_the_model_keeps_its_values(x: Tensor) -> None:
    class Accumulating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sum", torch.zeros(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.sum.copy_(x * 2)  # type: ignore[operator, no-any-return]

    model, x = Accumulating().eval(), torch.randn(4, 6)
    e = relprop.explain(model, x, target=0)
    relprop.explain(model, x * 3, target=0)
    assert torch.equal(e.output, x * 2)


def test_the_output_does_not_keep_the_graph(x: Tensor) -> None:
    model = modules()
    e = relprop.explain(lambda x: {"logits": model(x), "more": (x, 3)}, x, target=lambda y: y["logits"][:, 0])
    assert not e.output["logits"].requires_grad
    assert not e.output["more"][0].requires_grad


@pytest.mark.parametrize("name", ["input"])
def test_an_inplace_call_with_keywords(name: str) -> None:
    x = torch.randn(2, 4, dtype=torch.float64)
    e = relprop.explain(lambda x: torch.relu_(**{name: x * 1.0}), x, target=1, rules=Epsilon(0))
    torch.testing.assert_close(e.score, x[:, 1].relu())
