"""Weights of tensor classes without memory of their own: explained as the network with the plain weights."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop.calls.nested import map_leaves
from relprop.errors import CoverageError, ModelError

DOUBLE = torch.float64


class Codes(Tensor):
    """A weight of 8-bit codes and one scale for each row. Its own product rounds, as a kernel might."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> "Codes":
        made: Codes = torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)
        made.codes, made.scale = codes, scale
        return made

    @classmethod
    def of(cls, weight: Tensor) -> "Codes":
        """Quantise a weight."""
        scale = weight.flatten(1).abs().amax(1).reshape(-1, *[1] * (weight.dim() - 1)) / 127
        return cls((weight / scale).round().to(torch.int8), scale)

    def values(self) -> Tensor:
        """The weight that the codes stand for."""
        return self.codes * self.scale

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and type(args[1]) is cls:
            x, weight, *bias = args
            return F.linear(x.detach().round(decimals=2), weight.values(), *bias)
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].codes, args[0].scale)
        return func(*map_leaves(_plain, args), **map_leaves(_plain, kwargs or {}))


class Quantised(Codes):
    """Codes that tell their values."""

    def dequantize(self) -> Tensor:
        return self.values()


def _plain(value: Any) -> Any:
    return value.values() if isinstance(value, Codes) else value


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 5)
    ).to(DOUBLE)


def quantised(kind: type[Codes] = Quantised) -> tuple[nn.Sequential, nn.Sequential]:
    """A network with such weights, and the same with the plain weights that they stand for."""
    model = network().eval()
    for layer in model:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight = nn.Parameter(kind.of(layer.weight.detach()), requires_grad=False)
    plain = network().eval()
    for layer, other in zip(plain, model, strict=True):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight: Any = other.weight
            layer.weight = nn.Parameter(weight.values())
    return model, plain


OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)
PICTURES = torch.randn(2, 3, 6, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "rules", ["epsilon-plus-flat", "epsilon-gamma-flat", "epsilon-alpha2-beta1-flat", "attnlrp"]
)
def test_as_with_the_plain_weights(rules: str) -> None:
    model, plain = quantised()
    found = relprop.explain(model, PICTURES, target=2, rules=rules)
    expected = relprop.explain(plain, PICTURES, target=2, rules=rules)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-12, atol=0)
    assert found.ledger.absorbed.keys() == expected.ledger.absorbed.keys()
    assert type(model[3].weight) is Quantised


def test_in_a_function_in_blocks_that_run_again_and_by_coverage() -> None:
    model, plain = quantised()
    expected = relprop.explain(plain, PICTURES, target=2)
    found = relprop.explain(lambda x: model(x) * 1.0, PICTURES, target=2)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-12, atol=0)
    again = relprop.explain(model, PICTURES, target=2, checkpoint=["0", "3"])
    torch.testing.assert_close(again.relevance, expected.relevance, rtol=1e-12, atol=0)
    assert str(relprop.coverage(model, PICTURES)) == str(relprop.coverage(plain, PICTURES))


def test_relevance_of_the_weights_themselves() -> None:
    model, plain = quantised()
    found = relprop.explain(model, PICTURES, target=2, parameters="*.weight").parameters
    expected = relprop.explain(plain, PICTURES, target=2, parameters="*.weight").parameters
    assert list(found) == list(expected) == ["0.weight", "3.weight", "5.weight"]
    for name, relevance in found.items():
        torch.testing.assert_close(relevance, expected[name], rtol=1e-12, atol=0)


def test_the_weight_of_no_module() -> None:
    """A class whose functions are those of torch, called with its weight by a function."""

    class AsTorch(Quantised):
        __torch_function__ = torch._C._disabled_torch_function_impl

    weight = AsTorch.of(torch.randn(4, 6, dtype=DOUBLE))
    x = torch.randn(2, 6, dtype=DOUBLE)
    found = relprop.explain(lambda x: F.linear(x, weight), x, target=1)
    expected = relprop.explain(lambda x: F.linear(x, weight.values()), x, target=1)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-12, atol=0)


