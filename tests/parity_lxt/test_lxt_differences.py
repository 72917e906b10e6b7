"""Where relprop and LXT differ on purpose: by how much, and why."""

from collections.abc import Callable
from dataclasses import replace

import lxt_parts as parts
import pytest
import torch
import torch.nn.functional as F
from comparing import relative_difference
from lxt_parts import by_explicit, by_gradient, by_relprop, functional, implicit, neuron, patches, row
from lxt_side import by_lxt, draw
from torch import Tensor, nn

from relprop.rules import Epsilon

Agree = Callable[[Tensor, Tensor], None]
ONE = row(1)
exactly = Epsilon(0)


def test_an_activation_at_zero(assert_agree: Agree) -> None:
    """f(x)/x is f'(0) there. LXT divides by x + 1e-10: it sends nothing on, and at x = -1e-10 infinity."""
    layer = neuron([1, -1])

    def lxt(x: Tensor) -> Tensor:
        return implicit.identity_rule_implicit(F.silu, layer(x))

    def plain(x: Tensor) -> Tensor:
        return F.silu(layer(x))

    at_zero = row(1, 1)
    (R,) = by_relprop(plain, at_zero, weights=ONE, rules=exactly)
    assert_agree(R, row(0.5, -0.5))
    assert by_gradient(lxt, at_zero, weights=ONE)[0].abs().max() == 0
    close = row(0, 1e-10)
    (R,) = by_relprop(plain, close, weights=ONE, rules=exactly)
    assert_agree(R, F.silu(row(0, -1e-10)))
    assert torch.isinf(by_gradient(lxt, close, weights=ONE)[0]).any()


def test_the_stabiliser_elsewhere() -> None:
    """It is an error of 1e-10/|x|, of the smallest |x| among all; other comparisons are made without it."""
    run = draw("llama")
    other = replace(run, order=run.order | {"stabilised": True})
    exact, stabilised = (result["relevance"] for result in by_lxt([run, other], "attnLRP"))
    assert 1e-12 < relative_difference(stabilised, exact) < 1e-5


@pytest.mark.parametrize("relevant", ["q", "k", "v", "qk", "qv", "kv"])
def test_constants_in_attention(relevant: str, assert_agree: Agree) -> None:
    """Queries that are learned, or an encoder's keys and values: LXT halves for them, and loses their parts.

    relprop halves where both factors depend on the input.
    """
    tensors = {name: torch.randn(2, 1, 5, 4, dtype=torch.float64) for name in "qkv"}
    weights = torch.randn(2, 1, 5, 4, dtype=torch.float64)

    def attend(*inputs: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(tensors | dict(zip(relevant, inputs, strict=True))).values())

    def lxt(*inputs: Tensor) -> Tensor:
        forward = patches.wrap_attention_forward(
            lambda module, *factors: F.scaled_dot_product_attention(*factors)
        )
        return forward(None, *(tensors | dict(zip(relevant, inputs, strict=True))).values())

    inputs = [tensors[name] for name in relevant]
    factors = {"q": 1, "k": 1, "v": 1, "qk": 1 / 2, "qv": 1 / 2, "kv": 1 / 2}
    found = by_relprop(attend, *inputs, weights=weights, rules="attnlrp")
    for name, R, reference, plain in zip(
        relevant,
        found,
        by_gradient(lxt, *inputs, weights=weights),
        by_gradient(attend, *inputs, weights=weights),
        strict=True,
    ):
        assert_agree(R, factors[relevant] * plain)
        assert_agree(reference, (1 / 2 if name == "v" else 1 / 4) * plain)


def test_softcapped_scores(assert_agree: Agree) -> None:
    """y = c·tanh(z/c) of a score z: relprop passes y on, as through other activations, LXT z·dy/dz."""
    cap = 5.0
    run = draw("gemma3", final_logit_softcapping=cap)
    explanation = run.by_relprop("attnlrp")
    reference = by_lxt([run], "attnLRP")[0]["relevance"]
    y = explanation.score[:, None, None]
    z = cap * torch.atanh(y / cap)
    assert relative_difference(explanation.relevance, reference) > 0.01
    assert_agree(explanation.relevance / (y / z), reference / (1 - (y / cap) ** 2))


