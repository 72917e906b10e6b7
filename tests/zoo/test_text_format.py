"""The tutorial's text archives: layout, round trip to the last bit, and damaged files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from relprop.errors import FileError, ModelError
from relprop.zoo import BUNDLED, text_format

MODELS = pytest.mark.parametrize("name", ["mnist-mlp", "mnist-cnn"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Both networks, untrained; not to be changed."""
    folder = tmp_path_factory.mktemp("written")
    for name, found in BUNDLED.items():
        if found.archive:
            text_format.write(folder, name, found.build())
    return folder


@pytest.fixture
def mlp_folder(written, tmp_path):
    """A copy of the MLP, to be damaged."""
    return Path(shutil.copytree(written / "mlp", tmp_path / "mlp"))


@MODELS
def test_round_trip_to_the_last_bit(tmp_path, name):
    model = BUNDLED[name].build()
    first = next(iter(model.parameters()))
    with torch.no_grad():  # what is hardest to write in few digits
        first.view(-1)[:6] = torch.tensor([1e-45, -1.1754942e-38, 3.4028235e38, 16777217.0, 1 / 3, -0.1])
    text_format.write(tmp_path, name, model)
    state = text_format.read(tmp_path, name)
    assert list(state) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert state[key].dtype == torch.float32
        assert torch.equal(state[key], value), key
    model.load_state_dict(state)


def test_names_are_the_tutorials(written):
    stems = ["cnn/c1-5x5x1x10", "cnn/c2-5x5x10x25", "cnn/c3-4x4x25x100", "cnn/c4-1x1x100x10"]
    stems += ["mlp/l1", "mlp/l2", "mlp/l3"]
    found = {path.relative_to(written).as_posix() for path in written.rglob("*.*")}
    assert found == {f"{stem}-{kind}.txt" for stem in stems for kind in "WB"}


def test_dense_weights_are_in_by_out(mlp_folder):
    weight = np.loadtxt(mlp_folder / "l2-W.txt")
    assert weight.shape == (300, 100)
    state = text_format.read(mlp_folder.parent, "mnist-mlp")
    x = np.random.default_rng(0).normal(size=(2, 300))
    expected = torch.from_numpy(x).float() @ state["l2.weight"].T
    np.testing.assert_allclose(x @ weight, expected, rtol=1e-4, atol=1e-5)


def test_kernels_are_height_width_in_out_and_not_flipped(tmp_path):
    model = BUNDLED["mnist-cnn"].build()
    text_format.write(tmp_path, "mnist-cnn", model)
    kernel = np.loadtxt(tmp_path / "cnn" / "c2-5x5x10x25-W.txt").reshape(5, 5, 10, 25)
    x = torch.randn(1, 10, 5, 5)
    expected = np.einsum("ihw,hwio->o", x[0].numpy(), kernel)
    found = model.c2(x)[0, :, 0, 0] - model.c2.bias
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_lines_may_break_anywhere(mlp_folder):
    path = mlp_folder / "l3-W.txt"
    before = text_format.read(mlp_folder.parent, "mnist-mlp")["l3.weight"]
    path.write_text("\n".join(path.read_text().split()))
    assert torch.equal(text_format.read(mlp_folder.parent, "mnist-mlp")["l3.weight"], before)


def test_missing_file(tmp_path, mlp_folder):
    (mlp_folder / "l2-B.txt").unlink()
    with pytest.raises(
        FileError, match=r"mlp/l2-B\.txt is missing\. .*name the folder that contains mlp and cnn"
    ):
        text_format.read(tmp_path, "mnist-mlp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words: words[:-1], r"l3-W\.txt contains 999 numbers, should contain 1000 \(100 × 10\)"),
        (lambda words: [], r"l3-W\.txt contains 0 numbers, should contain 1000"),
        (lambda words: [*words, "0.5"], r"l3-W\.txt contains 1001 numbers, should contain 1000"),
        (lambda words: [*words[:-1], "0,5"], r"l3-W\.txt contains something that is not a number: .*'0,5'"),
        (
            lambda words: ["0.5", "nan", *words[2:]],
            r"l3-W\.txt contains 'nan' as number 2: every weight must be",
        ),
        (
            lambda words: [*words[:-1], "1e99"],
            r"l3-W\.txt contains '1e99' as number 1000: every weight must be",
        ),
    ],
    ids=["short", "empty", "long", "not-a-number", "nan", "too-large"],
)
def test_damaged_text(tmp_path, mlp_folder, change, message):
    path = mlp_folder / "l3-W.txt"
    path.write_text(" ".join(change(path.read_text().split())))
    with pytest.raises(FileError, match=message):
        text_format.read(tmp_path, "mnist-mlp")


def test_transposed_weights_are_not_taken_for_right_ones(tmp_path, mlp_folder):
    path = mlp_folder / "l3-W.txt"
    np.savetxt(path, np.loadtxt(path).T)
    with pytest.raises(
        FileError, match=r"l3-W\.txt has 100 columns: it is transposed\. Write it as in × out, 100"
    ):
        text_format.read(tmp_path, "mnist-mlp")


def test_binary_and_unreadable_files(tmp_path, mlp_folder):
    path = mlp_folder / "l3-W.txt"
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(FileError, match=r"l3-W\.txt is not text\. The tutorial's weights are numbers"):
        text_format.read(tmp_path, "mnist-mlp")
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=r"cannot read .*l3-W\.txt: Is a directory"):
        text_format.read(tmp_path, "mnist-mlp")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "mlp").write_text("a file where the folder should be")
    with pytest.raises(FileError, match=r"cannot write .*mlp/l1-W\.txt"):
        text_format.write(tmp_path, "mnist-mlp", BUNDLED["mnist-mlp"].build())


def test_unknown_name(tmp_path):
    with pytest.raises(ModelError, match=r"no bundled model is called 'mnist-rnn'"):
        text_format.read(tmp_path, "mnist-rnn")


def test_a_model_of_other_layers_is_not_written(tmp_path):
    with pytest.raises(
        ModelError, match=r"cannot write the model as mnist-mlp: it has no l1\.weight of shape \(300,"
    ):
        text_format.write(tmp_path, "mnist-mlp", BUNDLED["mnist-cnn"].build())
    assert list(tmp_path.iterdir()) == []
