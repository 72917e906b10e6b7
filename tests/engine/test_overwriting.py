"""Models that do what one does not expect: overwrite, mask, mix, compile, keep tensors, compute gradients."""

import copy
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop import AlphaBeta, CoverageError, Epsilon, Flat, Gamma, WSquare, ZPlus

GAMMA = Gamma(0.25)


def linear(inputs: int = 6, outputs: int = 6) -> nn.Linear:
    return nn.Linear(inputs, outputs).double().eval()


def same(model: Any, other: Any, x: Tensor, rules: Any = GAMMA, **options: Any) -> relprop.Explanation:
    """Assert that two spellings of a model have the same relevance, and give the first's explanation."""
    found = relprop.explain(model, x, rules=rules, **options)
    expected = relprop.explain(other, x, rules=rules, **options)
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-10, atol=1e-12)
    assert found.ledger.gap.max() < 1e-10
    return found


@pytest.mark.parametrize("rules", ["epsilon-alpha2-beta1", "epsilon-plus"])
@pytest.mark.parametrize("seed", range(4))
def test_contributions_of_one_sign_beside_a_large_bias(seed: int, rules: str) -> None:
    """A depthwise convolution has few contributions: those of one sign are often none, up to rounding."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 3),
    ).eval()
    x = torch.rand(4, 1, 8, 8)
    single = relprop.explain(model, x, rules=rules, target=0)
    double = relprop.explain(model.double(), x.double(), rules=rules, target=0)
    assert single.ledger.gap.max() < 1e-3
    assert double.ledger.gap.max() < 1e-10
    error = (single.relevance - double.relevance).abs().max() / double.relevance.abs().max()
    assert error < 1e-2


def test_weights_overwritten_in_the_forward() -> None:
    A, B = torch.randn(6, 6, **DOUBLE), torch.randn(6, 6, **DOUBLE)
    a, b = torch.randn(6, **DOUBLE), torch.randn(6, **DOUBLE)
    weight, bias = torch.zeros(6, 6, **DOUBLE), torch.zeros(6, **DOUBLE)

    def streaming(x: Tensor) -> Tensor:
        weight.copy_(A)
        bias.copy_(a)
        h = F.linear(x, weight, bias).relu()
        weight.copy_(B)
        bias.copy_(b)
        return F.linear(h, weight, bias)

    x = torch.randn(3, 6, **DOUBLE)
    for rule in (Epsilon(0.1), Gamma(0.25), AlphaBeta(2, 1), ZPlus(bias="absorb")):
        same(streaming, lambda x: F.linear(F.linear(x, A, a).relu(), B, b), x, rule)


@pytest.mark.parametrize("value", [5.0, "part"])
@pytest.mark.parametrize("rule", [Epsilon(0.1), Flat()])
def test_an_assignment_takes_the_place_of_what_was_there(value: Any, rule: Any) -> None:
    layer = linear(4, 3)

    def assigning(x: Tensor) -> Tensor:
        h = x * 1.0
        h[:, 0] = x[:, 1] if value == "part" else value
        return layer(h)

    def joining(x: Tensor) -> Tensor:
        first = x[:, 1:2] if value == "part" else torch.full((2, 1), 5.0, **DOUBLE)
        return layer(torch.cat([first, x[:, 1:]], 1))

    e = same(assigning, joining, torch.randn(2, 4, **DOUBLE), rule)
    assert ("constant" in e.ledger.absorbed) == (value != "part")
    torch.testing.assert_close(e.relevance[:, 0], torch.zeros(2, **DOUBLE))


def test_writing_to_data_is_a_gap() -> None:
    def writing(x: Tensor) -> Tensor:
        h = x * 1.0
        h.data = torch.ones(2, 4)
        return h

    with pytest.raises(CoverageError, match=r"data in module .*writing to .data is out of relprop's sight"):
        relprop.explain(writing, torch.randn(2, 4))


def test_a_librarys_own_operator_is_not_taken_for_torchs() -> None:
    library = torch.library.Library("relprop_test", "DEF")
    library.define("relu(Tensor x) -> Tensor")
    library.impl("relu", lambda x: x.relu() ** 2, "CPU")
    with pytest.raises(CoverageError, match=r"relprop_test::relu in module"):
        relprop.explain(lambda x: torch.ops.relprop_test.relu(x), torch.randn(2, 4))
    library.define("squared(Tensor x) -> Tensor")
    library.impl("squared", lambda x: x.relu() ** 2, "CompositeImplicitAutograd")
    x = torch.rand(2, 4)
    e, expected = (
        relprop.explain(f, x, target=1) for f in (torch.ops.relprop_test.squared, lambda x: x.relu() ** 2)
    )
    torch.testing.assert_close(e.relevance, expected.relevance)
    e = relprop.explain(lambda x: torch.ops.aten.relu.default(x * 1.0), torch.ones(2, 4), target=1)
    torch.testing.assert_close(e.relevance.sum(1), torch.ones(2))


def test_a_masked_class_does_not_spoil_the_others() -> None:
    layer, mask = linear(4, 3), torch.tensor([0.0, 0.0, -torch.inf], **DOUBLE)
    x = torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(lambda x: layer(x) + mask, x, target=1, rules=Epsilon(0.1))
    expected = relprop.explain(layer, x, target=1, rules=Epsilon(0.1))
    torch.testing.assert_close(e.relevance, expected.relevance)
    assert e.ledger.gap.max() < 1e-12


def test_padding_with_minus_infinity_before_a_maximum() -> None:
    layer, x = linear(8, 3), torch.randn(2, 1, 8, **DOUBLE)

    def model(x: Tensor) -> Tensor:
        return layer(F.max_pool1d(F.pad(x, (1, 1), value=-torch.inf), 3, 1).flatten(1))

    same(model, lambda x: layer(F.max_pool1d(x, 3, 1, padding=1).flatten(1)), x, Epsilon(0.1))


def test_nan_weights_are_warned_of() -> None:
    layer = linear()
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.warns(
        UserWarning, match="the ledger does not close: nan .*look for NaN in the model's weights"
    ):
        relprop.explain(layer, torch.randn(2, 6, **DOUBLE), target=1, rules=Epsilon(0))


def test_relevance_on_zeros_of_a_difference() -> None:
    layer = linear(2, 2)
    x = torch.tensor([[-1.0, -2.0]], **DOUBLE)
    e = relprop.explain(lambda x: layer(x.relu() - x.flip(1).relu()), x, rules=Flat(), target=0)
    assert e.ledger.gap.max() < 1e-12
    torch.testing.assert_close(e.relevance.sum(1), e.score)


def test_channels_that_are_shuffled_as_views() -> None:
    layer, head = linear(6, 8), linear(8, 3)

    def by_views(x: Tensor) -> Tensor:
        h = torch.cat([layer(x).relu(), layer(x).relu()], 1)[:, :8]
        return head(h.view(-1, 2, 4).transpose(1, 2).contiguous().view(-1, 8))

    def by_index(x: Tensor) -> Tensor:
        return head(layer(x).relu()[:, torch.arange(8).reshape(2, 4).T.flatten()])

    same(by_views, by_index, torch.randn(3, 6, **DOUBLE), Flat())


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25)])
def test_a_relu_on_a_part_of_an_output(rule: Any) -> None:
    layer, head = linear(6, 4), linear(4, 3)

    def in_place(x: Tensor) -> Tensor:
        z = layer(x)
        z[:, 1:3].relu_()
        return head(z)

    def joining(x: Tensor) -> Tensor:
        z = layer(x)
        return head(torch.cat([z[:, :1], z[:, 1:3].relu(), z[:, 3:]], 1))

    same(in_place, joining, torch.randn(3, 6, **DOUBLE), rule)


def test_relevance_on_zeros_behind_an_accepted_operation() -> None:
    layer = linear(6, 3)

    def model(x: Tensor) -> Tensor:
        return layer(x.relu() + x.relu().mode(1, keepdim=True).values)

    e = relprop.explain(model, torch.rand(2, 6, **DOUBLE) + 0.1, rules=Flat(), accept=["mode"])
    assert e.ledger.gap.max() < 1e-10


def test_a_gradient_inside_the_model_is_a_gap() -> None:
    layer = linear()

    def model(x: Tensor) -> Tensor:
        h = layer(x)
        (g,) = torch.autograd.grad(h[:, 0].sum(), h, retain_graph=True)
        return h + 0.1 * g

    with pytest.raises(CoverageError, match=r"grad in module .*a gradient of its own"):
        relprop.explain(model, torch.randn(2, 6, **DOUBLE))


def test_what_was_computed_before_the_run_is_constant() -> None:
    generator, layer = linear(3, 6), linear()
    x = generator(torch.randn(2, 3, **DOUBLE))  # has a history
    scale = generator.weight.abs().sum()
    same(lambda x: layer(x) * scale, lambda x: layer(x) * scale.detach(), x)
    assert x.requires_grad


def test_a_model_explained_while_it_keeps_tensors_of_the_last_run() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()
            self.last: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            result = h if self.last is None else h + self.last
            self.last = h
            return result

    model, x = Stateful().eval(), torch.randn(2, 6, **DOUBLE)
    relprop.explain(model, x)
    e = relprop.explain(model, x)
    assert e.ledger.gap.max() < 1e-10


def test_a_buffer_that_the_model_writes_to_is_left_without_a_graph() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()
            self.register_buffer("memory", torch.zeros(2, 6, **DOUBLE))

        def forward(self, x: Tensor) -> Tensor:
            self.memory.mul_(0.5).add_(self.layer(x))
            return self.memory.clone()

    model, x = Memory().eval(), torch.randn(2, 6, **DOUBLE)
    for _ in range(2):
        e = relprop.explain(model, x, rules=Epsilon(0.1))
        assert e.ledger.gap.max() < 1e-10
    assert not model.memory.requires_grad
    copy.deepcopy(model)


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(6, 6), nn.PReLU(), nn.Linear(6, 3)).double().eval()
        scale = torch.rand(6, **DOUBLE)
    x = torch.randn(2, 6, **DOUBLE)
    before = relprop.explain(lambda x: model(x * scale), x, rules=ZPlus(), target=0)
    assert before.ledger.gap.max() < 1e-10
    with torch.inference_mode():
        model[2].weight[0, 1] += 50  # counts no version
    after = relprop.explain(lambda x: model(x * scale), x, rules=ZPlus(), target=0)
    fresh = copy.deepcopy(model)
    torch.testing.assert_close(
        after.relevance, relprop.explain(lambda x: fresh(x * scale), x, rules=ZPlus(), target=0).relevance
    )


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), AlphaBeta(2, 1), Flat(), WSquare()])
def test_autocast_inside_the_model(rule: Any) -> None:
    inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

    def model(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return inner(x)

    x = torch.rand(2, 6)
    rough = relprop.explain(model, x, target=1, rules=rule)
    exact = relprop.explain(inner, x, target=1, rules=rule)
    assert (rough.relevance - exact.relevance).abs().max() < 0.1 * exact.relevance.abs().max()


def test_a_compiled_model() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 6, **DOUBLE)
    compiled(x)
    e = same(compiled, model, x)
    assert [a.path for a in e.rules] == ["0", "2"]


@pytest.mark.filterwarnings("ignore:Using `torch.compile\\(module\\)` when there are global hooks")
def test_a_compiled_part_of_a_model() -> None:
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU()).double()
    model = nn.Sequential(inner, nn.Linear(6, 3).double()).eval()
    compiled = nn.Sequential(torch.compile(inner, backend="eager"), model[1]).eval()
    x = torch.randn(2, 6, **DOUBLE)
    compiled(x)
    e = same(compiled, model, x)
    assert [a.path for a in e.rules] == ["0.0", "1"]


def test_a_checkpointed_model() -> None:
    from torch.utils.checkpoint import checkpoint

    layer, other = linear(), linear(6, 3)
    x = torch.randn(2, 6, **DOUBLE)
    e = same(
        lambda x: other(checkpoint(lambda h: layer(h).relu(), x, use_reentrant=False)),
        lambda x: other(layer(x).relu()),
        x,
    )
    assert len(e.rules) == 2


def test_a_pointwise_function_in_several_calls_within_a_checkpoint() -> None:
    from torch.utils.checkpoint import checkpoint

    def hard_swish(z: torch.Tensor) -> torch.Tensor:
        return z * (F.relu6(z + 3) / 6)

    layer, other = linear(), linear(6, 3)
    same(
        lambda x: other(checkpoint(lambda h: hard_swish(layer(h)), x, use_reentrant=False)),
        lambda x: other(hard_swish(layer(x))),
        torch.randn(2, 6, **DOUBLE),
    )


@pytest.mark.parametrize(
    "spelling",
    [
        lambda x, w, b: F.dropout(x @ w, training=False) + b,
        lambda x, w, b: (x @ w).contiguous() + b,
        lambda x, w, b: torch.add(b, x @ w),
        lambda x, w, b: (x @ w).add_(b),
    ],
)
@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(bias="absorb")])
def test_a_bias_is_a_bias_however_it_is_added(spelling: Any, rule: Any) -> None:
    w, b = torch.randn(6, 3, **DOUBLE), torch.randn(3, **DOUBLE)
    same(lambda x: spelling(x, w, b), lambda x: F.linear(x, w.T, b), torch.randn(2, 6, **DOUBLE), rule)


def test_a_constant_of_integers_among_parts() -> None:
    e = relprop.explain(
        lambda x: torch.cat([x, torch.ones(2, 1, dtype=torch.int64)], 1), torch.rand(2, 3), target=3
    )
    torch.testing.assert_close(e.ledger.absorbed["constant"], torch.ones(2, **DOUBLE))


@pytest.mark.parametrize(("function", "slope"), [(torch.sigmoid, 0.25), (F.softplus, 0.5)])
@pytest.mark.parametrize("x", [1e-3, 1e-5, 1e-7, 1e-9])
def test_the_slope_of_a_function_that_is_not_zero_at_zero(function: Any, slope: float, x: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float32, 1e-2), (torch.bfloat16, 2e-1)):
        leaf = torch.tensor([[x]], dtype=dtype, requires_grad=True)
        with relprop.propagating(Epsilon(0)):
            (c,) = torch.autograd.grad(function(leaf).sum(), leaf)
        assert abs(float(c) - slope) < tolerance * slope


@pytest.mark.parametrize("scale", [1e-19, 1.0, 1e25])
def test_w_square_of_weights_of_any_size(scale: float) -> None:
    layer = nn.Linear(6, 3, bias=False).eval()
    x = torch.rand(2, 6)
    expected = relprop.explain(layer, x, target=torch.ones(3), rules=WSquare())
    with torch.no_grad():
        layer.weight.mul_(scale)
    found = relprop.explain(layer, x, target=torch.ones(3) / scale, rules=WSquare())
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-6)


def test_samples_mixed_by_a_mean_close_for_the_batch() -> None:
    layer = linear()
    e = relprop.explain(
        lambda x: layer(x - x.mean(0, keepdim=True)), torch.randn(3, 6, **DOUBLE), rules=Epsilon(0)
    )
    assert e.ledger.mixed
    assert e.ledger.gap.max() < 1e-10


def test_many_children_are_looked_up_once() -> None:
    layers = nn.Sequential(*[nn.Identity() for _ in range(3000)], nn.Linear(2, 2)).eval()
    assert relprop.explain(layers, torch.rand(1, 2)).rules[0].path == "3000"


def test_relevance_made_in_another_thread_is_followed() -> None:
    a, b = linear(), linear()
    for _ in range(50):  # autograd numbers its nodes thread by thread
        torch.rand(2, requires_grad=True) * 2

    def model(x: Tensor) -> Tensor:
        made: list[Tensor] = []
        thread = threading.Thread(target=lambda: made.append(b(x).relu()))
        thread.start()
        thread.join()
        return a(x) + made[0]

    x = torch.randn(2, 6, **DOUBLE)
    same(model, lambda x: a(x) + b(x).relu(), x)


def test_what_was_computed_before_is_constant_in_every_thread() -> None:
    layer, scale = linear(), linear().weight.abs().sum()
    x = torch.randn(2, 6, **DOUBLE)
    found: list[relprop.Explanation] = []
    thread = threading.Thread(target=lambda: found.append(relprop.explain(lambda x: layer(x) * scale, x)))
    thread.start()
    thread.join()
    assert found[0].ledger.gap.max() < 1e-12


class Writing(nn.Module):
    """Accumulates into something that is not a buffer."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.layer, self.state = linear(3, 3), state

    def forward(self, x: Tensor) -> Tensor:
        self.state.mul_(0).add_(x)
        return self.layer(self.state * 1.0 + x)


