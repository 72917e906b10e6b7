"""Relevance of weights: what their connections carry."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from alike import near
from cases import CASES
from networks import DOUBLE, Unused, batch_norm, close, network, random_norm
from relprop.errors import InputError
from relprop.rules import Absolute, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

RULES = {
    "LRP-0": Epsilon(0),
    "ε": Epsilon(0.1),
    "ε rms": Epsilon(0.25, of="rms"),
    "γ": Gamma(0.25),
    "γ of 2019": Gamma(0.25, favour="positive"),
    "α2β1": AlphaBeta(2, 1),
    "z+": ZPlus(),
    "|z|": Absolute(),
    "zB": ZBox(-3, 3),
    "w²": WSquare(),
    "flat": Flat(),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_all_weights_carry_is_what_comes_to_the_input(rule: Any, case: str) -> None:
    for nonnegative in (True, False) if rule != RULES["γ of 2019"] else (True,):
        model, x = CASES[case].module(), CASES[case].input(nonnegative=nonnegative)
        if isinstance(rule, ZBox):
            x = x.clamp(-3, 3)
        target = torch.randn_like(model(x))
        e = relprop.explain(_Behind(nonnegative, model), x, target=target, rules=rule, parameters="*weight")
        assert list(e.parameters) == ["model.weight"]
        carried = e.parameters["model.weight"]
        assert carried.shape == model.weight.shape
        close(carried.sum(), e.relevance.sum())


class _Behind(nn.Module):
    """A model behind a ReLU, which says that no input is negative, or behind nothing."""

    def __init__(self, relu: bool, model: nn.Module) -> None:
        super().__init__()
        self.relu, self.model = relu, model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.relu() if self.relu else x)


def connections(rule: Any, x: Tensor, w: Tensor) -> Tensor:
    """Σ over samples of the contributions of each w_ij over their sum, times R_j = z_j: (in, out)."""
    contributions = x[:, :, None] * w
    z = contributions.sum(1, keepdim=True)
    P, N = contributions.clamp(min=0), contributions.clamp(max=0)
    if isinstance(rule, Gamma):
        favoured = torch.where(z > 0, P, N)
        shares = contributions + rule.gamma * favoured
        shares = shares / shares.sum(1, keepdim=True)
    elif isinstance(rule, AlphaBeta):
        up, down = P / P.sum(1, keepdim=True), N / N.sum(1, keepdim=True)
        shares = torch.where(up.isnan(), down, torch.where(down.isnan(), up, 2 * up - down))
    elif isinstance(rule, WSquare):
        shares = (w**2 / (w**2).sum(0)).expand_as(contributions)
    elif isinstance(rule, Flat):
        shares = torch.full_like(contributions, 1 / len(w))
    elif isinstance(rule, ZBox):
        shares = contributions + 3 * w.clamp(min=0) - 3 * w.clamp(max=0)
        shares = shares / shares.sum(1, keepdim=True)
    elif isinstance(rule, Absolute):
        shares = contributions.abs() / contributions.abs().sum(1, keepdim=True)
    else:
        shares = (P / P.sum(1, keepdim=True)).nan_to_num(0)  # lost where nothing is positive
    return (shares * z).sum(0)


@pytest.mark.parametrize(
    "rule", [Gamma(0.25), AlphaBeta(2, 1), ZPlus(), Absolute(), ZBox(-3, 3), WSquare(), Flat()]
)
@pytest.mark.parametrize("nonnegative", [True, False])
def test_each_weight_carries_what_the_formula_gives_its_connection(rule: Any, nonnegative: bool) -> None:
    layer = nn.Linear(6, 4, bias=False).double().eval()
    x = torch.randn(5, 6, **DOUBLE).clamp(-3, 3)
    x = x.relu() if nonnegative else x
    model = _Behind(nonnegative, layer)
    e = relprop.explain(model, x, target=torch.ones(5, 4, **DOUBLE), rules=rule, parameters="*")
    expected = connections(rule, x, layer.weight.detach().T).T
    close(e.parameters["model.weight"], expected)


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_lrp_0_of_a_network_without_biases_is_weight_times_gradient(cut: int) -> None:
    model = (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 2, groups=2, padding=1, bias=False),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(36, 5, bias=False),
        )
        .double()
        .eval()
    )
    x = torch.randn(3, 2, 6, 6, **DOUBLE)
    e = relprop.explain(model, x, target=2, rules=Epsilon(0), parameters=f"{cut}.weight")
    weight = model[cut].weight
    (gradient,) = torch.autograd.grad(model(x)[:, 2].sum(), weight)
    close(e.parameters[f"{cut}.weight"], (weight * gradient).detach())


@pytest.mark.parametrize("rules", [Gamma(0.25), Epsilon(0.01), AlphaBeta(2, 1), WSquare(), Flat(), ZPlus()])
def test_parameters_change_nothing_else(rules: Any) -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)
    plain = relprop.explain(model, x, target=1, rules=rules)
    e = relprop.explain(model, x, target=1, rules=rules, parameters="*.weight")
    close(e.relevance, plain.relevance)
    for sink, amount in plain.ledger.absorbed.items():
        torch.testing.assert_close(e.ledger.absorbed[sink], amount)
    assert all(p.grad is None for p in model.parameters())
    # Weights of linear operations, and not of batch norms, which are folded into them.
    assert set(e.parameters) == {f"{i}.weight" for i in ("0", "3", "6", "9.branch.0", "11", "15")}


@pytest.mark.parametrize("rules", [Gamma(0.25), AlphaBeta(2, 1), WSquare(), Flat(), ZPlus()])
def test_what_the_weights_of_a_layer_carry_is_what_comes_to_its_input(rules: Any) -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)
    e = relprop.explain(model, x, target=1, rules=rules, parameters="*.weight", record="*")
    # The layer, and the module in front of it.
    close(e.parameters["0.weight"].sum(), e.relevance.sum())  # batch norm behind
    for layer, before in (("3", "2"), ("6", "5"), ("11", "10"), ("15", "14")):  # batch norm before 11
        close(e.parameters[f"{layer}.weight"].sum(), e.inner[before].sum())


@pytest.mark.parametrize("rules", [Epsilon(0.01), Gamma(0.25), WSquare(), Flat()])
def test_a_batch_norm_is_part_of_the_weight_that_it_is_folded_into(rules: Any) -> None:
    conv, norm = nn.Conv2d(2, 3, 3).double(), batch_norm(3)
    x = torch.randn(2, 2, 4, 4, **DOUBLE)
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm)
    models = [nn.Sequential(conv, norm), nn.Sequential(folded)]
    maps = [
        relprop.explain(m.eval(), x, target=_all, rules=rules, parameters="0.weight").parameters["0.weight"]
        for m in models
    ]
    close(maps[0], maps[1])


def _all(output: Tensor) -> Tensor:
    return output.flatten(1).relu().sum(1)


def test_a_shared_weight_carries_what_all_its_uses_do() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.linear(x, self.linear.weight).relu()) + self.other(x)

    class Apart(Shared):
        def __init__(self, shared: Shared) -> None:
            super().__init__()
            self.first = copy.deepcopy(shared.linear)
            self.linear, self.other = copy.deepcopy(shared.linear), copy.deepcopy(shared.other)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.linear(x, self.first.weight).relu()) + self.other(x)

    shared, x = Shared().double().eval(), torch.randn(3, 4, **DOUBLE)
    one = relprop.explain(shared, x, target=1, rules=Gamma(0.25), parameters="*")
    two = relprop.explain(Apart(shared).double().eval(), x, target=1, rules=Gamma(0.25), parameters="*")
    close(one.parameters["linear.weight"], two.parameters["linear.weight"] + two.parameters["first.weight"])
    close(one.parameters["other.weight"], two.parameters["other.weight"])


def test_a_parameter_of_two_names_has_the_one_that_torch_gives_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).double().eval()
    model[2].weight = model[0].weight
    e = relprop.explain(model, torch.randn(2, 4, **DOUBLE), rules=Epsilon(), parameters="0.weight")
    assert list(e.parameters) == ["0.weight"]


def test_relevance_is_summed_over_the_samples() -> None:
    model, x = network(), torch.randn(2, 2, 6, 6, **DOUBLE)

    def carried(x: Tensor) -> Tensor:
        e = relprop.explain(model, x, target=1, rules=Gamma(0.25), parameters="3.weight")
        return e.parameters["3.weight"]

    close(carried(x), carried(x[:1]) + carried(x[1:]))


def test_a_weight_that_no_relevance_comes_to_carries_zero() -> None:
    e = relprop.explain(Unused().eval(), torch.randn(2, 4), rules=Epsilon(), parameters=["unused.weight"])
    assert torch.equal(e.parameters["unused.weight"], torch.zeros(2, 4))


def test_bias_is_never_the_relevance_of_a_weight() -> None:
    model, x = nn.Linear(4, 3).double().eval(), torch.randn(2, 4, **DOUBLE)
    for bias in ("absorb", "ignore", "distribute"):
        rule = Epsilon(0, bias=bias)
        e = relprop.explain(model, x, target=1, rules=rule, parameters="weight")
        z = model(x)[:, 1].detach()
        share = 1.0 if bias != "ignore" else z / (z - model.bias[1].detach())
        expected = (x * model.weight[1].detach() * torch.as_tensor(share).reshape(-1, 1)).sum(0)
        close(e.parameters["weight"][1], expected)
        assert not e.parameters["weight"][[0, 2]].any()


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line1, self.norm, self.spare = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(2, 2)
        self.tied = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(self.line1(x).relu()), self.tied.t())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("conv.weight", r"parameters='conv\.weight' matches no parameter of the model; near it are "),
        ("line2.weight", r"parameters='line2\.weight' matches no parameter of the model; near it are 'line1"),
        ("zz", r"parameters='zz' matches no parameter of the model; they are called tied, line1.weight, "),
        (
            "line1.bias",
            r"parameters='line1.bias': no linear operation takes line1.bias unchanged as its weight",
        ),
        (
            ["*.weight", "norm.*"],
            r"parameters='norm\.\*': no linear operation takes norm.weight, norm.bias unchanged",
        ),
        ("spare.*", r"parameters='spare\.\*': no linear operation takes spare.weight, spare.bias"),
        ("tied", r"parameters='tied': no linear operation takes tied unchanged as its weight"),
    ],
)
def test_parameters_that_carry_nothing_are_refused(names: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain(_Model().eval(), torch.randn(2, 4), rules=Epsilon(), parameters=names)


def test_functions_have_no_named_parameters() -> None:
    layer = nn.Linear(4, 3).eval()
    with pytest.raises(
        InputError, match=r"parameters='weight' matches no parameter.*a function has no named"
    ):
        relprop.explain(lambda x: layer(x), torch.randn(2, 4), rules=Epsilon(), parameters="weight")


def test_relevance_of_parameters_leaves_outputs_without_contributions_as_they_are() -> None:
    """Their z is the bias of a folded batch norm but for rounding."""
    first, layer, norm = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3, bias=False), random_norm(nn.BatchNorm2d(4))
    model = nn.Sequential(
        first, nn.ReLU(), layer, norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model.double().eval()
    with torch.no_grad():
        first.bias.fill_(-100)
    x, rule = torch.randn(2, 2, 6, 6, **DOUBLE), Epsilon(0, bias="ignore")
    plain = relprop.explain(model, x, target=1, rules=rule)
    traced = relprop.explain(model, x, target=1, rules=rule, parameters="*")
    for sink, amount in plain.ledger.absorbed.items():
        near(traced.ledger.absorbed[sink], amount)
