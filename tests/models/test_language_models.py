"""`load_language_model`: folders of every kind, and all that is refused."""

import json
import shutil
import sys

import pytest
import torch

import tiny_language_models as tiny
from relprop.errors import FileError, ModelError
from relprop.models.language import language_model, load_language_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each kind of model, by name."""
    root = tmp_path_factory.mktemp("models")
    return {name: make(root / name) for name, make in tiny.MAKERS.items()}


@pytest.fixture
def copy(folders, tmp_path):
    """Copy a folder, to be damaged; changes are to its config.json."""

    def copied(name, **changes):
        folder = tmp_path / name
        shutil.copytree(folders[name], folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return copied


def refused(error, folder, **options):
    with pytest.raises(error) as raised:
        load_language_model(f"hf:{folder}", **options)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "task", "labels", "positions"),
    [
        ("bert_classifier", "classification", ("negative", "neutral", "positive"), tiny.POSITIONS),
        ("bert_tagger", "tagging", ("O", "PLACE"), tiny.POSITIONS),
        ("bert_masked", "masked", None, tiny.POSITIONS),
        ("gpt2", "causal", None, tiny.POSITIONS),
        ("llama", "causal", None, tiny.POSITIONS),
        ("t5", "seq2seq", None, None),
        ("pegasus", "seq2seq", None, tiny.POSITIONS),
    ],
)
def test_a_folder_says_what_it_is(folders, name, task, labels, positions):
    model = load_language_model(f"hf:{folders[name]}")
    assert (model.task, model.labels, model.positions) == (task, labels, positions)
    assert not model.module.training
    assert not any(weight.requires_grad for weight in model.module.parameters())
    assert model.tokenizer("Paris").input_ids


def test_weights_are_those_of_the_folder_and_random_ones_are_always_the_same(folders):
    name = f"hf:{folders['gpt2']}"
    own, again = (load_language_model(name).module.state_dict() for _ in range(2))
    random, same = (load_language_model(name, weights="random").module.state_dict() for _ in range(2))
    key = "transformer.h.0.attn.c_attn.weight"
    assert own[key].equal(again[key])
    assert random[key].equal(same[key])
    assert not own[key].equal(random[key])
    with pytest.raises(ModelError, match=r"weights='w.bin' cannot be given apart from the model"):
        load_language_model(name, weights="w.bin")


def test_half_precision_becomes_single_unless_it_is_to_stay(copy):
    from transformers import AutoModelForCausalLM

    folder = copy("gpt2")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert load_language_model(f"hf:{folder}").module.dtype == torch.float32
    assert load_language_model(f"hf:{folder}", dtype=None).module.dtype == torch.bfloat16


def test_what_is_loaded_already_can_be_used(folders):
    from transformers import AutoTokenizer, BertForMaskedLM

    folder = folders["bert_masked"]
    module = BertForMaskedLM.from_pretrained(folder).eval()
    model = language_model(module, AutoTokenizer.from_pretrained(folder))
    assert (model.name, model.task) == ("BertForMaskedLM", "masked")
    assert model.module is module


def test_what_a_module_of_ones_own_does_not_say_is_asked_for(folders):
    module = torch.nn.Linear(2, 3)
    with pytest.raises(ModelError, match="Linear, task=None: give the model's task, one of classification, "):
        language_model(module, None)
    with pytest.raises(ModelError, match=r"has no names for its classes\. Give them by labels=\[\.\.\.\]"):
        language_model(module, None, task="classification")
    model = language_model(module, None, name="mine", task="classification", labels=["a", "b", "c"])
    assert (model.name, model.labels, model.positions) == ("mine", ("a", "b", "c"), None)


def test_a_model_is_printed_in_a_line(folders):
    model = load_language_model(f"hf:{folders['gpt2']}")
    count = sum(weight.numel() for weight in model.module.parameters())
    assert repr(model) == f"LanguageModel('{model.name}': causal, GPT2LMHeadModel of {count:,} parameters)"


def test_positions_that_roberta_does_not_use_are_not_counted():
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=40,
        intermediate_size=48,
        max_position_embeddings=20,
        pad_token_id=1,
        **tiny.SIZES,
    )
    assert language_model(RobertaForMaskedLM(config).eval(), None).positions == 18


def test_nothing_is_printed_and_transformers_settings_stay(folders, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_language_model(f"hf:{folders['gpt2']}")
    refused(FileError, "/no/such/folder")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_names_that_are_none():
    with pytest.raises(ModelError, match=r"there is no language model 'gpt2'\. Give hf: and a folder"):
        load_language_model("gpt2")
    with pytest.raises(ModelError, match="no language model 'hf:'"):
        load_language_model("hf:")
    with pytest.raises(FileError, match=r"there is no folder \./nothing\. Give one with config.json"):
        load_language_model("hf:./nothing")


def test_a_name_on_the_hub_without_a_network_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = refused(ModelError, "nobody/nothing")
    assert told.startswith("cannot load hf:nobody/nothing: there is no folder of this name, and getting it")
    assert told.endswith("or copy the model's folder to this machine and give that.")
    assert "\n" not in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("qkv"), "cannot load hf:some/model: KeyError: 'qkv'."),
        (OSError("no route"), "cannot load hf:some/model: there is no folder of this name, and getting it"),
    ],
)
def test_only_what_is_of_the_network_is_blamed_on_it(monkeypatch, error, told):
    from transformers import PreTrainedConfig

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", fail)
    found = refused(ModelError, "some/model")
    assert found.startswith(told)
    assert ("the network" in found) == isinstance(error, OSError)


def test_without_transformers_the_error_names_it(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "is not installed: pip install transformers" in refused(ModelError, folders["gpt2"])


CODE = """
import transformers

