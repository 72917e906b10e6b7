"""zennit's side of a comparison: how it is run, and hooks of its own parts that do what relprop does."""

import torch
from comparing import require
from torch import Tensor, nn

require("zennit", "1.0.0")

from torchvision_shim import import_torchvision  # noqa: E402

import_torchvision()

from zennit.canonizers import Canonizer  # noqa: E402
from zennit.composites import LayerMapComposite, layer_map_base  # noqa: E402
from zennit.core import BasicHook, Composite, Hook  # noqa: E402
from zennit.rules import AlphaBeta, Gamma, NoMod, Norm  # noqa: E402
from zennit.types import Linear  # noqa: E402


def exactly(denominator: Tensor) -> Tensor:
    """A stabiliser that changes no denominator but zero, as relprop divides."""
    return torch.where(denominator == 0, 1.0, denominator)


def relevance(model: nn.Module, x: Tensor, composite: Composite, coefficients: Tensor) -> Tensor:
    """Relevance of the input, started from coefficients·output."""
    x = x.clone().requires_grad_()
    with composite.context(model) as modified:
        output = modified(x)
        (R,) = torch.autograd.grad(output, x, coefficients * output.detach())
    return R


def everywhere(
    hook: Hook, *special: tuple[type[nn.Module], Hook], canonizers: list[Canonizer] | None = None
) -> Composite:
    """The hook for all linear layers, with the base that zennit's own composites have, exactly stabilised."""
    return LayerMapComposite([*special, *layer_map_base(exactly), (Linear, hook)], canonizers)


def alpha_beta_with_exchange(alpha: float, beta: float, zero_params: str | None = None) -> BasicHook:
    """αβ whose outputs with contributions of one sign only send all of their relevance to these; β > 0."""
    hook = AlphaBeta(alpha, beta, zero_params=zero_params)

    def divided(R: Tensor, outputs: list[Tensor]) -> list[Tensor]:
        # zennit multiplies the first two with α and the last two with -β afterwards.
        P, N = outputs[0] + outputs[1], outputs[2] + outputs[3]
        p = torch.where(N == 0, R / alpha, R) / exactly(P)
        n = torch.where(P == 0, -R / beta, R) / exactly(N)
        return [p, p, n, n]

    hook.gradient_mapper = divided
    return hook


def gamma_without_bias(gamma: float) -> BasicHook:
    """γ that ignores the bias in the sign of z too."""
    hook = Gamma(gamma, stabilizer=exactly, zero_params="bias")
    hook.param_modifiers = [*hook.param_modifiers[:4], NoMod(zero_params="bias")]
    return hook


def gamma_of_2019(gamma: float) -> BasicHook:
    """The form of Montavon et al. 2019: w + γw⁺ whatever the sign of z."""
    hook = Gamma(gamma)  # of its five parts the first has w + γw⁺
    return BasicHook(
        input_modifiers=[lambda x: x],
        param_modifiers=hook.param_modifiers[:1],
        gradient_mapper=lambda R, outputs: [R / exactly(outputs[0])],
        reducer=lambda inputs, gradients: inputs[0] * gradients[0],
    )


def norm_with_zeros() -> BasicHook:
    """Norm that shares relevance among zeros equally, where all that an output averages is zero."""
    hook = Norm()
    return BasicHook(
        input_modifiers=[lambda x: x, torch.ones_like],
        param_modifiers=[hook.param_modifiers[0]] * 2,
        gradient_mapper=lambda R, outputs: [
            R / exactly(outputs[0]),
            torch.where(outputs[0] == 0, R / outputs[1], 0.0),
        ],
        reducer=lambda inputs, gradients: inputs[0] * gradients[0] + gradients[1],
    )
