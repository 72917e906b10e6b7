"""The tutorial's text archives: one file of whitespace-separated numbers for each weight and bias.

`mlp/l1-W.txt` has a row for each input and a column for each output. `cnn/c1-5x5x1x10-W.txt` has the
flattened kernel. Its axes are height × width × in × out, and its name has their lengths. Files that end in
`-B.txt` have the biases. The tutorial's convolution is a cross-correlation, as in torch, so no kernel is
flipped.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relprop.errors import FileError, ModelError
from relprop.files import whole_file
from relprop.zoo import bundled

# The order in which a weight's axes are written, by their number. Torch has out × in (× height × width).
_ORDER = {2: (1, 0), 4: (2, 3, 1, 0)}


def read(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the weights of the bundled model `name` from the archive in `folder`.

    "mnist-mlp" is read from `folder`/mlp, "mnist-cnn" from `folder`/cnn.

    Returns:
        The weights in float32, by the names and in the shapes of torch.

    Raises:
        ModelError: no bundled model has this name, or it has no text format.
        FileError: a file is missing, is transposed, has too many or too few numbers, or has something that is
            not a finite number.
    """
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder}. Name the one that holds mlp/l1-W.txt, cnn/... .")
    state = {}
    for path, layer, module in _files(folder, name):
        assert isinstance(module.weight, Tensor)
        order = _ORDER[module.weight.ndim]
        shape = tuple(module.weight.shape[axis] for axis in order)
        weight = _numbers(path.with_name(f"{path.name}-W.txt"), shape)
        bias = _numbers(path.with_name(f"{path.name}-B.txt"), (shape[-1],))
        state[f"{layer}.weight"] = torch.from_numpy(weight.transpose(np.argsort(order)).copy())
        state[f"{layer}.bias"] = torch.from_numpy(bias)
    return state


def write(folder: Path, name: str, model: nn.Module) -> None:
    """Write a model with the layers of the bundled model `name` to the archive in `folder`.

    Numbers have nine significant digits, so `read` returns the same float32 values to the last bit. Existing
    files are replaced.

    Raises:
        ModelError: no bundled model has this name, it has no text format, or `model` has other layers.
        FileError: a file cannot be written.
    """
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    for key, value in bundled(name).build().state_dict().items():
        if key not in state or state[key].shape != value.shape:
            raise ModelError(
                f"cannot write the model as {name}: it has no {key} of shape {tuple(value.shape)}. "
                f"Only a network with the layers of {name} can be written in this format."
            )
    for path, layer, _ in _files(folder, name):
        weight, bias = (state[f"{layer}.{kind}"].numpy() for kind in ("weight", "bias"))
        weight = weight.transpose(_ORDER[weight.ndim])
        _save(path.with_name(f"{path.name}-W.txt"), weight if weight.ndim == 2 else weight.reshape(-1))
        _save(path.with_name(f"{path.name}-B.txt"), bias)


def _files(folder: Path, name: str) -> Iterator[tuple[Path, str, nn.Module]]:
    """Yield for each layer with weights the path of its files without "-W.txt", its name, and the layer."""
    model = bundled(name)
    if not model.archive:
        raise ModelError(f"{name} is not one of the tutorial's networks. Only these have a text format.")
    for layer, module in model.build().named_children():
        if isinstance(module, nn.Linear):
            yield folder / model.archive / layer, layer, module
        elif isinstance(module, nn.Conv2d):
            height_to_out = (module.weight.shape[axis] for axis in _ORDER[4])
            yield folder / model.archive / f"{layer}-{'x'.join(map(str, height_to_out))}", layer, module


def _numbers(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read the numbers in `path`, separated by spaces or line breaks, as an array of `shape`."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise FileError(
            f"{path} is missing. A folder of the tutorial's weights has mlp/l1-W.txt, mlp/l1-B.txt, ..., "
            "cnn/c1-5x5x1x10-W.txt, ...: name the folder that contains mlp and cnn."
        ) from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text. The tutorial's weights are numbers written as text.") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}.") from error
    words = text.split()
    needed = " × ".join(map(str, shape))
    if len(words) != np.prod(shape):
        raise FileError(f"{path} contains {len(words)} numbers, should contain {np.prod(shape)} ({needed}).")
    columns = len(text.strip().split("\n", 1)[0].split())
    if len(shape) == 2 and shape[0] != shape[1] and columns == shape[0]:
        raise FileError(f"{path} has {columns} columns: it is transposed. Write it as in × out, {needed}.")
    try:
        # A number too large for float32 becomes infinite, which is an error below.
        with np.errstate(over="ignore"):
            numbers = np.array(words, dtype=np.float64).astype(np.float32)
    except ValueError as error:
        raise FileError(f"{path} contains something that is not a number: {error}.") from None
    strange = np.flatnonzero(~np.isfinite(numbers))
    if len(strange):
        place = int(strange[0])
        raise FileError(
            f"{path} contains {words[place]!r} as number {place + 1}: every weight must be finite in float32."
        )
    return numbers.reshape(shape)


def _save(path: Path, numbers: NDArray[np.float32]) -> None:
    with whole_file(path) as temporary:
        np.savetxt(temporary, numbers, fmt="%.9g")