open({flag!r}, "w").close()

class MineConfig(transformers.GPT2Config):
    model_type = "mine"

class MineForCausalLM(transformers.GPT2LMHeadModel):
    config_class = MineConfig
"""


def test_code_of_the_model_runs_only_when_asked(copy, tmp_path):
    folder = copy(
        "gpt2",
        model_type="mine",
        architectures=["MineForCausalLM"],
        auto_map={"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.MineForCausalLM"},
    )
    flag = tmp_path / "it-ran"
    (folder / "mine.py").write_text(CODE.format(flag=str(flag)))
    told = refused(ModelError, folder)
    assert told == (
        f"hf:{folder} comes with its own Python code, which is not run. If you have read the code and trust "
        "its source, allow it: --trust-remote-code, in Python trust_remote_code=True."
    )
    assert not flag.exists()
    assert load_language_model(f"hf:{folder}", trust_remote_code=True).task == "causal"
    assert flag.exists()


def test_code_for_attention_from_elsewhere_is_not_fetched(copy):
    assert "its own Python code" in refused(ModelError, copy("gpt2", attn_implementation="some/kernels"))


def test_quantised_weights_are_refused(copy):
    told = refused(ModelError, copy("gpt2", quantization_config={"quant_method": "gptq", "bits": 4}))
    assert "has quantised weights (gptq), which are not explained" in told
    assert "model.dequantize()" in told


def test_weights_that_could_run_code_are_not_read(copy):
    folder = copy("gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    told = refused(FileError, folder)
    assert (
        "has its weights as pytorch_model.bin and not as safetensors. Loading such files may run code" in told
    )
    (folder / "pytorch_model.bin").unlink()
    assert refused(FileError, folder) == f"{folder} has no weights: put model.safetensors beside config.json."


def test_weights_that_are_not_there_are_not_made_up(copy):
    told = refused(FileError, copy("bert_masked", architectures=["BertForSequenceClassification"]))
    assert "is incomplete: its files lack 4 of the weights (bert.pooler.dense.bias, " in told
    assert told.endswith("which would be random. Give a model that was trained for this task.")


@pytest.mark.parametrize("name", ["gpt2", "bert_masked", "llama"])
def test_a_missing_tokenizer_is_an_error(copy, name):
    folder = copy(name)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    told = refused(FileError, folder)
    assert told.startswith(f"hf:{folder} has no tokenizer that can be read: ")
    assert "tokenizer.save_pretrained(folder)" in told


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_files_are_errors_of_one_line(copy, file):
    folder = copy("gpt2")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    told = refused(FileError, folder)
    assert str(folder) in told
    assert "\n" not in told


def test_a_folder_that_is_no_model(tmp_path, copy):
    assert "the folder has no config.json" in refused(FileError, tmp_path)
    told = refused(ModelError, copy("gpt2", architectures=None))
    assert 'Add it, for instance "architectures": ["BertForSequenceClassification"]' in told
    shutil.rmtree(tmp_path / "gpt2")
    told = refused(ModelError, copy("gpt2", architectures=["GPT2Model"]))
    assert "is a GPT2Model. relprop knows models with scores of labels or tokens" in told
    assert "relprop.explain(model, input_ids=..., target=lambda output: ...)" in told
    shutil.rmtree(tmp_path / "gpt2")
    assert "cannot load" in refused(FileError, copy("gpt2", model_type="nothing"))