def test_a_class_that_does_not_tell_its_values() -> None:
    class Silent(Codes):
        __torch_function__ = torch._C._disabled_torch_function_impl

    class Told(Silent):
        def dequantize(self) -> Tensor:
            return self.values()

    model, plain = quantised(Silent)
    with pytest.raises(
        CoverageError,
        match=re.escape("conv2d in module '0'")
        + ".*"
        + re.escape(
            "a weight is a Silent, a class of tensors without dequantize() and full_tensor(), so its values "
            "are not known; give the class a method dequantize() that returns a plain tensor, or explain a "
            "copy of the model with plain weights"
        ),
    ):
        relprop.explain(model, PICTURES, target=2)
    relprop.explain(plain, PICTURES, target=2)
    relprop.explain(quantised(Told)[0], PICTURES, target=2)


def test_nothing_is_left_behind() -> None:
    model, _ = quantised()
    before = model(PICTURES)
    relprop.explain(model, PICTURES, target=2)
    assert torch.overrides._get_current_function_mode_stack() == []  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError):
        relprop.explain(model, PICTURES[:, :2], target=2)
    assert torch.overrides._get_current_function_mode_stack() == []  # type: ignore[no-untyped-call]
    assert model(PICTURES).equal(before)


# ---- weights that are distributed over processes ----


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    """A group of this process alone."""
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield distributed.device_mesh.init_device_mesh("cpu", (1,))
    finally:
        distributed.destroy_process_group()


def distribute(model: nn.Module, mesh: Any) -> nn.Module:
    tensor = pytest.importorskip("torch.distributed.tensor")
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            shared = tensor.distribute_tensor(parameter.detach(), mesh, [tensor.Shard(0)])
            module.register_parameter(name, nn.Parameter(shared))
    return model


@pytest.mark.filterwarnings("ignore:DTensor random operators may not")  # of torch 2.6
def test_distributed_weights(mesh: Any) -> None:
    """A model that torch does not run on a plain tensor: relprop gives it the whole weights."""
    model = distribute(network().eval(), mesh)
    with pytest.raises(RuntimeError, match="mixed torch"):
        model(PICTURES)
    found = relprop.explain(model, PICTURES, target=2, parameters="3.weight")
    expected = relprop.explain(network().eval(), PICTURES, target=2, parameters="3.weight")
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        found.parameters["3.weight"], expected.parameters["3.weight"], rtol=1e-12, atol=0
    )


@pytest.mark.skipif(OLD, reason="before version 2.7 torch has no fully sharded modules on the CPU")
def test_fully_sharded(mesh: Any) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    model = network().eval()
    fsdp.fully_shard(model, mesh=mesh)
    found = relprop.explain(model, PICTURES, target=2).relevance
    assert found.equal(relprop.explain(network().eval(), PICTURES, target=2).relevance)


@pytest.mark.filterwarnings("ignore:DTensor random operators may not")  # of torch 2.6
def test_distributed_activations_are_refused_with_a_remedy_that_works(mesh: Any) -> None:
    parallel = pytest.importorskip("torch.distributed.tensor.parallel")

    def dense() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

    plan = {"0": parallel.ColwiseParallel(), "2": parallel.RowwiseParallel()}
    model, x = parallel.parallelize_module(deepcopy(dense()), mesh, plan), torch.rand(2, 6)
    with pytest.raises(ModelError) as error:
        relprop.explain(model, x, target=1)
    advice = (
        "Parameters such as '0.weight' are distributed, and so is what the model computes with them. Explain "
        "a model on one process with the whole weights: plain.load_state_dict({name: t.full_tensor() if "
        "hasattr(t, 'full_tensor') else t for name, t in model.state_dict().items()})."
    )
    assert str(error.value).endswith(advice)
    plain = dense()
    exec(advice[advice.index("plain.load") :].rstrip("."), {"plain": plain, "model": model})
    assert relprop.explain(plain, x, target=1).relevance.any()
