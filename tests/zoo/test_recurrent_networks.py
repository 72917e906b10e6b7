"""Trained recurrent networks: a task of arithmetic with known answers, and letters that become sounds.

`make zoo` runs these.
"""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop.rules import Epsilon

sys.path.append(str(Path(__file__).parents[2] / "examples"))
import letters_to_sounds as sounds

pytestmark = pytest.mark.zoo

# ---- arithmetic: Arras et al. 2019, section 4.1 ----

RANDOM = torch.Generator()
LENGTHS = range(4, 11)


def numbers(*shape: int) -> Tensor:
    """Numbers from [-1, -.5] and [.5, 1]."""
    size = 0.5 + 0.5 * torch.rand(shape, generator=RANDOM, dtype=torch.float64)
    return torch.where(torch.rand(shape, generator=RANDOM) < 0.5, -size, size)


def sequences(count: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences (count, length, 3) in which a number is in the second column and a later one in the third.

    All others are in the first column. Returns the sequences, the places of the two, and the two: (count, 2).
    """
    x = torch.zeros(count, length, 3, dtype=torch.float64)
    x[:, :, 0] = numbers(count, length)
    places = torch.stack([torch.randperm(length, generator=RANDOM)[:2].sort().values for _ in range(count)])
    rows = torch.arange(count)
    for column in (1, 2):
        place = places[:, column - 1]
        x[rows, place, column] = x[rows, place, 0]
        x[rows, place, 0] = 0
    two = torch.stack([x[rows, places[:, 0], 1], x[rows, places[:, 1], 2]], 1)
    return x, places, two


def trained(sign: int) -> nn.Module:
    """An LSTM of one cell that has learned to add two numbers, or to subtract them.

    It begins where it may learn quickly: it keeps its state, and writes both numbers to it.
    """
    torch.manual_seed(0)
    layer, last = nn.LSTM(3, 1, batch_first=True).double(), nn.Linear(1, 1, bias=False).double()
    layer.bias_ih_l0.data[1] = 3
    layer.weight_ih_l0.data[2] = torch.tensor([0.0, 0.5, 0.5 * sign])
    last.weight.data.fill_(2)
    parameters = [*layer.parameters(), *last.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    for step in range(3000):
        x, _, two = sequences(64, LENGTHS[step % len(LENGTHS)])
        wanted = two[:, 0] + sign * two[:, 1]
        loss = F.mse_loss(last(layer(x)[0][:, -1])[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert float(loss.detach()) < 5e-3
    return nn.ModuleList([layer, last]).eval().requires_grad_(False)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@pytest.mark.parametrize("sign", [1, -1], ids=["sum", "difference"])
def test_relevance_is_the_numbers_that_were_added(sign: int) -> None:
    RANDOM.manual_seed(1)
    layer, last = trained(sign)  # type: ignore[misc]
    found, expected = [], []
    for length in LENGTHS:
        x, places, two = sequences(200, length)
        e = relprop.explain(
            lambda x: last(layer(x)[0][:, -1]), x, target=lambda y: y[:, 0], rules=Epsilon(1e-3)
        )
        found.append(e.relevance.sum(2).gather(1, places))
        expected.append(two * torch.tensor([1, sign]))
        assert e.ledger.gap.max() < 1e-9
    for column in (0, 1):
        one, other = torch.cat(found)[:, column], torch.cat(expected)[:, column]
        assert correlation(one, other) > 0.99


# ---- letters and sounds ----


@pytest.fixture(scope="module")
def speaker() -> sounds.Speaker:
    return sounds.load_speaker()


def test_the_network_says_what_it_should(speaker: sounds.Speaker) -> None:
    assert speaker.say("phonograph") == ["F", "OW1", "N", "AH0", "G", "R", "AE2", "F"]
    assert speaker.say("knight") == ["N", "AY1", "T"]


SPOKEN_BY = [
    ("knight", {"N": "n", "AY1": "i", "T": "t"}),
    ("phone", {"F": "p", "OW1": "o", "N": "n"}),
    ("chaos", {"CH": "c", "OW1": "o", "Z": "s"}),
    ("magic", {"M": "m", "AE1": "a", "JH": "g", "IH0": "a", "K": "c"}),
]
"""Which letter of a word speaks most for each sound; not as one would say for IH0 of "magic"."""


@pytest.mark.parametrize(("word", "letters"), SPOKEN_BY)
def test_each_sound_is_spoken_by_its_letter(
    speaker: sounds.Speaker, word: str, letters: dict[str, str]
) -> None:
    found = {sound: word[int(R.argmax())] for sound, R in sounds.explain_sounds(speaker, word)}
    assert found == letters


def test_the_two_grus_together_leave_the_ledger_balanced(speaker: sounds.Speaker) -> None:
    speaker = speaker.double()
    e = relprop.explain(
        speaker,
        sounds.numbers_of("thought"),
        torch.tensor([[2, 62]]),
        target=lambda y: y[:, -1, 13],
        rules="cp-lrp",
    )
    assert list(e.inputs) == ["letters", "sounds"]
    assert e.ledger.gap.max() < 1e-12
    speaker.float()
