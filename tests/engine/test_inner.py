"""Relevance of inner values, and relevance that starts from them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE, Several, Twice, Unused, close, network
from relprop.errors import InputError
from relprop.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus

RULES = {
    "ε": Epsilon(0.01),
    "γ": Gamma(0.25),
    "α2β1": AlphaBeta(2, 1),
    "z+": ZPlus(),
    "flat": Flat(),
    "w²": WSquare(),
    "ε, bias distributed": Epsilon(0.01, bias="distribute"),
    "preset with slots at the input": "epsilon-plus-flat",
    "flat in the middle": [("*3*", Flat()), ("*", Gamma(0.25))],
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_recording_never_changes_the_result(x: Tensor, rules: Any) -> None:
    model = network()
    plain = relprop.explain(model, x, target=1, rules=rules)
    recorded = relprop.explain(model, x, target=1, rules=rules, record="*")
    assert torch.equal(plain.relevance, recorded.relevance)
    assert torch.equal(plain.output, recorded.output)
    assert plain.ledger.absorbed.keys() == recorded.ledger.absorbed.keys()
    assert plain.inner == {}
    paths = {path for path, _ in model.named_modules()}
    assert set(recorded.inner) == paths


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_recorded_relevance_is_that_of_the_rest_of_the_network_as_a_network(x: Tensor, rules: Any) -> None:
    model = network()
    recorded = relprop.explain(model, x, target=1, rules=rules, record="*")
    # Not where an operation behind is folded into one before: 0, 1 (BatchNorm), 5 (ZeroPad2d), 10.
    for cut in (2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14):
        h = model[: cut + 1](x).detach()
        rest = model[cut + 1 :].eval()

        def again(value: Tensor, rest: Any = rest) -> Tensor:
            return rest(value)

        if rules in ("epsilon-plus-flat",):
            expected = relprop.explain(again, h, target=1, rules="epsilon-plus").relevance
        elif isinstance(rules, list):
            if cut < 3:
                continue
            expected = relprop.explain(again, h, target=1, rules=Gamma(0.25)).relevance
        else:
            expected = relprop.explain(again, h, target=1, rules=rules).relevance
        close(recorded.inner[str(cut)], expected)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("bias", [True, False])
def test_what_comes_to_each_module_and_what_was_absorbed_behind_it_is_the_score(
    rules: Any, bias: bool
) -> None:
    layers: list[nn.Module] = [
        nn.Conv2d(2, 4, 3, bias=bias),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, padding=1, bias=bias),
        nn.LeakyReLU(0.1),
        nn.SiLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 5, bias=bias),
    ]
    model, x = nn.Sequential(*layers).double().eval(), torch.rand(3, 2, 6, 6, **DOUBLE)
    e = relprop.explain(model, x, rules=rules, record="*", per_operation=True)
    assert e.ledger.gap.max() < 1e-12
    absorbed = torch.zeros(3, **DOUBLE)
    for number in reversed(range(len(layers))):
        close(e.inner[str(number)].flatten(1).sum(1) + absorbed, e.score)
        for (path, _), sinks in e.ledger.operations.items():
            absorbed = absorbed + (sum(sinks.values()) if path == str(number) else 0)
    if not bias and rules in (RULES["γ"], RULES["flat"], RULES["w²"], RULES["α2β1"]):
        assert (absorbed.abs() < 1e-10).all()  # nothing can have been


@pytest.mark.parametrize("rules", [Gamma(0.25), Flat()])
def test_relevance_crosses_a_folded_batch_norm_unchanged(x: Tensor, rules: Any) -> None:
    e = relprop.explain(network(), x, target=1, rules=rules, record=["0", "1", "2", "9.branch*"])
    close(e.inner["0"], e.inner["1"])
    close(e.inner["1"], e.inner["2"])
    close(e.inner["9.branch.1"], e.inner["9.branch"])
    close(e.inner["9.branch.0"], e.inner["9.branch.1"])
    assert e.inner["0"].abs().sum() > 0


def test_what_pointwise_modules_pass_on_is_all_of_it(x: Tensor) -> None:
    for rules in (Epsilon(0.01), Flat()):
        e = relprop.explain(network(), x, target=1, rules=rules, record="*")
        close(e.inner["4.sigmoid"], e.inner["4"])  # x·sigmoid(x) is one function of x
        close(e.inner["7"], e.inner["8"])
        assert e.inner["8"].abs().sum() > 0


def test_a_chain_of_pointwise_modules_is_counted_once(x: Tensor) -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tanh, self.conv = nn.Tanh(), nn.Conv2d(2, 3, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            h = self.tanh(x)
            return self.conv(h * h.sigmoid()).sum((2, 3))

    for rules in (Epsilon(0.01), Flat()):
        e = relprop.explain(Chain().eval(), x, target=1, rules=rules, record="tanh")
        close(e.inner["tanh"], e.relevance + 0)


def test_zeros_padded_by_a_module_get_nothing_and_the_rest_is_recorded(x: Tensor) -> None:
    e = relprop.explain(network(), x, target=1, rules=WSquare(), record=["4", "5"])
    close(e.inner["5"][..., 1:-1, 1:-1], e.inner["4"])
    close(e.inner["5"].sum(), e.inner["4"].sum())
    assert e.inner["4"].abs().sum() > 0


def test_modules_called_several_times_have_an_entry_for_each_call() -> None:
    model, x = Twice().double().eval(), torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(model, x, target=0, rules=Gamma(0.25), record="linear")
    first, second = e.inner.calls["linear"]
    h = model.linear(x).relu().detach()
    rest = relprop.explain(
        lambda h: model.head(model.linear(h).relu()), h, target=0, rules=Gamma(0.25), record="*"
    )
    close(first, rest.relevance)
    head = relprop.explain(model.head, model.linear(h).relu().detach(), target=0, rules=Gamma(0.25))
    close(second, head.relevance)
    assert len(e.inner.calls["linear"]) == 2


CONTAINERS: dict[str, tuple[Any, Any]] = {
    "tuple": (lambda a, b: (a, b), lambda o: torch.cat(o, 1)),
    "list": (lambda a, b: [a, b], lambda o: torch.cat(o, 1)),
    "dict": (lambda a, b: {"a": a, "n": 3, "b": b}, lambda o: torch.cat([o["a"], o["b"]], 1)),
    "OrderedDict": (lambda a, b: OrderedDict(a=a, b=b), lambda o: torch.cat([o["a"], o["b"]], 1)),
    "nested": (lambda a, b: (a, {"b": [b]}), lambda o: torch.cat([o[0], o[1]["b"][0]], 1)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_modules_that_return_several_tensors(container: str) -> None:
    model, x = Several(*CONTAINERS[container]).double().eval(), torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(model, x, target=0, rules=Epsilon(0.01), record="inner")
    assert isinstance(e.inner.calls["inner"][0], tuple)
    h = torch.cat([model.inner.a(x).relu(), model.inner.b(x).relu()], 1).detach()
    close(
        torch.cat(e.inner.calls["inner"][0], 1),
        relprop.explain(model.head, h, target=0, rules=Epsilon(0.01)).relevance,
    )
    # A condition is for each of them.
    some = relprop.explain(model, x, target=0, rules=Epsilon(0.01), conditions={"inner": 1})
    assert some.ledger.gap.max() < 1e-12
    close(some.ledger.absorbed["condition"], sum(R[:, [0, 2]].sum(1) for R in e.inner.calls["inner"][0]))


def test_functions_called_inside_of_a_recorded_module() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 3)
            self.block = _Block(self.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(x))

    class _Block(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.linear(x, self.weight), inplace=True)

    model, x = Functional().double().eval(), torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(model, x, target=0, rules=AlphaBeta(2, 1), record="block")
    h = F.linear(x, model.weight).relu().detach()
    close(e.inner["block"], relprop.explain(model.head, h, target=0, rules=AlphaBeta(2, 1)).relevance)


def test_a_recorded_value_that_nothing_comes_to_has_zeros() -> None:
    e = relprop.explain(Unused().double().eval(), torch.randn(2, 4, **DOUBLE), rules=Epsilon(), record="*")
    assert torch.equal(e.inner["unused"], torch.zeros(2, 2, **DOUBLE))
    assert e.inner[""].shape == (2, 3)


def test_modules_inside_of_a_checkpoint_count_once() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    model, x = Checkpointed().double().eval(), torch.randn(2, 4, **DOUBLE)
    plain = nn.Sequential(*model.body, model.head).eval()
    expected = relprop.explain(plain, x, target=0, rules=Gamma(0.25), record="*")
    e = relprop.explain(model, x, target=0, rules=Gamma(0.25), record=["body*", "head"])
    assert {path: len(calls) for path, calls in e.inner.calls.items()} == dict.fromkeys(e.inner, 1)
    close(e.relevance, expected.relevance)
    close(e.inner["body.0"], expected.inner["0"])
    close(e.inner["body"], expected.inner["1"])


def test_a_name_of_a_tensor_that_is_overwritten_later_has_what_was_written() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.name, self.head = nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            name = self.name(h)
            return self.head(h.relu_() + name)

    torch.manual_seed(0)
    model, x = Named().double().eval(), torch.randn(2, 4, **DOUBLE)
    e = relprop.explain(model, x, target=1, rules=Epsilon(0), record="name")
    assert torch.equal(e.output, model(x))
    assert e.ledger.gap.max() < 1e-12


# ---- start ----


@pytest.mark.parametrize("rules", [Epsilon(0.01), Gamma(0.25), Flat(), "epsilon-plus-flat"])
@pytest.mark.parametrize("cut", range(15))
def test_relevance_that_starts_from_an_inner_value_is_that_of_the_network_that_ends_there(
    x: Tensor, cut: int, rules: Any
) -> None:
    model = network()
    e = relprop.explain(model, x, target=1, rules=rules, start=str(cut))
    end = model[: cut + 1].eval()
    expected = relprop.explain(end, x, target=_channel(1), rules=rules)
    close(e.relevance, expected.relevance)
    close(e.score, expected.score)
    close(e.output, model(x))
    assert e.ledger.gap.max() < 1e-9


def _channel(index: int) -> Callable[[Tensor], Tensor]:
    return lambda y: y[:, index] if y.dim() == 2 else y[:, index].flatten(1).sum(1)


def test_an_inner_start_has_the_channels_that_count_most_by_default(x: Tensor) -> None:
    model = network()
    e = relprop.explain(model, x, rules=Epsilon(0.01), start="3")
    channels = model[:4](x).sum((2, 3)).argmax(1)
    assert e.target.tolist() == channels.tolist()
    by_function = relprop.explain(
        model, x, rules=Epsilon(0.01), start="3", target=lambda h: h[:, 2, 1, 1] - h[:, 0, 0, 0]
    )
    h = model[:4](x)
    close(by_function.score, h[:, 2, 1, 1] - h[:, 0, 0, 0])


def test_start_from_one_of_several_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.linear(x).relu_()).relu_()

    model, x = Twice().double().eval(), torch.randn(2, 4, **DOUBLE)

    def explained(start: Any) -> relprop.Explanation:
        return relprop.explain(model, x, target=2, rules=Epsilon(0), start=start)

    close(explained(("linear", 0)).score, model.linear(x)[:, 2])
    close(explained(("linear", 1)).score, model.linear(model.linear(x).relu())[:, 2])
    close(explained(("linear", -1)).score, model.linear(model.linear(x).relu())[:, 2])
    message = r"start='linear': the module was called 2 times\. .*\('linear', 0\)"
    with pytest.raises(InputError, match=message):
        explained("linear")
    with pytest.raises(InputError, match=r"start=\('linear', 2\): the module was called 2 times"):
        explained(("linear", 2))


def test_what_starts_at_a_recorded_module_is_recorded_there(x: Tensor) -> None:
    model = network()
    e = relprop.explain(model, x, target=1, rules=Epsilon(0), start="3", record=["3", "2", "6"])
    h = model[:4](x).detach()
    close(e.inner["3"], h * torch.tensor([0.0, 1, 0, 0], **DOUBLE)[:, None, None])
    assert e.inner["2"].abs().sum() > 0
    assert not e.inner["6"].any()
    held = relprop.explain(model, x, target=1, rules=Epsilon(0), start="3", conditions={"3": 2})
    close(held.ledger.absorbed["condition"], held.score)
    assert not held.relevance.any()


def test_a_softmax_at_the_end_is_no_matter_for_a_start_before_it(x: Tensor) -> None:
    model = nn.Sequential(network(), nn.Softmax(1)).eval()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", relprop.errors.ScoreWarning)
        relprop.explain(model, x, target=_largest, rules=Epsilon(), start="0")


def _largest(scores: Tensor) -> Tensor:
    return scores.amax(1)


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": "lin1"}, "record='lin1' matches no module that ran; near it are 'line1'"),
        (
            {"record": ["line1", "block.*"]},
            r"'block\.\*' matches no module that ran; the paths are 'line1', 'line2'",
        ),
        ({"start": "line"}, r"start='line' matches no module that ran; near it are 'line\d', 'line\d'"),
        ({"start": "line*"}, r"start='line\*' matches no module that ran; near it are 'line\d', 'line\d'"),
        ({"conditions": {"line3": 0}}, "conditions='line3' matches no module that ran; near it are"),
        ({"record": "unused"}, "record='unused' matches no module that ran"),
    ],
)
def test_paths_that_match_nothing_are_refused_and_near_ones_offered(
    options: dict[str, Any], message: str
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line1, self.line2, self.unused = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.line2(self.line1(x).relu())

    with pytest.raises(InputError, match=message):
        relprop.explain(Net().eval(), torch.randn(2, 4), rules=Epsilon(), **options)


def test_a_function_without_modules_has_no_paths() -> None:
    message = "record='conv' matches no module that ran; the model calls no modul"
    with pytest.raises(InputError, match=message):
        relprop.explain(lambda x: x * 2.0, torch.randn(2, 4), rules=Epsilon(), record="conv")


def test_an_explanation_says_what_was_recorded(x: Tensor) -> None:
    e = relprop.explain(network(), x, rules=Epsilon(), record=["3", "4"])
    with pytest.raises(
        InputError,
        match=r"explanation\.inner\['5'\]: recorded are '3', '4'\..*record=\['5'\]\)",
    ):
        e.inner["5"]
    with pytest.raises(InputError, match="nothing is recorded"):
        relprop.explain(network(), x, rules=Epsilon()).inner["5"]


# ---- sequences of vectors ----


class Sequences(nn.Module):
    """Transformer layers over tokens, and a convolution over them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.convolution, self.head = nn.Conv1d(8, 5, 3), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layer(self.embedding(ids))
        return self.head(self.convolution(x.mT).relu().mean(-1))


