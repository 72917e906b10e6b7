"""Which rules tell best what a text classifier looks at? Measured on MiniLM with linear classifiers.

The classifiers tell praise from complaints in sentences of product reviews (examples/sentences). Each is
explained on sentences that it has not seen, for the class it decides for. Relevance of a word is the sum of
its tokens'. It is compared with what becomes of the class's score where words are taken out:

- rank: Spearman's correlation, over a sentence's words, of relevance with the drop of the score when this
  one word is taken out. Higher is better.
- most first, least first: the probability of the class while words are taken out in the order of relevance,
  mean of 0, 1/8, ..., 7/8 of the words gone. Without the most relevant words it should fall soon (lower is
  better), without the least relevant ones stay (higher is better).

Taken out means removed from the sentence, or each token replaced by [MASK]. "one word out" is the order by
the drops themselves. Figures are means over sentences with their standard error; on one core it takes one
and a half minutes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import relprop
from relprop.zoo.minilm import SentenceClassifier, load_minilm, train_head

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "networks_explained"))
from torchvision_shim import import_torchvision

REVIEWS = Path(__file__).parents[1] / "examples" / "sentences" / "reviews.tsv"

RULES = ("attnlrp", "cp-lrp", "epsilon")
GRADIENT, RANDOM, DROPS = "gradient × input", "random", "one word out"
METHODS = (*RULES, GRADIENT, RANDOM, DROPS)
WAYS = ("removed", "[MASK]")
STEPS = 8

Words = Sequence[Sequence[int]]
"""A sentence: of each word the numbers of its tokens."""


class Encoder:
    """Embeddings of sentences given as tokens; what was computed once is kept."""

    def __init__(self) -> None:
        self.minilm = load_minilm()
        self.known: dict[tuple[int, ...], Tensor] = {}

    def words(self, sentence: str) -> Words:
        """Split at white space, as the tokenizer does first."""
        return [self.minilm.tokenizer(w, add_special_tokens=False).input_ids for w in sentence.split()]

    def batch(self, texts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Make texts of equal length by padding, and put them between [CLS] and [SEP]."""
        tokenizer: Any = self.minilm.tokenizer
        ids = [
            torch.tensor([tokenizer.cls_token_id, *text, tokenizer.sep_token_id], dtype=torch.int64)
            for text in texts
        ]
        mask = [torch.ones_like(text) for text in ids]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(ids, True, tokenizer.pad_token_id),
            "attention_mask": pad(mask, True, 0),
        }

    def embed(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(texts, features)."""
        wanted = [tuple(text) for text in texts]
        new = sorted({text for text in wanted if text not in self.known}, key=len)
        for first in range(0, len(new), 64):
            some = new[first : first + 64]
            with torch.no_grad():
                self.known.update(zip(some, self.minilm.encoder(**self.batch(some)), strict=True))
        return torch.stack([self.known[text] for text in wanted])

    def without(self, words: Words, out: Sequence[int], way: str) -> list[int]:
        """Give the tokens of a sentence of which some words are taken out."""
        mask: int = self.minilm.tokenizer.mask_token_id
        return [
            mask if place in out else token
            for place, word in enumerate(words)
            for token in word
            if way == "[MASK]" or place not in out
        ]


def relevance(
    model: SentenceClassifier, encoder: Encoder, texts: list[Words], target: Tensor, method: str
) -> list[Tensor]:
    """Explain sentences: of each, what each word counts."""
    inputs = encoder.batch([[token for word in words for token in word] for words in texts])
    if method == RANDOM:
        tokens = torch.randn(inputs["input_ids"].shape, generator=torch.Generator().manual_seed(0))
    else:
        rules = method if method in RULES else "gradient-times-input"
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        explained = relprop.explain(model, input_ids=ids, attention_mask=mask, target=target, rules=rules)
        tokens = explained.relevance
    found = []
    for row, words in zip(tokens, texts, strict=True):
        parts = row[1:].split([len(word) for word in words] + [len(row) - 1 - sum(map(len, words))])
        found.append(torch.stack([part.sum() for part in parts[:-1]]))
    return found


def drops(encoder: Encoder, score: Callable[[Tensor], Tensor], words: Words, way: str) -> Tensor:
    """How much the score falls without each word."""
    whole = [token for word in words for token in word]
    texts = [whole, *(encoder.without(words, [place], way) for place in range(len(words)))]
    scores = score(encoder.embed(texts))
    return scores[0] - scores[1:]


def curve(
    encoder: Encoder, probability: Callable[[Tensor], Tensor], words: Words, order: list[int], way: str
) -> float:
    """Mean probability while words are taken out in this order."""
    counts = [round(step * len(words) / STEPS) for step in range(STEPS)]
    return float(probability(encoder.embed([encoder.without(words, order[:n], way) for n in counts])).mean())


def spearman(a: Tensor, b: Tensor) -> float:
    """Correlation of ranks; values of these are never equal."""
    ranks = torch.stack([a, b]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def measure(
    encoder: Encoder, folds: int, held_out: int, ways: Sequence[str] = WAYS
) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Train a classifier for each fold, and measure: of each (method, way) three figures a sentence."""
    rows = [row.split("\t") for row in REVIEWS.read_text(encoding="utf-8").splitlines()[1:]]
    texts = [encoder.words(sentence) for _, _, sentence in rows]
    labels = torch.tensor([int(float(rating) > 0) for _, rating, _ in rows])
    embeddings = encoder.embed([[token for word in words for token in word] for words in texts])
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    found: dict[tuple[str, str], dict[str, list[float]]] = {
        (method, way): {"rank": [], "most first": [], "least first": []} for way in ways for method in METHODS
    }
    for fold in range(folds):
        test = order[fold * held_out : (fold + 1) * held_out]
        train = order[~torch.isin(order, test)]
        head = train_head(embeddings[train], labels[train])
        model = SentenceClassifier(encoder.minilm.encoder, head).eval()
        some, decided = [texts[i] for i in test.tolist()], head(embeddings[test]).argmax(1)
        by_method = {
            method: relevance(model, encoder, some, decided, method) for method in METHODS if method != DROPS
        }
        for number, (words, target) in enumerate(zip(some, decided.tolist(), strict=True)):

            def score(embedded: Tensor, head: Any = head, target: int = target) -> Tensor:
                return head(embedded)[:, target]  # type: ignore[no-any-return]

            def probability(embedded: Tensor, head: Any = head, target: int = target) -> Tensor:
                return head(embedded).softmax(1)[:, target]  # type: ignore[no-any-return]

            for way in ways:
                by_drop = drops(encoder, score, words, way)
                for method in METHODS:
                    told = by_drop if method == DROPS else by_method[method][number]
                    falling = told.argsort(descending=True).tolist()
                    figures = found[method, way]
                    figures["rank"].append(spearman(told, by_drop))
                    figures["most first"].append(curve(encoder, probability, words, falling, way))
                    figures["least first"].append(curve(encoder, probability, words, falling[::-1], way))
    return found


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folds", type=int, default=4, help="how many classifiers (default: 4)")
    parser.add_argument("--held-out", type=int, default=30, help="sentences explained of each (default: 30)")
    options = parser.parse_args()
    import_torchvision()
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = measure(Encoder(), options.folds, options.held_out)
    console = Console()
    for way in WAYS:
        table = Table(title=f"words taken out: {way}")
        for column in ("", "rank", "most first", "least first"):
            table.add_column(column, justify="left" if not column else "right")
        for method in METHODS:
            table.add_row(method, *(told(values) for values in found[method, way].values()))
        both = zip(found["attnlrp", way].values(), found["cp-lrp", way].values(), strict=True)
        table.add_row(
            "attnlrp − cp-lrp", *(told([x - y for x, y in zip(a, b, strict=True)]) for a, b in both)
        )
        console.print(table)
    console.print(
        f"{options.folds * options.held_out} sentences, {options.folds} classifiers, "
        f"{time.perf_counter() - start:.0f} s"
    )


def told(values: list[float]) -> str:
    """Mean and standard error."""
    return f"{mean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
