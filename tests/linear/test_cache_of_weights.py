"""Modified weights are kept as long as the weight, and the cache hinders nothing that torch does."""

import copy
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import relprop
from relprop.linear import weights
from relprop.rules import Flat

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RULES = ("epsilon", "epsilon-plus-flat", "alpha2-beta1", "epsilon-gamma-box")


def network() -> nn.Sequential:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    return nn.Sequential(*layers).eval()


def explained(model: nn.Module, rules: str, **options: object) -> relprop.Explanation:
    return relprop.explain(model, X, target=0, rules=rules, bounds=(-5, 5), **options)


@pytest.fixture
def swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def _swap(model: nn.Sequential) -> None:
    for layer in (model[0], model[4]):
        torch.utils.swap_tensors(layer.weight, nn.Parameter(layer.weight.detach() + 1))


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "double()": lambda model: model.double().float(),
    "load_state_dict": lambda model: model.load_state_dict(network().state_dict()),
    "swap_tensors": _swap,
}


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("change", CHANGES)
def test_torch_may_swap_weights_after_an_explanation(change: str, rules: str) -> None:
    model = network()
    kept = explained(model, rules, record="0", parameters="*.weight")
    CHANGES[change](model)
    fresh = network()
    fresh.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    assert torch.equal(explained(model, rules).relevance, explained(fresh, rules).relevance)
    assert kept.parameters


@pytest.mark.parametrize("how", ["parameter", "buffer", "part of a storage"])
def test_results_are_kept_until_the_weight_changes_and_go_with_it(how: str) -> None:
    whole = torch.randn(40)
    weight = {"part of a storage": whole[4:28].view(4, 6)}.get(how, torch.randn(4, 6))
    weight = weight if how == "buffer" else nn.Parameter(weight, requires_grad=False)
    first = weights.positive(weight)
    assert weights.positive(weight) is first
    weight[0, 0] = 7.0
    second = weights.positive(weight)
    assert second is not first
    assert float(second[0, 0]) == 7.0
    gone = weakref.ref(second.untyped_storage())
    del first, second, weight, whole
    gc.collect()
    assert gone() is None


def test_parameters_of_one_storage_have_results_of_their_own() -> None:
    flat = torch.randn(24)
    one, other = (nn.Parameter(part.view(3, 4), requires_grad=False) for part in flat.chunk(2))
    assert torch.equal(weights.absolute(one), one.abs())
    assert torch.equal(weights.absolute(other), other.abs())
    assert torch.equal(weights.absolute(nn.Parameter(one.data.t(), requires_grad=False)), one.abs().t())


def test_a_result_that_shares_the_storage_of_its_weight_is_not_kept() -> None:
    weight = nn.Parameter(torch.randn(3, 4))
    gone = weakref.ref(weight.untyped_storage())
    assert weights.modified(weight, "transposed", lambda w: w.t()).shape == (4, 3)
    del weight
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("convolution", [False, True])
def test_numbers_of_inputs_do_not_depend_on_the_default_type(dtype: torch.dtype, convolution: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = nn.Linear(70_001, 3) if not convolution else nn.Conv2d(2, 3, (17, 19))
    model.eval()
    x = torch.rand(1, 70_001) if not convolution else torch.rand(1, 2, 17, 19)

    def of_flat(of: nn.Module) -> torch.Tensor:
        return relprop.explain(of, x, rules=[("*", Flat())], target=lambda y: y.flatten(1)[:, 0]).relevance

    expected = of_flat(copy.deepcopy(model))
    torch.set_default_dtype(dtype)
    try:
        within = of_flat(model)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(within, expected)
    assert torch.equal(of_flat(model), expected)  # what is kept of the weight


def test_what_a_mode_makes_is_not_kept() -> None:
    class Wrapped(torch.Tensor):
        pass

    weight = nn.Parameter(torch.ones(2, 2))
    first = weights.modified(weight, "of a mode", lambda w: w.detach().as_subclass(Wrapped) * 1)
    assert type(first) is Wrapped
    assert type(weights.modified(weight, "of a mode", lambda w: w * 1)) is torch.Tensor