def test_channels_of_sequences_are_the_last_dimension() -> None:
    model, ids = Sequences().eval(), torch.randint(20, (2, 6))
    with torch.no_grad():
        hidden = model.layer(model.embedding(ids))
    e = relprop.explain(model, ids, start="layer", target=3)
    torch.testing.assert_close(e.score, hidden[:, :, 3].sum(1), rtol=1e-4, atol=1e-5)
    e = relprop.explain(model, ids, start="layer", target=relprop.targets.At(4, 3))
    torch.testing.assert_close(e.score, hidden[:, 4, 3], rtol=1e-4, atol=1e-5)
    e = relprop.explain(model, ids, conditions={"layer": [3]}, record="layer", target=0)
    assert e.inner["layer"][:, :, 3].abs().sum() > 0
    assert not e.inner["layer"][:, :, [0, 1, 2, 4, 5, 6, 7]].any()
    with pytest.raises(InputError, match=r"channel 8 is out of range; .* shape \(2, 6, 8\), channels 0 to 7"):
        relprop.explain(model, ids, conditions={"layer": [8]}, target=0)


def test_channels_of_convolutions_are_dimension_one() -> None:
    model, ids = Sequences().eval(), torch.randint(20, (2, 6))
    e = relprop.explain(model, ids, conditions={"convolution": [4]}, record="convolution", target=0)
    assert e.inner["convolution"].shape == (2, 5, 4)
    assert not e.inner["convolution"][:, :4].any()


class Overwriting(nn.Module):
    """Overwrites a part of what its first module returned, or makes the same without that."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.second, self.how = nn.Linear(4, 4), nn.Linear(4, 2), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.how == "in place":
            h[:, 0] = 0
            h.view(-1, 2, 2)[:, 1] *= 2
        elif self.how == "out of place":
            h = h * torch.tensor([0, 1, 2, 2], **DOUBLE)
        return self.second(h)


def test_a_value_that_is_overwritten_in_part_is_recorded_and_masked() -> None:
    x, found = torch.randn(3, 4, **DOUBLE), []
    for how in ("in place", "out of place"):
        torch.manual_seed(0)
        options: dict[str, Any] = {"record": "first", "conditions": {"first": [1, 2]}}
        found.append(relprop.explain(Overwriting(how).double().eval(), x, rules=Epsilon(0), **options))
    assert found[0].inner["first"].abs().amax(0).tolist()[0] == 0
    assert (found[0].inner["first"][:, [1, 2]] != 0).all()
    close(found[0].inner["first"], found[1].inner["first"])
    close(found[0].relevance, found[1].relevance)
