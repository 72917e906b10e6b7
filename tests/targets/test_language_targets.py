"""Targets of language models: positions, differences of words, logits among other outputs; files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import close
from relprop.errors import InputError
from relprop.targets import At, Contrastive, Difference, Logit, LogOdds, Part, RunnerUp
from small_transformers import Transformer, drawn

N, TOKENS, WORDS = 3, 5, 11


@pytest.fixture
def model() -> Any:
    return drawn(Transformer(words=WORDS))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(WORDS, (N, TOKENS))


def explain(model: Any, ids: Tensor, target: Any, rules: Any = "attnlrp") -> relprop.Explanation:
    return relprop.explain(model, ids, target=target, rules=rules)


# ---- positions ----

POSITIONS: list[tuple[Any, list[int]]] = [
    (-1, [4, 4, 4]),
    (0, [0, 0, 0]),
    (3, [3, 3, 3]),
    (-5, [0, 0, 0]),
    ((4, 1, -2), [4, 1, 3]),
    ([2, 2, 2], [2, 2, 2]),
    ([4, -1, 4], [4, 4, 4]),
    (torch.tensor([0, 3, -1]), [0, 3, 4]),
    (torch.tensor(2), [2, 2, 2]),
    (numpy.array([0, 3, 4]), [0, 3, 4]),
    (numpy.int64(2), [2, 2, 2]),
]


@pytest.mark.parametrize(("position", "places"), POSITIONS, ids=repr)
def test_a_position_is_explained_alone(model: Any, ids: Tensor, position: Any, places: list[int]) -> None:
    e = explain(model, ids, At(position, 3))
    expected = explain(model, ids, lambda z: torch.stack([z[i, place, 3] for i, place in enumerate(places)]))
    close(e.relevance, expected.relevance)
    torch.testing.assert_close(e.score, expected.score)
    assert e.ledger.gap.max() < 1e-12
    for sample, place in enumerate(places):  # the model is causal
        assert (e.relevance[sample, place + 1 :] == 0).all()


def scores_at(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda z: function(z[:, -1])


def best_minus_next(z: Tensor) -> Tensor:
    top = z.topk(2, 1).values
    return top[:, 0] - top[:, 1]


WITHIN: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
    (None, lambda z: z.amax(1)),
    (4, lambda z: z[:, 4]),
    ([4, 0, 10], lambda z: z.gather(1, torch.tensor([[4], [0], [10]])).squeeze(1)),
    (Logit(4), lambda z: z[:, 4]),
    (Contrastive(4), lambda z: z[:, 4] - (z.sum(1) - z[:, 4]) / (WORDS - 1)),
    (RunnerUp(), best_minus_next),
    (Difference(4, 7), lambda z: z[:, 4] - z[:, 7]),
    (
        Difference((4, 0, 1), (7, 1, 0)),
        lambda z: torch.stack([z[0, 4] - z[0, 7], z[1, 0] - z[1, 1], z[2, 1] - z[2, 0]]),
    ),
    (lambda z: z[:, 4] - z[:, 5], lambda z: z[:, 4] - z[:, 5]),
]


@pytest.mark.parametrize("case", range(len(WITHIN)))
@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", "gradient-times-input"])
def test_at_a_position_every_target_is_as_of_scores(model: Any, ids: Tensor, case: int, rules: str) -> None:
    target, function = WITHIN[case]
    embeds = model.embedding(ids).detach()
    e = relprop.explain(model, inputs_embeds=embeds, target=At(-1, target), rules=rules)
    alone = relprop.explain(lambda x: model(inputs_embeds=x)[:, -1], embeds, target=target, rules=rules)
    written = relprop.explain(model, inputs_embeds=embeds, target=scores_at(function), rules=rules)
    for other in (alone, written):
        close(e.relevance, other.relevance)
        torch.testing.assert_close(e.score, other.score)


def test_weights_and_log_odds_at_a_position(model: Any, ids: Tensor) -> None:
    weights = torch.randn(WORDS)
    e = explain(model, ids, At(-1, weights))
    close(e.relevance, explain(model, ids, lambda z: z[:, -1] @ weights.double()).relevance)
    odds = explain(model, ids, At(1, LogOdds(2)))
    p = model(ids).softmax(-1)[:, 1, 2]
    torch.testing.assert_close(odds.score, torch.log(p / (1 - p)))
    assert odds.ledger.gap.max() < 1e-12


def test_the_class_of_each_sample_is_told(model: Any, ids: Tensor) -> None:
    best = model(ids)[:, -1].argmax(1).tolist()
    e = explain(model, ids, At(-1))
    assert e.target == At(-1, tuple(best))
    assert repr(e.target) == f"At(-1, ({best[0]}, {best[1]}, {best[2]}))"
    assert repr(At((0, 2, 1), 4)) == "At((0, 2, 1), 4)"
    assert repr(At(-1)) == "At(-1)"
    assert repr(At(-1, torch.zeros(11))) == "At(-1, tensor of shape (11,))"
    assert repr(At(-1, Difference(4, 7))) == "At(-1, Difference(index=4, against=7))"
    assert explain(model, ids, At(-1, 4)).measure == "score"
    assert explain(model, ids, At(-1, Difference(4, 7))).measure == "score difference"
    assert explain(model, ids, At(-1, LogOdds(4))).measure == "log-odds"
    assert f"target At(-1, {tuple(best)})" in repr(e)


def test_several_positions_share_one_forward(model: Any, ids: Tensor) -> None:
    goals = [At(-1, 3), At(0, 3), At((1, 2, 3), Difference(3, 4))]
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    several = relprop.explain_each(model, ids, targets=goals, rules="attnlrp")
    assert len(calls) == 1
    for goal, e in zip(goals, several, strict=True):
        close(e.relevance, explain(model, ids, goal).relevance)
        assert e.ledger.gap.max() < 1e-12


# ---- differences ----


def test_a_difference_is_the_difference_of_both(model: Any, ids: Tensor) -> None:
    apart = [explain(model, ids, At(-1, word)) for word in (4, 7)]
    e = explain(model, ids, At(-1, Difference(4, 7)))
    close(e.relevance, apart[0].relevance - apart[1].relevance)
    torch.testing.assert_close(e.score, apart[0].score - apart[1].score)
    best = model(ids)[:, -1].argmax(1)
    of_best = explain(model, ids, At(-1, Difference(against=7)))
    close(of_best.score, model(ids)[:, -1].gather(1, best[:, None]).squeeze(1) - model(ids)[:, -1, 7])
    turned = explain(model, ids, At(-1, Difference(7, 4)))
    close(turned.relevance, -e.relevance)


def test_a_difference_of_plain_scores() -> None:
    x, layer = torch.randn(2, 4).double(), nn.Linear(4, 3).double().eval()
    e = relprop.explain(layer, x, target=Difference(0, 2), rules="epsilon")
    expected = relprop.explain(layer, x, target=lambda z: z[:, 0] - z[:, 2], rules="epsilon")
    close(e.relevance, expected.relevance)
    assert e.measure == "score difference"


# ---- logits among several outputs ----


class Output(dict):
    """As transformers': a dictionary with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Record:
    loss: Tensor | None
    logits: Tensor


