"""Files of weights: which are read, and which are refused."""

import argparse
import os
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from bit_by_bit import same_values
from relprop.errors import FileError
from relprop.models import load_checkpoint


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


@pytest.mark.parametrize(
    "pack",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "args": {"lr": 0.1}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model_state_dict": {f"_orig_mod.module.{n}": v for n, v in state.items()}},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
        lambda state: {n: v.double() if v.is_floating_point() else v for n, v in state.items()},
    ],
    ids=["plain", "state_dict", "module", "compiled", "lightning", "old", "double"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_of_all_kinds(tmp_path, pack, legacy):
    state = small().state_dict()
    torch.save(pack(state), tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=not legacy)
    model = small()
    load_checkpoint(model, tmp_path / "checkpoint.pth")
    assert same_values(model.state_dict(), state)


def test_safetensors_by_any_name_with_prefixes(tmp_path):
    state = small().state_dict()
    safetensors.torch.save_file({f"module.{n}": v for n, v in state.items()}, tmp_path / "weights.bin")
    model = small()
    load_checkpoint(model, tmp_path / "weights.bin")
    assert same_values(model.state_dict(), state)


def test_half_precision_becomes_the_models_own(tmp_path):
    state = {n: v.half() if v.is_floating_point() else v for n, v in small().state_dict().items()}
    torch.save(state, tmp_path / "half.pt")
    model = small()
    load_checkpoint(model, tmp_path / "half.pt")
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, state["0.weight"].float())


def test_a_part_of_the_model_that_is_called_like_a_prefix_keeps_its_name(tmp_path):
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save({"module.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, tmp_path / "weights.pt")
    load_checkpoint(model, tmp_path / "weights.pt")
    assert torch.equal(model["module"].weight, torch.ones(2, 2))


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lambda marker: {"state_dict": small().state_dict(), "hook": Evil(marker)}, r"(posix|nt)\.system"),
        (lambda marker: small(), r"torch\.nn\.modules\.container\.Sequential"),
        (lambda marker: {"args": argparse.Namespace(lr=1)}, r"argparse\.Namespace"),
    ],
    ids=["evil", "module", "namespace"],
)
def test_a_file_that_would_run_code_is_refused(tmp_path, content, what):
    marker, path = tmp_path / "executed", tmp_path / "weights.pt"
    torch.save(content(marker), path)
    message = (
        rf"weights\.pt is not read: loading it would run code, {what}\. relprop reads tensors only\. Get "
        r"the weights as safetensors\. Or, if you trust the source of the file, load it in your own program"
    )
    with pytest.raises(FileError, match=message):
        load_checkpoint(small(), path)
    assert not marker.exists()


def test_a_bare_pickle_is_not_executed(tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"weights": Evil(marker)}, protocol=2))
    with pytest.raises(FileError, match=r"weights\.pkl is not read: loading it "):
        load_checkpoint(small(), path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "program.pt")
    with pytest.raises(
        FileError, match=r"program\.pt is not read: it is a TorchScript program and not a file"
    ):
        load_checkpoint(small(), tmp_path / "program.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"epoch": 3},
            r"has no state dict, neither at its top nor under 'state_dict', .*\. It contains only 'epoch'\.",
        ),
        (
            [1, 2],
            r"has no state dict, neither at its top nor under .*\. It contains no dict\. Store the weights",
        ),
    ],
)
def test_checkpoints_without_weights(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(FileError, match=message):
        load_checkpoint(small(), tmp_path / "weights.pt")


@pytest.mark.parametrize("keep", [0, 1, 3, 100, 2000])
def test_truncated_checkpoints(tmp_path, keep):
    path = tmp_path / "weights.pt"
    torch.save(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match=r"weights\.pt is truncated"):
        load_checkpoint(small(), path)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    torch.save(
        {"state_dict": {f"module.{n}": v for n, v in other.state_dict().items()}}, tmp_path / "other.pt"
    )
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        FileError, match=r"other\.pt do not fit the model: 0\.bias has the shape \(5,\), should be"
    ):
        load_checkpoint(model, tmp_path / "other.pt")
    assert same_values(model.state_dict(), before)


def test_of_many_misfits_the_first_are_listed(tmp_path):
    torch.save({f"layer{i}": torch.zeros(1) for i in range(10)}, tmp_path / "other.pt")
    with pytest.raises(
        FileError, match=r": 0\.bias is missing; .*; and 6 more\. Take weights that were saved"
    ):
        load_checkpoint(small(), tmp_path / "other.pt")


def test_a_file_of_weights_that_is_not_there_is_answered_with_its_neighbours(tmp_path):
    (tmp_path / "resnet.pth").touch()
    with pytest.raises(
        FileError, match=r"resnt\.pth: No such file or directory\. Near it are: resnet\.pth\."
    ):
        load_checkpoint(small(), tmp_path / "resnt.pth")
