"""Losses in a target: log-probabilities of classes, of pixels, and of sequences of letters."""

from collections.abc import Callable
from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.errors import CoverageError

pytestmark = pytest.mark.filterwarnings("ignore:the explained score")

N, SIZE, CLASSES, STEPS = 3, 6, 4, 4
RULES = ["epsilon", "epsilon-plus-flat", "epsilon-gamma-flat", "attnlrp"]
LABELS = torch.tensor([1, 0, 3])
SMOOTH = torch.full((N, CLASSES), 0.1 / CLASSES, **DOUBLE) + 0.9 * F.one_hot(LABELS, CLASSES)
WEIGHTS = torch.tensor([1.0, 2, 3, 4], **DOUBLE)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SIZE, 8), nn.ReLU(), nn.Linear(8, CLASSES)).double().eval()


X = torch.randn(N, SIZE, generator=torch.Generator().manual_seed(1), **DOUBLE)
SEQUENCES = torch.randn(N, STEPS, SIZE, generator=torch.Generator().manual_seed(2), **DOUBLE)


def same(
    x: Tensor, target: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], rules: str
) -> None:
    found = relprop.explain(network(), x, target=target, rules=rules)
    expected = relprop.explain(network(), x, target=other, rules=rules)
    torch.testing.assert_close(found.score, expected.score)
    torch.testing.assert_close(found.relevance, expected.relevance)
    for sink, amount in expected.ledger.absorbed.items():
        torch.testing.assert_close(found.ledger.absorbed[sink].sum(), amount.sum())
    assert found.ledger.gap.max() < 1e-10


def chosen(output: Tensor) -> Tensor:
    return F.log_softmax(output, 1).gather(1, LABELS[:, None])[:, 0]


LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "cross_entropy": (lambda y: -F.cross_entropy(y, LABELS, reduction="none"), chosen),
    "its mean": (lambda y: -F.cross_entropy(y, LABELS), lambda y: chosen(y).mean()),
    "nll_loss": (lambda y: -F.nll_loss(F.log_softmax(y, 1), LABELS, reduction="none"), chosen),
    "with weights": (
        lambda y: -F.cross_entropy(y, LABELS, weight=WEIGHTS, reduction="none"),
        lambda y: chosen(y) * WEIGHTS[LABELS],
    ),
    "smoothed": (
        lambda y: -F.cross_entropy(y, LABELS, label_smoothing=0.1, reduction="none"),
        lambda y: (F.log_softmax(y, 1) * SMOOTH).sum(1),
    ),
    "without an ignored label": (
        lambda y: -F.cross_entropy(y, LABELS, ignore_index=3, reduction="sum"),
        lambda y: chosen(y)[:2].sum(),
    ),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("loss", LOSSES)
def test_of_classes(loss: str, rules: str) -> None:
    same(X, *LOSSES[loss], rules)


@pytest.mark.parametrize("rules", RULES)
def test_of_pixels(rules: str) -> None:
    labels = torch.tensor([[0, 1, 2, 3]] * N)
    same(
        SEQUENCES,
        lambda y: -F.cross_entropy(y.transpose(1, 2), labels, reduction="none").sum(1),
        lambda y: F.log_softmax(y, 2).gather(2, labels[:, :, None]).sum((1, 2)),
        rules,
    )
    same(
        SEQUENCES,
        lambda y: -F.cross_entropy(y.transpose(1, 2)[..., None], labels[..., None], reduction="sum"),
        lambda y: F.log_softmax(y, 2).gather(2, labels[:, :, None]).sum(),
        rules,
    )


WORDS, LENGTHS, TIMES = (
    torch.tensor([[1, 2], [2, 2], [3, 0]]),
    torch.tensor([2, 2, 1]),
    torch.tensor([4, 3, 2]),
)


def ctc(output: Tensor, reduction: str = "none") -> Tensor:
    scores = F.log_softmax(output, 2).transpose(0, 1)
    return -F.ctc_loss(scores, WORDS, TIMES, LENGTHS, reduction=reduction)


def by_paths(output: Tensor) -> Tensor:
    """The same from the definition: all paths that read as the word, without repetitions and blanks."""
    scores = F.log_softmax(output, 2)
    words = [WORDS[n, : int(LENGTHS[n])].tolist() for n in range(N)]
    found = []
    for n in range(N):
        paths = [
            path
            for path in product(range(CLASSES), repeat=int(TIMES[n]))
            if [letter for letter, _ in groupby(path) if letter] == words[n]
        ]
        steps = torch.arange(int(TIMES[n]))
        found.append(torch.stack([scores[n, steps, torch.tensor(p)].sum() for p in paths]).logsumexp(0))
    return torch.stack(found)


@pytest.mark.parametrize("rules", RULES)
def test_of_words_in_a_signal(rules: str) -> None:
    same(SEQUENCES, lambda y: ctc(y), by_paths, rules)
    same(SEQUENCES, lambda y: ctc(y, "mean"), lambda y: (by_paths(y) / LENGTHS).mean(), rules)
    same(SEQUENCES, lambda y: ctc(y)[1], lambda y: by_paths(y)[1], rules)


def test_of_a_word_that_has_no_path() -> None:
    """It takes three steps to say a letter twice. Its score is minus infinity, or zero."""
    short = torch.tensor([4, 2, 2])

    def target(output: Tensor) -> Tensor:
        scores = F.log_softmax(output, 2).transpose(0, 1)
        return -F.ctc_loss(scores, WORDS, short, LENGTHS, reduction="none", zero_infinity=True)

    found = relprop.explain(network(), SEQUENCES, target=target, rules="epsilon")
    whole = relprop.explain(network(), SEQUENCES, target=lambda y: ctc(y), rules="epsilon")
    assert found.score[1] == 0
    assert not found.relevance[1].any()
    torch.testing.assert_close(found.relevance[[0, 2]], whole.relevance[[0, 2]])


@pytest.mark.parametrize(
    ("loss", "operation"),
    [
        (lambda y: F.cross_entropy(y, LABELS, reduction="none"), "nll_loss"),
        (lambda y: ctc(y[:, None].expand(-1, STEPS, -1)), "ctc_loss"),
        (lambda y: F.mse_loss(y, torch.zeros_like(y), reduction="none").sum(1), "mse_loss"),
    ],
)
def test_a_loss_of_the_model_itself_is_none(loss: Callable[[Tensor], Tensor], operation: str) -> None:
    model = network()
    with pytest.raises(CoverageError) as error:
        relprop.explain(lambda x: loss(model(x)), X, target=lambda y: y)
    assert f"{operation} in module '(root)' at {__file__}" in str(error.value)
    assert (
        "a loss is no score to explain: call the model without labels, and let the target take a number of "
        "its output, such as target=lambda output: output[:, 0]"
    ) in str(error.value)
    relprop.explain(model, X, target=lambda output: output[:, 0])