class Named(NamedTuple):
    logits: Tensor
    hidden: Tensor


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "dictionary with attributes": lambda z: Output(logits=z, past=None, hidden=z * 2),
    "record": lambda z: Record(None, z),
    "named tuple": lambda z: Named(z, z * 2),
    "namespace": lambda z: SimpleNamespace(logits=z),
}


@pytest.mark.parametrize("rules", ["attnlrp", "gradient-times-input"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_logits_are_found_among_several_outputs(model: Any, ids: Tensor, kind: str, rules: str) -> None:
    embeds = model.embedding(ids).detach()

    def several(x: Tensor) -> Any:
        return OUTPUTS[kind](model(inputs_embeds=x))

    def of_classes(x: Tensor) -> Any:
        return OUTPUTS[kind](model(inputs_embeds=x)[:, 0])

    for target in (At(-1), At(-1, 3), At([0, 1, 2], Difference(3, 4)), torch.ones(TOKENS, WORDS)):
        e = relprop.explain(several, embeds, target=target, rules=rules)
        expected = relprop.explain(model, inputs_embeds=embeds, target=target, rules=rules)
        close(e.relevance, expected.relevance)
        assert repr(e.target) == repr(expected.target)
    for target in (None, 3, [1, 2, 3], Contrastive(3), RunnerUp(), Difference(3, 4), LogOdds(3)):
        e = relprop.explain(of_classes, embeds, target=target, rules=rules)
        expected = relprop.explain(lambda x: model(inputs_embeds=x)[:, 0], embeds, target=target, rules=rules)
        close(e.relevance, expected.relevance)
    part = relprop.explain(several, embeds, target=Part("logits", At(-1, 3)), rules=rules)
    close(part.relevance, relprop.explain(several, embeds, target=At(-1, 3), rules=rules).relevance)


# ---- what is refused ----

REFUSED: list[tuple[Any, str]] = [
    (
        None,
        r"the output has shape \(3, 5, 11\), not \(samples, classes\)\. .*=relprop.targets.At\(-1\), the",
    ),
    (3, r"the output has shape \(3, 5, 11\), not \(samples, classes\)\. Give a target"),
    (
        At(5),
        r"target At\(5\): position 5 is out of range: the output has 5 positions, 0 to 4, or -5 to -1 from "
        r"the end",
    ),
    (At(-6, 3), r"target At\(-6, 3\): position -6 is out of range"),
    (At((0, 7, 9)), r"target At\(\(0, 7, 9\)\): position 7 is out of range"),
    (At((0, 1)), r"target At\(\(0, 1\)\): there are 2 positions for 3 samples"),
    (At(-1, 11), r"target 11 is out of range: the output has 11 classes, 0 to 10"),
    (At(-1, [1, 2]), r"target has 2 classes for 3 samples"),
    (At(-1, Difference(3, 11)), r"target 11 is out of range"),
    (At(-1, Difference(3, (1, 2))), r"target has 2 classes for 3 samples"),
    (
        At(-1, Difference(3)),
        r"target Difference\(index=3, against=None\): give the other class, or take RunnerUp for the best "
        r"other one",
    ),
    (At(-1, At(0)), r"target At\(0\): the output must be a tensor \(samples, positions, classes\)"),
    (At(-1, "cat"), r"target='cat' is not a target"),
    (At(-1, lambda z: z), r"one score for each sample, a tensor of shape \(3,\).* gave shape \(3, 11\)"),
    (Part("scores", At(-1)), r"target Part\('scores', At\(-1\)\): the model's output has no such part"),
]


@pytest.mark.parametrize(("target", "message"), REFUSED, ids=range(len(REFUSED)))
def test_targets_without_meaning_are_refused(model: Any, ids: Tensor, target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(model, ids, target)


@pytest.mark.parametrize("position", [1.5, None, "last", True, [], [1, 2.5], [True, 1], torch.tensor([0.5])])
def test_what_is_no_position_is_refused(position: Any) -> None:
    with pytest.raises(InputError, match=r"give the number of a position, or one for each sample"):
        At(position)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (lambda z: z[:, 0], r"shape \(3, 11\)"),
        (lambda z: z[None], r"shape \(1, 3, 5, 11\)"),
        (lambda z: {"scores": z}, "dict"),
        (lambda z: (z, z), "tuple"),
    ],
)
def test_an_output_without_positions_is_refused(model: Any, ids: Tensor, output: Any, told: str) -> None:
    message = (
        r"target At\(-1\): the output must be a tensor \(samples, positions, classes\), or have one as its "
        rf"logits, and is {told}\."
    )
    with pytest.raises(InputError, match=message):
        explain(lambda ids: output(model(ids)), ids, At(-1))


# ---- files ----

STORED: list[Any] = [
    At(-1),
    At(-1, 3),
    At((0, 1, 2)),
    At([0, 1, 2], [3, 4, 5]),
    At(-1, Contrastive(3)),
    At(-1, Difference(3, 4)),
    At(2, Difference((3, 1, 2), (4, 0, 1))),
    At(-1, LogOdds(3)),
    At(-1, RunnerUp()),
]


@pytest.mark.parametrize("target", STORED, ids=repr)
def test_explanations_of_positions_come_back_from_files(
    model: Any, ids: Tensor, target: At, tmp_path: Path
) -> None:
    e = explain(model, ids, target)
    e.save(tmp_path / "a.safetensors")
    again = relprop.load_explanation(tmp_path / "a.safetensors")
    assert torch.equal(again.relevance, e.relevance)
    assert torch.equal(again.score, e.score)
    assert again.target == e.target
    assert repr(again) == repr(e)
    assert again.measure == e.measure
    assert str(again.ledger) == str(e.ledger)
    assert again.ledger.absorbed.keys() == e.ledger.absorbed.keys()
    assert [str(rule) for rule in again.rules] == [str(rule) for rule in e.rules]
    # What is told says all that was asked.
    close(explain(model, ids, again.target).relevance, e.relevance)


def test_explanations_of_several_texts_come_back_from_files(tmp_path: Path) -> None:
    table = nn.Embedding(WORDS, 4).double()

    def model(input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return table(input_ids).sum(1) + table(decoder_input_ids).sum(1)

    given = {"input_ids": torch.randint(WORDS, (2, 3)), "decoder_input_ids": torch.randint(WORDS, (2, 4))}
    e = relprop.explain(model, **given, target=Difference(0, 3), rules="cp-lrp")
    e.save(tmp_path / "a.safetensors")
    again = relprop.load_explanation(tmp_path / "a.safetensors")
    assert list(again.inputs) == list(e.inputs) == ["input_ids", "decoder_input_ids"]
    for name, R in e.inputs.items():
        assert torch.equal(again.inputs[name], R)
    assert again.target == e.target == Difference((0, 0), 3)
