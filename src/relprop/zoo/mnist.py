"""The tutorial's two networks, without weights, and without the softmax of their training."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


class SumPool2d(nn.Module):
    """The tutorial's pooling: half the sum over blocks of 2 × 2, with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H // 2, W // 2), by average pooling with a divisor of 2 instead of 4."""
        return F.avg_pool2d(x, kernel_size=2, stride=2, divisor_override=2)

    def extra_repr(self) -> str:
        """Return the text in parentheses when the module is printed."""
        return "0.5 * sum over 2x2, stride=2"


def mlp() -> nn.Sequential:
    """Build the fully connected network 784-300-100-10, initialised at random.

    It takes images (N, 1, 28, 28) or vectors (N, 784), and returns class scores (N, 10).
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
    """Build the convolutional network, a LeNet-5 with ReLU, initialised at random.

    It takes images that are padded to (N, 1, 32, 32) (see `pad`), and returns class scores (N, 10). The
    convolutions have no padding, so heights are 32 → 28 → 14 → 10 → 5 → 2 → 1 → 1.
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
    """Pad images (N, 1, 28, 28) with 2 black pixels (-1) at each side, to the CNN's input (N, 1, 32, 32)."""
    return F.pad(images, (2, 2, 2, 2), value=-1.0)
