"""A program as a user writes it, for type checkers: nothing here is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import relprop
from relprop.places import Depth, First, Kind, Layer, Place
from relprop.rules import Epsilon, Flat, Gamma, Incoming, LinearOperation, Propagated
from relprop.targets import At, Contrastive

model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)).eval()
images = torch.rand(4, 3, 3, 3)

explanation = relprop.explain(model, images, target=2, rules="epsilon-plus-flat", record=model[0])
assert_type(explanation, relprop.Explanation)
assert_type(explanation.relevance.sum(), Tensor)
assert_type(explanation.inputs["input"], Tensor)
assert_type(explanation.inner["0"], Tensor)
assert_type(explanation[2], relprop.Explanation)
assert_type(explanation[:2].ledger.gap, Tensor)
assert_type(len(explanation), int)
assert_type([part.score for part in explanation], list[Tensor])
assert_type(explanation.to("cpu"), relprop.Explanation)
assert_type(explanation.cite(), str)
assert_type(relprop.Explanation.concatenate([explanation, explanation]), relprop.Explanation)
explanation.save("heatmap.png", picture=images)
assert_type(relprop.load_explanation(Path("explanation.safetensors")), relprop.Explanation)

several = relprop.explain_each(model, images, targets=[2, Contrastive(3), None])
assert_type(several, list[relprop.Explanation])

places: Sequence[Place] = [First() & Kind("convolution"), ~Layer(nn.Linear), Depth(1, 6) | Depth(9)]
rules = relprop.Composite(
    [
        (First(), Flat()),
        ("3.*", Epsilon(1e-2)),
        (nn.Conv2d, Gamma(0.25)),
        (model[3], Epsilon()),
        (torch.conv2d, Gamma()),
        (places[0], Gamma()),
        ("*", Epsilon()),
    ]
)
explainer = relprop.Explainer(model, rules=rules, bounds=(0, 1))
assert_type(explainer(images, target=[1, 2, 3, 0], kwargs={}), relprop.Explanation)
assert_type(explainer.each(images, targets=[1, 2]), list[relprop.Explanation])
assert_type(relprop.coverage(model, images).complete, bool)
assert_type(explanation.top(3)[0].relevance, float)
assert_type(explanation.aggregate({"left": images[0, 0] > 0})["left"], Tensor)
explanation.waterfall().save("waterfall.pdf")
explanation.aggregate({"left": images[0, 0] > 0}).map(images).save("parts.svg")
explanation.plot(images, ax=explanation.waterfall().axes[0], sample=2).set_title("On axes")


class Mine:
    """A rule of a user's own."""

    puts_relevance = False

    def __call__(self, op: LinearOperation, incoming: Incoming) -> Propagated:
        """The plain gradient."""
        return Propagated(coefficient=op.transpose(incoming.relevance, op.weight))


relprop.explain(model, images, rules=Mine())


def text(language_model: relprop.LanguageModel, tokens: Tensor) -> None:
    """Texts and generated answers."""
    answer = relprop.explain_generation(language_model.module, tokens)
    assert_type(answer[0], relprop.Explanation)
    assert_type(answer.relevance, Tensor)
    of_text = relprop.explain_text(language_model, "The film was long.", target="negative")
    assert_type(of_text.relevance.sum(), Tensor)
    assert_type(of_text.tokens, list[str])
    relprop.explain(language_model.module, input_ids=tokens, target=At(-1, 7))


try:
    relprop.explain(model, images, rules="epsilon")
except relprop.errors.CoverageError as error:
    print(error)
except relprop.RelpropError as error:
    print(error)