def test_a_parameter_without_gradient_that_is_written_to() -> None:
    x = torch.randn(2, 3, **DOUBLE)
    model = Writing(nn.Parameter(torch.ones(2, 3, **DOUBLE), requires_grad=False)).eval()
    same(model, lambda x: model.layer(x * 1.0 + x), x)
    assert not model.state.requires_grad


@pytest.mark.parametrize("kind", ["parameter", "computed"])
def test_a_trainable_parameter_that_is_written_to_is_a_gap_and_stays_as_it_is(kind: str) -> None:
    parameter = nn.Parameter(torch.ones(2, 3, **DOUBLE))
    model = Writing(parameter if kind == "parameter" else parameter * 2).eval()
    model.forward = lambda x: model.layer(model.state.add_(x) * 1.0)  # type: ignore[method-assign]
    before = model.state.detach().clone()
    with pytest.raises(
        CoverageError, match=r"add in module .*it writes to a parameter, or to what was computed of one"
    ):
        relprop.explain(model, torch.randn(2, 3, **DOUBLE))
    assert torch.equal(model.state, before)


@pytest.mark.parametrize("rule", [Gamma(0.25), ZPlus(bias="absorb"), AlphaBeta(2, 1, bias="absorb")])
def test_weight_and_bias_overwritten_before_another_bias_is_added(rule: Any) -> None:
    W, b, c = torch.randn(6, 3, **DOUBLE), torch.randn(3, **DOUBLE), torch.randn(3, **DOUBLE)
    weight, bias = torch.zeros(6, 3, **DOUBLE), torch.zeros(3, **DOUBLE)

    def streaming(x: Tensor) -> Tensor:
        weight.copy_(W)
        bias.copy_(b)
        z = torch.addmm(bias, x, weight)
        weight.zero_()
        bias.zero_()
        return z + c

    same(streaming, lambda x: torch.addmm(b + c, x, W), torch.randn(2, 6, **DOUBLE), rule)


