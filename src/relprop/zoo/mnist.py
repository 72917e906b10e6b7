"""The tutorial's two networks, without weights and without the softmax they are trained with."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


class SumPool2d(nn.Module):
    """The tutorial's pooling: half the sum over blocks of 2 × 2, stride 2, without overlap.

    (N, C, H, W) to (N, C, H // 2, W // 2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool. Dividing the sum by 2 is one call of average pooling, with its divisor overridden."""
        return F.avg_pool2d(x, kernel_size=2, stride=2, divisor_override=2)

    def extra_repr(self) -> str:
        """Say what the name does not."""
        return "0.5 * sum over 2x2, stride=2"


def mlp() -> nn.Sequential:
    """Make the fully connected network 784-300-100-10, initialised at random.

    Takes images (N, 1, 28, 28) or vectors (N, 784), gives class scores (N, 10).
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            flatten=nn.Flatten(),
            l1=nn.Linear(784, 300),
            relu1=nn.ReLU(),
            l2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            l3=nn.Linear(100, 10),
        )
    )


def cnn() -> nn.Sequential:
    """Make the convolutional network, a LeNet-5 with ReLU, initialised at random.

    Takes images padded to (N, 1, 32, 32) (see `pad`), gives class scores (N, 10). No convolution pads:
    32 → 28 → 14 → 10 → 5 → 2 → 1 → 1.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            c1=nn.Conv2d(1, 10, kernel_size=5),
            relu1=nn.ReLU(),
            pool1=SumPool2d(),
            c2=nn.Conv2d(10, 25, kernel_size=5),
            relu2=nn.ReLU(),
            pool2=SumPool2d(),
            c3=nn.Conv2d(25, 100, kernel_size=4),
            relu3=nn.ReLU(),
            pool3=SumPool2d(),
            c4=nn.Conv2d(100, 10, kernel_size=1),
            flatten=nn.Flatten(),
        )
    )


def pad(images: Tensor) -> Tensor:
    """Surround images (N, 1, 28, 28) with 2 pixels of black (-1), as the CNN takes them: (N, 1, 32, 32)."""
    return F.pad(images, (2, 2, 2, 2), value=-1.0)
