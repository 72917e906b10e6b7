"""What users of language models get wrong, and what they are told."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import CoverageError, InputError
from torchvision_shim import import_torchvision

import_torchvision()  # transformers needs one that works
import transformers  # noqa: E402

IDS = torch.tensor([[5, 17, 3, 22]])
LAST = relprop.targets.At(-1)


@pytest.fixture(scope="module")
def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=40, n_layer=1, n_head=2, n_embd=16, n_positions=8)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ({"rule": "attnlrp"}, "rules"),
        ({"recrd": "transformer"}, "record"),
        ({"chekpoint": "transformer.h.*"}, "checkpoint"),
        ({"attenton_mask": torch.ones_like(IDS)}, "attention_mask"),
    ],
)
def test_a_misspelt_argument_does_not_vanish_in_what_the_model_takes(
    gpt2: Any, given: Any, near: str
) -> None:
    (name,) = given
    message = rf"explain\(\.\.\., {name}=\.\.\.\): neither explain nor .* Did you mean {near}=\.\.\.\?"
    with pytest.raises(InputError, match=message):
        relprop.explain(gpt2, input_ids=IDS, target=LAST, **given)


def test_what_a_model_takes_by_any_name_is_passed_on() -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(40, 8), nn.Linear(8, 3)

        def forward(self, input_ids: Tensor, **options: float) -> Tensor:
            return self.head(self.embedding(input_ids).sum(1)) * options["temperature"]

    model = Tempered().eval()
    one, two = (relprop.explain(model, input_ids=IDS, temperature=t, target=0) for t in (1.0, 2.0))
    torch.testing.assert_close(2 * one.relevance, two.relevance)


def test_a_wrapper_of_any_arguments(gpt2: Any) -> None:
    def wrapped(*inputs: Any, **arguments: Any) -> Any:
        return gpt2(*inputs, **arguments)

    e = relprop.explain(wrapped, input_ids=IDS, attention_mask=torch.ones_like(IDS), target=LAST)
    assert torch.equal(e.relevance, relprop.explain(gpt2, input_ids=IDS, target=LAST).relevance)


def test_misspelt_arguments_of_generations(gpt2: Any) -> None:
    with pytest.raises(
        InputError, match=r"explain_generation\(\.\.\., max_new_token=\.\.\.\): .*max_new_tokens=\.\.\.\?"
    ):
        relprop.explain_generation(gpt2, IDS, max_new_token=2)
    with pytest.raises(InputError, match=r"\(\.\.\., rulez=\.\.\.\): .* Did you mean rules=\.\.\.\?"):
        relprop.explain_generation(gpt2, IDS, max_new_tokens=1, rulez="attnlrp")


def test_targets_of_generations(gpt2: Any) -> None:
    written = torch.tensor([7])
    one, other = (
        relprop.explain_generation(gpt2, IDS, continuation=written, target=target)
        for target in (relprop.targets.LogOdds, relprop.targets.LogOdds())
    )
    assert torch.equal(one.relevance, other.relevance)
    with pytest.raises(InputError, match="target=7: explain_generation explains each generated token"):
        relprop.explain_generation(gpt2, IDS, continuation=written, target=7)
    with pytest.raises(InputError, match=r"target=LogOdds: that is a class; write LogOdds\(\)"):
        relprop.explain(gpt2, input_ids=IDS, target=relprop.targets.At(-1, relprop.targets.LogOdds))


def test_too_long_a_prompt(gpt2: Any) -> None:
    message = "input_ids has 12 tokens, but the model has 8 positions. Shorten it by 4"
    with pytest.raises(InputError, match=message):
        relprop.explain(gpt2, input_ids=torch.ones(1, 12, dtype=torch.int64), target=LAST)
    with pytest.raises(InputError, match=message):
        relprop.explain_generation(
            gpt2, torch.ones(1, 10, dtype=torch.int64), continuation=torch.tensor([3, 4])
        )


def test_a_mask_of_numbers_is_no_input(gpt2: Any) -> None:
    with_floats, with_integers = (
        relprop.explain(gpt2, input_ids=IDS, attention_mask=mask, target=LAST)
        for mask in (torch.ones(1, 4), torch.ones_like(IDS))
    )
    assert with_floats.preset == with_integers.preset == "cp-lrp"
    assert torch.equal(with_floats.relevance, with_integers.relevance)


def test_embeddings_of_tokens_have_the_rules_of_tokens(gpt2: Any) -> None:
    e = relprop.explain(gpt2, inputs_embeds=gpt2.get_input_embeddings()(IDS).detach(), target=LAST)
    assert e.preset == "cp-lrp"
    ids = relprop.explain(gpt2, input_ids=IDS, target=LAST)
    torch.testing.assert_close(e.relevance.sum(-1), ids.relevance, rtol=1e-4, atol=1e-6)


def test_labels_do_no_harm(gpt2: Any) -> None:
    e = relprop.explain(gpt2, input_ids=IDS, labels=IDS, target=LAST)
    assert torch.equal(e.relevance, relprop.explain(gpt2, input_ids=IDS, target=LAST).relevance)


def test_a_loss_is_no_score(gpt2: Any) -> None:
    with pytest.raises(CoverageError, match="a loss is no score to explain: call the model without labels"):
        relprop.explain(gpt2, input_ids=IDS, labels=IDS, target=lambda output: output.loss.reshape(1))


def test_what_a_tokenizer_returns_is_spread(gpt2: Any) -> None:
    tokens = transformers.BatchEncoding({"input_ids": IDS})
    with pytest.raises(
        InputError, match=r"input_ids\.input_ids of .*\. Spread what a tokenizer returns: .*\*\*tokens"
    ):
        relprop.explain(gpt2, tokens, target=LAST)


def test_checkpoint_takes_modules(gpt2: Any) -> None:
    with pytest.raises(
        InputError, match=r"checkpoint=True: give paths of modules, such as 'layers\.\*', or modules"
    ):
        relprop.explain(gpt2, input_ids=IDS, target=LAST, checkpoint=True)


def test_mixed_samples_are_said_to_be() -> None:
    def model(x: Tensor) -> Tensor:
        return x @ x.mT

    e = relprop.explain(model, torch.randn(3, 4), target=[1, 2, 0], rules="epsilon")
    assert e.ledger.mixed
    assert str(e.ledger).endswith("of the largest amount, all samples together: the model mixes them")