def test_autocast_rounds_no_contributions_into_being() -> None:
    first, last = nn.Linear(64, 64, bias=False).eval(), nn.Linear(64, 3).eval()
    with torch.no_grad():
        first.weight.abs_()

    def model(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return last(first(x).relu())

    assert relprop.explain(model, torch.rand(4, 64), target=1, rules=AlphaBeta(2, 1)).ledger.gap.max() < 1e-2


def test_a_buffer_that_the_model_writes_to_through_a_view() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(3, 3)
            self.register_buffer("memory", torch.zeros(2, 2, 3, **DOUBLE))

        def forward(self, x: Tensor) -> Tensor:
            self.memory.zero_()
            view = self.memory[0]
            view.add_(x)
            return self.layer(view * 1.0)

    model, x = Memory().eval(), torch.randn(2, 3, **DOUBLE)
    for _ in range(2):
        same(model, lambda x: model.layer(x), x)
    assert not model.memory.requires_grad


def test_a_dropout_in_place_between_a_product_and_its_bias() -> None:
    w, b = torch.randn(6, 3, **DOUBLE), torch.randn(3, **DOUBLE)
    same(
        lambda x: F.dropout(x @ w, training=False, inplace=True) + b,
        lambda x: F.linear(x, w.T, b),
        torch.randn(2, 6, **DOUBLE),
        ZPlus(bias="distribute"),
    )


def test_constants_and_masks_that_are_used_again() -> None:
    layer, constant = linear(4, 3), torch.ones(2, 1, **DOUBLE)
    mask = torch.tensor([[True, False, False, True]])

    def model(x: Tensor) -> Tensor:
        constant.fill_(2.0)
        y = torch.cat([x, constant], 1) + constant
        constant.zero_()
        used = mask.clone()
        y = y.masked_fill(used, 0.7)
        used.fill_(False)
        return layer(y)

    assert relprop.explain(model, torch.randn(2, 3, **DOUBLE), rules=Epsilon(0.1)).ledger.gap.max() < 1e-12


def test_masked_fill_with_a_relevant_value_is_a_gap() -> None:
    with pytest.raises(CoverageError, match=r"masked_fill in module .*the value depends on the input"):
        relprop.explain(lambda x: x.masked_fill(x > 0, x.sum()), torch.randn(2, 3))


@pytest.mark.filterwarnings("ignore:.*below the resolution")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_epsilon_too_small_for_its_type_loses_nothing_unseen(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2).to(dtype).eval()
    rules = [("1", Flat()), ("*", Epsilon(1e-7 if dtype == torch.float16 else 1e-33, bias="ignore"))]
    model = nn.Sequential(layer, nn.Linear(2, 2).to(dtype)).eval()
    e = relprop.explain(model, torch.zeros(1, 3, dtype=dtype), target=0, rules=rules)
    assert e.relevance.isfinite().all()
    assert e.ledger.gap.max() < 2e-2


def test_a_write_through_data_beside_the_first_column_is_noticed() -> None:
    layer, x = nn.Linear(1024, 1024, bias=False).eval(), torch.rand(1, 1024)
    before = relprop.explain(layer, x, target=torch.ones(1024), rules=ZPlus()).relevance
    layer.weight.data[:, 1:] *= -1
    after = relprop.explain(layer, x, target=torch.ones(1024), rules=ZPlus()).relevance
    fresh = relprop.explain(copy.deepcopy(layer), x, target=torch.ones(1024), rules=ZPlus()).relevance
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, fresh)
