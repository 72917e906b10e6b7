"""explain_generation: row by row what explaining each prefix gives; prompts that cannot be explained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import FileError, InputError, ModelError
from torchvision_shim import import_torchvision

import_torchvision()  # transformers needs one that works
import transformers  # noqa: E402

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 16,
}


def drawn(model: nn.Module) -> Any:
    torch.manual_seed(1)
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    return drawn(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, intermediate_size=32)))


@pytest.fixture(scope="module")
def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=40, n_layer=2, n_head=2, n_embd=16, n_positions=32)
    return drawn(transformers.GPT2LMHeadModel(config))


@pytest.fixture(scope="module")
def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return drawn(transformers.T5ForConditionalGeneration(config))


PROMPT = torch.tensor([[5, 17, 3, 22]])


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", None])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_rows_are_what_prefixes_give(name: str, rules: Any, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    done: list[tuple[int, int]] = []
    g = relprop.explain_generation(
        model, PROMPT, max_new_tokens=3, rules=rules, progress=lambda *counts: done.append(counts)
    )
    written = model.generate(
        PROMPT, max_new_tokens=3, do_sample=False, attention_mask=torch.ones_like(PROMPT)
    )
    assert torch.equal(g.ids, written[0])
    assert g.prompt == 4
    assert torch.equal(g.generated, written[0, 4:])
    assert g.relevance.shape == (3, 7)
    assert done == [(1, 3), (2, 3), (3, 3)]
    for row, token in enumerate(g.generated.tolist()):
        prefix = written[:, : 4 + row]
        e = relprop.explain(model, input_ids=prefix, target=relprop.targets.At(-1, token), rules=rules)
        torch.testing.assert_close(g.relevance[row, : 4 + row], e.relevance[0], rtol=1e-4, atol=1e-5)
        assert not g.relevance[row, 4 + row :].any()
        torch.testing.assert_close(g.scores[row], e.score[0], rtol=1e-5, atol=1e-6)
        assert g.explanations[row].ledger.gap.max() < 1e-5


@pytest.mark.parametrize(
    "target",
    [
        relprop.targets.LogOdds,
        relprop.targets.Contrastive,
        lambda token: relprop.targets.Difference(token, 9),
    ],
)
def test_other_targets(llama: Any, target: Any) -> None:
    answer = torch.tensor([7, 31])
    g = relprop.explain_generation(llama, PROMPT[0], continuation=answer, target=target)
    assert torch.equal(g.generated, answer)
    for row, token in enumerate(answer.tolist()):
        prefix = torch.cat([PROMPT[0], answer[:row]])[None]
        e = relprop.explain(llama, input_ids=prefix, target=relprop.targets.At(-1, target(token)))
        torch.testing.assert_close(g.scores[row], e.score[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_padding_on_the_left_changes_nothing(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    padded = torch.cat([torch.tensor([[0, 0, 0]]), PROMPT], 1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    plain = relprop.explain_generation(model, PROMPT, max_new_tokens=3)
    g = relprop.explain_generation(model, padded, attention_mask=mask, max_new_tokens=3)
    assert torch.equal(g.generated, plain.generated)
    assert not g.relevance[:, :3].any()
    torch.testing.assert_close(g.relevance[:, 3:], plain.relevance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g.scores, plain.scores, rtol=1e-4, atol=1e-5)


def test_a_decoder_answers(t5: Any) -> None:
    g = relprop.explain_generation(t5, PROMPT, max_new_tokens=3)
    assert g.ids[:5].tolist() == [5, 17, 3, 22, 0]
    assert g.prompt == 5
    e = relprop.explain(
        t5,
        input_ids=PROMPT,
        decoder_input_ids=g.ids[None, 4:6],
        target=relprop.targets.At(-1, int(g.generated[1])),
    )
    both = torch.cat([e.inputs["input_ids"], e.inputs["decoder_input_ids"]], 1)[0]
    torch.testing.assert_close(g.relevance[1, :6], both, rtol=1e-4, atol=1e-5)
    assert not g.relevance[1, 6:].any()


def test_options_of_explain_are_passed_on(llama: Any) -> None:
    plain = relprop.explain_generation(llama, PROMPT, continuation=torch.tensor([7, 31]))
    g = relprop.explain_generation(
        llama, PROMPT, continuation=torch.tensor([7, 31]), checkpoint="model.layers.*", record="model.norm"
    )
    assert torch.equal(g.relevance, plain.relevance)
    assert g[1].inner["model.norm"].shape == (1, 6, 16)
    assert repr(g).startswith("Generation(2 tokens after a prompt of 4, rules cp-lrp, ledgers balance to ")


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (
            PROMPT.float(),
            {},
            r"input_ids: give integers of shape \(1, tokens\) or \(tokens,\), not a torch.float32",
        ),
        ("text", {}, r"input_ids: give integers .*, not 'text'"),
        (
            PROMPT.repeat(2, 1),
            {},
            r"input_ids of shape \(2, 4\) has 2 texts; explain_generation takes one at a time",
        ),
        (PROMPT[:, :0], {}, "input_ids is empty; give at least one token"),
        (PROMPT, {"continuation": PROMPT[0, :0]}, "continuation is empty; give at least one token"),
        (PROMPT, {"max_new_tokens": 0}, "max_new_tokens=0: give 1 or more"),
        (
            PROMPT,
            {"attention_mask": torch.ones(1, 3, dtype=torch.int64)},
            r"attention_mask of shape \(1, 3\) does not",
        ),
    ],
)
def test_prompts_without_meaning_are_refused(llama: Any, ids: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain_generation(llama, ids, **options)


def test_a_model_that_cannot_write_needs_a_continuation() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(40, 8), nn.Linear(8, 40)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.head(self.embedding(input_ids).cumsum(1))

    with pytest.raises(ModelError, match="Counting has no method generate; give the answer to explain"):
        relprop.explain_generation(Counting().eval(), PROMPT)
    g = relprop.explain_generation(Counting().eval(), PROMPT, continuation=torch.tensor([3]))
    assert g.relevance.shape == (1, 5)


def test_a_decoder_without_a_start_is_refused(t5: Any) -> None:
    config = transformers.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="has a decoder, but its config has no decoder_start_token_id"):
        relprop.explain_generation(model, PROMPT)


def test_a_generation_is_its_tokens_one_by_one(llama: Any) -> None:
    g = relprop.explain_generation(llama, PROMPT, continuation=torch.tensor([7, 31, 2]))
    assert len(g) == 3
    assert [e.score for e in g] == [e.score for e in g.explanations]
    assert g[1] is g.explanations[1]
    assert g[-1] is g.explanations[2]
    for wrong in (3, -4, "7", slice(0, 1)):
        with pytest.raises(InputError, match=r"give the number of a generated token; there are 3\."):
            g[wrong]  # type: ignore[index]
    assert (g.numpy() == g.relevance.numpy()).all()
    assert g.to("meta").relevance.device.type == g.to("meta")[0].relevance.device.type == "meta"
    assert "@inproceedings{ali2022xai," in g.cite()


def test_a_generation_comes_back_from_a_file(llama: Any, tmp_path: Path) -> None:
    g = relprop.explain_generation(llama, PROMPT, continuation=torch.tensor([7, 31]), record="model.norm")
    path = tmp_path / "answer.safetensors"
    g.save(path)
    again = relprop.Generation.load(path)
    for name in ("relevance", "ids", "scores", "generated"):
        assert torch.equal(getattr(again, name), getattr(g, name))
    assert again.prompt == g.prompt == 4
    assert len(again) == 2
    for one, other in zip(again, g, strict=True):
        assert torch.equal(one.relevance, other.relevance)
        assert torch.equal(one.inner["model.norm"], other.inner["model.norm"])
        assert str(one.ledger) == str(other.ledger)
        assert [str(rule) for rule in one.rules] == [str(rule) for rule in other.rules]
        assert torch.equal(one.output["logits"], other.output["logits"])
    assert repr(again) == repr(g)
    # The output that all explanations share is stored once.
    assert path.stat().st_size < 2 * g[0].output["logits"].numel() * 4 + 20_000
    with pytest.raises(
        FileError, match=r"holds a Generation and no Explanation: relprop.Generation.load reads"
    ):
        relprop.load_explanation(path)
    with pytest.raises(InputError, match=r"give a name that ends in \.safetensors"):
        g.save(tmp_path / "answer.json")