def test_gpt2_that_reorders_attention() -> None:
    """The same attention by other calls, in single precision. LXT does not see it, and takes the gradient."""
    run = draw("gpt2", "eager", torch.float32)
    reordered = draw("gpt2", "eager", torch.float32, reorder_and_upcast_attn=True)
    reordered.model.load_state_dict(run.model.state_dict())
    reordered.inputs.update(run.inputs)
    found, found_reordered = (each.by_relprop("attnlrp").relevance for each in (run, reordered))
    reference, missed = (result["relevance"] for result in by_lxt([run, reordered], "attnLRP"))
    assert isinstance(found, Tensor)
    assert isinstance(found_reordered, Tensor)
    assert relative_difference(found, reference) < 2e-5
    assert relative_difference(found_reordered, found) < 2e-5
    assert relative_difference(missed, reference) > 0.1


def test_layer_norm_of_several_dimensions(assert_agree: Agree) -> None:
    """LXT's normalises the last one whatever the shape: the model's output changes."""
    norm = nn.LayerNorm((3, 4)).double().eval()
    x, weights = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    assert relative_difference(patches.layer_norm_forward(norm, x), norm(x)) > 0.1
    centred = x - x.mean((1, 2), keepdim=True)
    constant = (centred.pow(2).mean((1, 2), keepdim=True) + norm.eps).rsqrt()
    (R,) = by_relprop(norm, x, weights=weights, rules=exactly)
    assert_agree(
        R, by_gradient(lambda x: (x - x.mean((1, 2), keepdim=True)) * constant, x, weights=weights)[0]
    )


def test_explicit_stabilisers_have_no_sign(assert_agree: Agree) -> None:
    """z + ε has a pole at z = -ε, where ε·sgn(z) has none."""
    layer, x = neuron([1, -2]), row(1, 1)
    (R,) = by_relprop(layer, x, weights=ONE, rules=Epsilon(1.0))
    assert_agree(R, -row(1, -2) / (-1 - 1))

    def lxt(x: Tensor) -> Tensor:
        return functional.linear_epsilon(x, layer.weight, layer.bias, 1.0)

    assert not by_explicit(lxt, x, weights=ONE)[0].isfinite().any()
    assert_agree(
        by_explicit(lxt, -x, weights=ONE)[0], by_relprop(layer, -x, weights=ONE, rules=Epsilon(1.0))[0]
    )


def test_explicit_softmax_over_another_dimension(assert_agree: Agree) -> None:
    """LXT's backward sums over the last one, whatever dim says."""
    x, weights = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    (last,) = by_relprop(lambda x: torch.softmax(x, -1), x.mT.contiguous(), weights=weights.mT, rules=exactly)
    (R,) = by_relprop(lambda x: torch.softmax(x, 1), x, weights=weights, rules=exactly)
    (reference,) = by_explicit(lambda x: functional.softmax(x, 1), x, weights=weights)
    assert_agree(R, last.mT)
    assert relative_difference(reference, R) > 0.1


def test_explicit_product_with_a_constant_first(assert_agree: Agree) -> None:
    """LXT's general rule for products counts the gradients of relevant factors as if all factors had one."""
    constant, x, weights = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    with pytest.raises(IndexError):
        by_explicit(
            lambda x: parts.explicit.uniform_epsilon_lrp_fn.apply(torch.matmul, 0.0, constant, x),
            x,
            weights=weights,
        )
    (R,) = by_relprop(lambda x: constant @ x, x, weights=weights, rules=exactly)
    assert_agree(R, by_gradient(lambda x: constant @ x, x, weights=weights)[0])
