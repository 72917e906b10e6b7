"""Training the tutorial's networks from scratch: the MLP with augmentation, and the CNN without.

Every setting was chosen on 5,000 training images that were held out, and never on the test set.
"""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from relprop.data.mnist import MNIST, pixels
from relprop.errors import InputError, ModelError
from relprop.files import write_whole
from relprop.zoo import BUNDLED


@dataclass(frozen=True)
class Affine:
    """A random affine map of images. Each parameter is uniform between minus and plus its limit."""

    rotation: float = 0.2
    """Largest angle in radians."""
    shear: float = 0.2
    """Largest shear: the shift of a row relative to its distance from the centre."""
    scale: float = 0.1
    """Largest difference of each side's factor from 1."""
    shift: float = 0.06
    """Largest shift along each side, relative to its length."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Map images (N, 1, H, W) in [-1, 1], each by its own parameters. Outside they are black (-1)."""

        def draw(limit: float) -> Tensor:
            return (torch.rand(len(images), generator=generator) * 2 - 1) * limit

        angle, shear = draw(self.rotation), draw(self.shear)
        width, height = 1 + draw(self.scale), 1 + draw(self.scale)
        cos, sin = angle.cos(), angle.sin()
        # The matrix is rotation · shear · scale. In the coordinates of affine_grid a side has length 2.
        across = torch.stack([cos * width, (cos * shear - sin) * height, 2 * draw(self.shift)], dim=1)
        down = torch.stack([sin * width, (sin * shear + cos) * height, 2 * draw(self.shift)], dim=1)
        grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
        # grid_sample uses 0 for pixels outside the image, so -1 becomes 0 first.
        return F.grid_sample(images + 1, grid, align_corners=False) - 1


@dataclass(frozen=True)
class Settings:
    """How a network is trained: by AdamW with a one-cycle learning rate, on the cross entropy."""

    model: str
    """Name in `relprop.zoo.BUNDLED`."""
    epochs: int
    batch: int
    """Number of images in a batch."""
    learning_rate: float
    """The largest learning rate of the cycle."""
    weight_decay: float = 0.01
    augmentation: Affine | None = None
    """The random map of the images, or None."""
    threads: int = 2
    """Number of threads. It changes the result: sums have another order, and training amplifies that."""


SETTINGS: dict[str, Settings] = {
    "mlp": Settings(
        "mnist-mlp", epochs=100, batch=256, learning_rate=4e-3, weight_decay=0.1, augmentation=Affine()
    ),
    "cnn": Settings("mnist-cnn", epochs=10, batch=128, learning_rate=6e-3),
}


@dataclass(frozen=True)
class Progress:
    """The progress of the training after a step."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    """Mean loss over the steps of this epoch so far."""
    error: float | None
    """Share of digits that are not recognised, measured at the end of the latest epoch that is complete; None
    before the first one, or if there are no digits to measure it on."""


def settings_for(network: str, epochs: int | None = None) -> Settings:
    """Return the settings for "mlp" or "cnn", with another number of epochs if it is given.

    Raises:
        ModelError: there is no such network to train.
        InputError: `epochs` is less than 1.
    """
    if network not in SETTINGS:
        raise ModelError(f"cannot train {network!r}. There are: {', '.join(SETTINGS)}.")
    if epochs is None:
        return SETTINGS[network]
    if epochs < 1:
        raise InputError(f"cannot train for {epochs} epochs: at least 1 is needed.")
    return replace(SETTINGS[network], epochs=epochs)


def train(
    network: str,
    data: MNIST,
    *,
    seed: int = 0,
    epochs: int | None = None,
    holdout: int = 0,
    test: MNIST | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> nn.Sequential:
    """Train a network, and return it in evaluation mode, without gradients for its weights.

    The same seed gives the same weights to the last bit, on the same kind of processor and with the same
    versions. Torch's own random state is not changed.

    Args:
        network: "mlp" or "cnn".
        data: the training images with their labels.
        seed: seed of the random numbers, from 0 to 2**63 - 1.
        epochs: number of epochs; by default that of `SETTINGS`.
        holdout: number of images at the end of `data` that are held out. The error in `progress` is measured
            on them.
        test: images on which the error is measured if none are held out.
        progress: called after each step.

    Raises:
        ModelError: there is no such network to train.
        InputError: epochs, holdout or seed is out of range.
    """
    settings = settings_for(network, epochs)
    if not 0 <= holdout < len(data):
        raise InputError(f"cannot hold out {holdout} of {len(data)} images: take 0 to {len(data) - 1}.")
    if not 0 <= seed < 2**63:
        raise InputError(f"the seed {seed} is out of range: take 0 to 2**63 - 1.")
    kept = len(data) - holdout
    measured_on = MNIST(data.images[kept:], data.labels[kept:]) if holdout else test
    with _threads(settings.threads), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = BUNDLED[settings.model].build()
        generator = Generator().manual_seed(seed)
        _run(model, MNIST(data.images[:kept], data.labels[:kept]), settings, generator, measured_on, progress)
    return model.eval().requires_grad_(False)


def _run(
    model: nn.Sequential,
    data: MNIST,
    settings: Settings,
    generator: Generator,
    measured_on: MNIST | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Train `model` in place."""
    prepare = BUNDLED[settings.model].prepare
    images = pixels(data.images).unsqueeze(1)
    steps = settings.epochs * -(-len(data) // settings.batch)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=steps)
    step, error = 0, None
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        batches = torch.split(torch.randperm(len(data), generator=generator), settings.batch)
        for number, batch in enumerate(batches, start=1):
            x = images[batch]
            if settings.augmentation is not None:
                x = settings.augmentation(x, generator)
            loss = F.cross_entropy(model(prepare(x)), data.labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            cycle.step()
            step, total = step + 1, total + loss.item()
            if number == len(batches) and measured_on is not None:
                error = error_rate(model, prepare, measured_on)
            if progress is not None:
                progress(Progress(step, steps, epoch, settings.epochs, total / number, error))


@torch.no_grad()
def error_rate(model: nn.Module, prepare: Callable[[Tensor], Tensor], data: MNIST) -> float:
    """Return the share of digits for which another class has the highest score, between 0 and 1.

    Args:
        model: the network.
        prepare: turns pixels in [-1, 1], (N, 1, 28, 28), into its input.
        data: the digits with their labels.
    """
    wrong = 0
    for images, labels in zip(torch.split(data.images, 1000), torch.split(data.labels, 1000), strict=True):
        scores = model(prepare(pixels(images).unsqueeze(1)))
        wrong += int((scores.argmax(dim=1) != labels).sum())
    return wrong / len(data)


def save(model: nn.Module, path: Path, settings: Settings, *, seed: int, holdout: int = 0) -> None:
    """Write a trained model to a safetensors file. Settings, seed and versions are its metadata.

    The same model with the same metadata gives the same bytes.

    Raises:
        FileError: `path` cannot be written.
    """
    made = {
        "settings": asdict(settings),
        "seed": seed,
        "holdout": holdout,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    # Metadata with a single entry, because safetensors writes several in an order that differs between runs.
    metadata = {"training": json.dumps(made)}
    write_whole(path, safetensors.torch.save(model.state_dict(), metadata))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with this number of threads, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
