"""Networks of torchvision and timm as they come, with random weights, for the zoo test.

Fresh networks hide mistakes: their biases are zero, their batch normalisation does nothing, their layer
scales silence whole branches. So every parameter is drawn anew, and so are the statistics of batch
normalisation, of the size of its true input, which keeps activations and scores at a sensible size. All of it
is drawn by a generator of its own; the same network comes out every time.
"""

import copy
import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from torchvision_shim import import_torchvision

CLASSES = 10
SAMPLES = 2
BOUNDS = (-1.0, 1.0)
"""The inputs are drawn from between these."""

Target = list[int] | Callable[[Any], Tensor]


@dataclass(frozen=True)
class Network:
    """One network of the zoo.

    Args:
        library: "torchvision", "torchvision.segmentation" or "timm".
        name: what the library calls it.
        size: height and width of the input: small, but no map of features vanishes.
        settings: arguments of its constructor.
    """

    library: str
    name: str
    size: int = 64
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Target]:
        """Give the module in evaluation mode, its input (samples, 3, size, size), and what to explain.

        Weights, input and target are the same in every precision, up to rounding.
        """
        module, x, target = _made(self.library, self.name, self.size, tuple(self.settings.items()))
        return copy.deepcopy(module).to(dtype), x.to(dtype), target


def _torchvision(name: str, size: int = 64, **settings: Any) -> Network:
    return Network("torchvision", name, size, settings)


def _segmentation(name: str, size: int = 64) -> Network:
    return Network("torchvision.segmentation", name, size, {"weights_backbone": None})


def _timm(name: str, size: int = 64, **settings: Any) -> Network:
    return Network("timm", name, size, settings)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            _torchvision("alexnet"),
            _torchvision("vgg16", 32),
            _torchvision("vgg16_bn", 32),
            _torchvision("resnet18"),
            _torchvision("resnet50"),
            _torchvision("resnext50_32x4d"),
            _torchvision("wide_resnet50_2"),
            _torchvision("densenet121"),
            _torchvision("googlenet", init_weights=False),
            _torchvision("inception_v3", 80, init_weights=False),  # smaller ones vanish
            _torchvision("squeezenet1_1"),
            _torchvision("mobilenet_v2"),
            _torchvision("mobilenet_v3_small"),
            _torchvision("mnasnet1_0"),
            _torchvision("shufflenet_v2_x1_0"),
            _torchvision("efficientnet_b0"),
            _torchvision("efficientnet_v2_s"),
            _torchvision("regnet_y_400mf"),
            _torchvision("convnext_tiny"),
            _segmentation("fcn_resnet50", 32),
            _segmentation("deeplabv3_mobilenet_v3_large"),
            _timm("resnetv2_18"),  # pre-activation
            _timm("resnetv2_50x1_bit"),  # group normalisation, standardised weights
            _timm("nf_regnet_b0"),  # no normalisation, squeeze-excite
            _timm("eca_nfnet_l0"),  # channel attention by a one-dimensional convolution
            _timm("mixer_s32_224", img_size=64),
            _timm("resmlp_12_224", img_size=64),  # affine layers instead of normalisation
            _timm("convmixer_768_32", 32),  # the residual encloses batch normalisation
            _timm("poolformer_s12"),  # the average's difference from the value
            _timm("rexnet_100"),
            _timm("dla46x_c"),
            _timm("hrnet_w18_small"),  # four resolutions, exchanged
            _timm("repvgg_a0"),  # three branches, one an identity
            _timm("mobileone_s0"),
            _timm("ghostnet_100"),
            _timm("ghostnetv2_100"),  # a gate from another resolution
            _timm("res2net50_14w_8s"),  # hierarchical splits
            _timm("selecsls42b"),
            _timm("xception41"),
            _timm("ese_vovnet19b_slim_dw"),
            _timm("cspresnet50"),  # leaky ReLU
            _timm("convnextv2_atto"),  # global response normalisation
            _timm("lcnet_035"),
            _timm("tresnet_m"),  # blurred pooling, space to depth
            _timm("dpn48b"),  # dual paths: sums and concatenations
            _timm("mixnet_s"),  # kernels of several sizes
            _timm("hgnetv2_b0"),  # learned affine activations
            _timm("regnetz_005"),
            _timm("inception_next_atto"),
            _timm("mobilenetv4_conv_small"),
        )
    }
)


_LAYER_SCALES = ("layer_scale", "gamma", "ls1", "ls2")
"""Parts of the names of what scales a branch: at one, dozens of branches would add up without end."""


@lru_cache(maxsize=1)  # tests of one network follow each other; the largest takes 1 GB
def _made(
    library: str, name: str, size: int, settings: tuple[tuple[str, Any], ...]
) -> tuple[nn.Module, Tensor, Target]:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    module = _constructed(library, name, dict(settings)).double().eval()
    x = _picture(size, generator)
    with torch.no_grad():
        _draw_parameters(module, generator)
        _draw_statistics(module, x, generator)
        if library == "torchvision.segmentation":
            return module, x, _class_over_pixels
        return module, x, module(x).argmax(1).tolist()


def _constructed(library: str, name: str, settings: dict[str, Any]) -> nn.Module:
    torchvision = import_torchvision()
    with torch.random.fork_rng(devices=[]):  # what constructors draw is replaced
        torch.manual_seed(0)
        if library == "timm":
            create = import_module("timm").create_model
        else:
            create = torchvision.models.get_model
            settings["weights"] = None
        module: nn.Module = create(name, num_classes=CLASSES, **settings)
    return module


def _picture(size: int, generator: torch.Generator) -> Tensor:
    """Noise of a coarse and a fine grain: of the fine alone, a deep network sees the average."""
    coarse, fine = (
        torch.empty(SAMPLES, 3, n, n, dtype=torch.float64).uniform_(*BOUNDS, generator=generator)
        for n in (4, size)
    )
    return 0.7 * nn.functional.interpolate(coarse, size=(size, size), mode="bilinear") + 0.3 * fine


def _class_over_pixels(output: Mapping[str, Tensor]) -> Tensor:
    """The score of one class over some pixels of a segmentation."""
    return output["out"][:, 3, 8:24, 4:20].mean((1, 2))


def _draw_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Kernels by their fan-in; biases of either sign; scales around one, some of them negative."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            if name == "weight" and isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
                value.normal_(0, math.sqrt(2 / value[0].numel()), generator=generator)
            elif "bias" in name or name == "beta":
                value.normal_(0, 0.1, generator=generator)
            else:
                around = 0.4 if any(mark in name for mark in _LAYER_SCALES) else 1.0
                value.uniform_(around / 2, 3 * around / 2, generator=generator)
                value.mul_(torch.where(torch.rand(value.shape, generator=generator) < 0.1, -1.0, 1.0))


def _draw_statistics(module: nn.Module, x: Tensor, generator: torch.Generator) -> None:
    """Draw the statistics of batch normalisation, of the size of its input.

    Not at those of its input: deep networks that are normalised in every channel, untrained, are chaotic, and
    their scores in single precision have no correct digit.
    """

    def scale(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        size = inputs[0].square().mean().sqrt()
        norm.get_buffer("running_mean").mul_(size)
        norm.get_buffer("running_var").mul_(size.square())

    with ExitStack() as hooks:
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.get_buffer("running_mean").normal_(0, 0.2, generator=generator)
                part.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
                hooks.callback(part.register_forward_pre_hook(scale).remove)
        module(x)
