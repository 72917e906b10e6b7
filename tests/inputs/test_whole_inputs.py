"""Inputs without a dimension of samples: graphs, bags, pictures in a list; and outputs that lost it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.errors import InputError
from small_transformers import drawn

NODES, EDGES = 5, 7


@dataclass
class Graph:
    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor


def graph() -> Graph:
    index = torch.randint(NODES, (2, EDGES))
    return Graph(torch.randn(NODES, 4, **DOUBLE), index, torch.randn(EDGES, 2, **DOUBLE))


class Messages(nn.Module):
    """A network for graphs, and how it returns its scores."""

    def __init__(self, read_out: Any) -> None:
        super().__init__()
        self.node, self.edge, self.out, self.read_out = (
            nn.Linear(4, 8),
            nn.Linear(2, 8),
            nn.Linear(8, 3),
            read_out,
        )

    def forward(self, graph: Graph) -> Tensor:
        source, target = graph.edge_index
        sent = torch.relu(self.node(graph.x)[source] + self.edge(graph.edge_attr))
        return self.read_out(self.out(torch.zeros(NODES, 8, **DOUBLE).index_add(0, target, sent)))


RULES = ["epsilon-plus-flat", "epsilon", "gradient-times-input"]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    ("read_out", "target"),
    [
        (lambda y: y.mean(0, keepdim=True), 1),
        (lambda y: y.mean(0), 1),
        (lambda y: y.mean(0)[1], None),
        (lambda y: y.mean(0)[1:2], None),
        (lambda y: y, lambda y: y.mean(0)[1]),
        (lambda y: {"nodes": y}, lambda y: y["nodes"].mean(0)[1]),
        (lambda y: {"score": y.mean(0)[1]}, relprop.targets.Part("score")),
        (lambda y: y.mean(0), relprop.targets.Weighted(torch.tensor([0.0, 1, 0], **DOUBLE))),
    ],
)
def test_one_number_is_the_score_of_a_whole_graph(read_out: Any, target: Any, rules: str) -> None:
    model, given = drawn(Messages(read_out)), graph()
    e = relprop.explain(model, given, target=target, rules=rules)
    assert {name: R.shape for name, R in e.inputs.items()} == {
        "graph.x": (NODES, 4),
        "graph.edge_attr": (EDGES, 2),
    }
    assert len(e) == e.ledger.samples == 1
    assert e.score.shape == (1,)
    # As with a dimension of samples that the user adds.
    model.read_out = lambda y: y.mean(0, keepdim=True)
    expected = relprop.explain(
        lambda x, edges: model(Graph(x[0], given.edge_index, edges[0])),
        given.x[None],
        given.edge_attr[None],
        target=1,
        rules=rules,
    )
    for R, other in zip(e.inputs.values(), expected.inputs.values(), strict=True):
        torch.testing.assert_close(R, other[0])
    torch.testing.assert_close(e.ledger.total, expected.ledger.total)
    assert e.ledger.absorbed.keys() == expected.ledger.absorbed.keys()


def test_scores_of_nodes_with_edges_need_a_sum() -> None:
    model, given = drawn(Messages(lambda y: y)), graph()
    with pytest.raises(
        InputError, match=r"different numbers of samples .*'graph.x': 5, 'graph.edge_attr'"
    ) as e:
        relprop.explain(model, given)
    assert "explain one number: target=lambda output: output[:, 0].sum()" in str(e.value)
    assert len(relprop.explain(model, given, target=lambda output: output[:, 0].sum())) == 1


@pytest.mark.parametrize(
    "target", [0, None, lambda y: y[:, 0], relprop.targets.Weighted(torch.ones(3, **DOUBLE))]
)
def test_several_scores_of_a_whole_are_to_be_summed(target: Any) -> None:
    model, x = drawn(nn.Linear(4, 3)), torch.randn(NODES, 4, **DOUBLE)

    def graphs(x: Tensor) -> Tensor:
        return torch.stack([model(x[:2]).sum(0), model(x[2:]).sum(0)])

    with pytest.raises(
        InputError, match=r"shape \(5,\), or one number; .* gave shape \(2,\)\. .* explain the sum"
    ) as e:
        relprop.explain(graphs, x, target=target)
    if callable(target) and not isinstance(target, relprop.targets.Weighted):
        assert str(e.value).endswith("add .sum() to what the target returns.")
        assert len(relprop.explain(graphs, x, target=lambda y: target(y).sum())) == 1
    else:
        assert str(e.value).endswith("target=lambda output: output[:, 0].sum().")
        assert len(relprop.explain(graphs, x, target=lambda output: output[:, 0].sum())) == 1


def by_degrees(h: Tensor, edges: Tensor) -> Tensor:
    source, target = edges
    degree = torch.ones(NODES, **DOUBLE).index_add(0, target, torch.ones(EDGES, **DOUBLE))
    norm = degree[source].rsqrt() * degree[target].rsqrt()
    return torch.zeros_like(h).index_add(0, target, norm[:, None] * h[source])


def by_attention(h: Tensor, edges: Tensor) -> Tensor:
    source, target = edges
    scores = (h[source] * h[target]).sum(1)
    largest = torch.full((NODES,), -torch.inf, **DOUBLE).scatter_reduce(0, target, scores.detach(), "amax")
    raised = (scores - largest[target]).exp()
    total = torch.zeros(NODES, **DOUBLE).index_add(0, target, raised)
    return torch.zeros_like(h).index_add(0, target, (raised / total[target])[:, None] * h[source])


@pytest.mark.parametrize("rules", [*RULES, "attnlrp"])
@pytest.mark.parametrize("messages", [by_degrees, by_attention])
def test_edges_are_no_ids_whatever_their_name(messages: Any, rules: str) -> None:
    """Warnings are errors here: nothing is said of edges either."""
    layer, x, edges = (
        drawn(nn.Linear(4, 3)),
        torch.randn(NODES, 4, **DOUBLE),
        torch.randint(NODES, (2, EDGES)),
    )

    def network(x: Tensor, e: Tensor) -> Tensor:
        return messages(layer(x), e)

    given = relprop.explain(network, x, edges, target=lambda y: y[:, 1].sum(), rules=rules)
    bound = relprop.explain(lambda x: network(x, edges), x, target=lambda y: y[:, 1].sum(), rules=rules)
    assert list(given.inputs) == ["x"]
    assert torch.equal(given.relevance, bound.relevance)


class Bag(nn.Module):
    """Attention over a bag of instances (instances, features), by Ilse et al. 2018."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.weigh, self.out = nn.Linear(4, 6), nn.Linear(6, 1), nn.Linear(6, 2)

    def forward(self, bag: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(bag))
        return self.out((torch.softmax(self.weigh(hidden), 0) * hidden).sum(0))


def test_a_bag_is_explained_as_the_error_says() -> None:
    model, x = drawn(Bag()), torch.randn(7, 4, **DOUBLE)
    with pytest.raises(
        InputError, match=r"the output has shape \(2,\), and the inputs have 7 samples"
    ) as error:
        relprop.explain(model, x)
    assert "explain(lambda x: model(x).unsqueeze(0), x)" in str(error.value)
    e = relprop.explain(lambda x: model(x).unsqueeze(0), x)
    assert e.relevance.shape == (7, 4)
    assert len(e) == 1
    best = int(model(x).argmax())
    chosen = relprop.explain(model, x, target=lambda output: output[best])
    assert torch.equal(chosen.relevance, e.relevance)


def test_pictures_of_several_sizes_in_a_list_are_explained() -> None:
    conv = drawn(nn.Conv2d(3, 2, 3))

    def detector(pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        return [{"scores": conv(p[None]).relu().amax((2, 3))[0]} for p in pictures]

    pictures = [torch.rand(3, 8, 8, **DOUBLE), torch.rand(3, 9, 7, **DOUBLE)]
    e = relprop.explain(detector, pictures, target=lambda out: out[0]["scores"][1])
    assert {name: R.shape for name, R in e.inputs.items()} == {
        "pictures[0]": (3, 8, 8),
        "pictures[1]": (3, 9, 7),
    }
    assert not e.inputs["pictures[1]"].any()
    assert e.inputs["pictures[0]"].any()


def test_a_whole_is_drawn_and_stored(tmp_path: Any) -> None:
    conv = drawn(nn.Conv2d(3, 2, 3))
    pictures = [torch.rand(3, 8, 8, **DOUBLE), torch.rand(3, 9, 7, **DOUBLE)]
    e = relprop.explain(lambda ps: sum(conv(p[None]).sum() for p in ps), pictures, target=lambda y: y)
    alone = relprop.explain(lambda x: conv(x).sum((1, 2, 3)), pictures[1][None], target=lambda y: y)
    alone = dataclasses.replace(alone, score=e.score)  # which is written above the map
    assert np.array_equal(e.plot(of="ps[1]").pixels, alone.plot().pixels)
    e.save(tmp_path / "e.safetensors")
    again = relprop.load_explanation(tmp_path / "e.safetensors")
    assert again.inputs.keys() == e.inputs.keys()
    assert torch.equal(again.score, e.score)


def test_a_whole_has_no_samples_to_take() -> None:
    e = relprop.explain(lambda x: x.sum(0, keepdim=True), torch.rand(4, 3))
    assert torch.equal(e[0].relevance, e.relevance)
    assert [len(each) for each in e] == [1]
    with pytest.raises(
        InputError, match=r"Explanation\.concatenate: input 'x' of shape \(4, 3\) has no dimension"
    ):
        relprop.Explanation.concatenate([e, e])


def test_several_targets_may_have_one_number_or_one_for_each_sample() -> None:
    x = torch.rand(4, 3)
    targets = [0, lambda y: y[:, 0].sum(), 1]
    each = relprop.explain_each(nn.Linear(3, 2).eval(), x, targets=targets, rules="epsilon")
    assert [len(e) for e in each] == [4, 1, 4]
    assert [len(e.ledger.seed) for e in each] == [4, 1, 4]
    torch.testing.assert_close(each[0].relevance, each[1].relevance)
    torch.testing.assert_close(each[0].ledger.total.sum(), each[1].ledger.total.sum())


# ---- outputs ----


def network(*last: nn.Module) -> nn.Module:
    return drawn(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *last))


def test_one_number_a_sample_is_the_score() -> None:
    model, x = network(nn.Linear(8, 1)), torch.rand(3, 4, **DOUBLE)
    e = relprop.explain(lambda x: model(x).squeeze(-1), x)
    expected = relprop.explain(model, x)
    assert torch.equal(e.relevance, expected.relevance)
    assert torch.equal(e.score, expected.score)
    assert torch.equal(e.target, expected.target)
    with pytest.raises(InputError, match="the output has one class, and no other to compare with"):
        relprop.explain(lambda x: model(x).squeeze(-1), x, target=relprop.targets.RunnerUp())


def test_a_negative_number_a_sample_is_told_what_to_explain_instead() -> None:
    model, x = network(nn.Linear(8, 1)), torch.rand(3, 4, **DOUBLE)

    def negative(x: Tensor) -> Tensor:
        return -(model(x) ** 2).squeeze(-1)

    with pytest.warns(
        relprop.errors.ScoreWarning, match=r"target=lambda y: y - reference.*target=lambda y: -y"
    ):
        relprop.explain(negative, x)
    assert (relprop.explain(negative, x, target=lambda y: -y).score > 0).all()


@pytest.mark.parametrize("target", [None, 1, relprop.targets.RunnerUp(), relprop.targets.LogOdds(1)])
def test_a_lost_dimension_of_one_sample_is_found(target: Any) -> None:
    model, x = network(nn.Linear(8, 3)), torch.rand(1, 4, **DOUBLE)
    e = relprop.explain(lambda x: model(x).squeeze(), x, target=target)
    expected = relprop.explain(model, x, target=target)
    assert torch.equal(e.relevance, expected.relevance)
    assert torch.equal(e.target, expected.target)


PICTURES = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(-3), nn.Linear(4, 2)).eval()


def test_a_picture_without_samples_is_told_from_a_graph() -> None:
    x = torch.rand(3, 8, 8)
    with pytest.raises(
        InputError, match=r"the output has shape \(2,\), and the inputs have 3 samples"
    ) as error:
        relprop.explain(PICTURES, x)
    assert "explain(model, x.unsqueeze(0))" in str(error.value)
    assert relprop.explain(PICTURES, x.unsqueeze(0)).relevance.shape == (1, 3, 8, 8)


def test_as_many_channels_as_classes_are_not_mistaken_for_samples() -> None:
    model = drawn(nn.Sequential(PICTURES[0], PICTURES[1], PICTURES[2], nn.Linear(4, 3)))
    x = torch.rand(3, 8, 8, **DOUBLE)
    message = (
        r"shape \(3,\), and it is not clear whether .* first dimension is that of the samples: give x.unsq"
    )
    with pytest.raises(InputError, match=message) as error:
        relprop.explain(model, x, target=1)
    assert "target=lambda output: output" in str(error.value)
    assert len(relprop.explain(model, x.unsqueeze(0), target=1)) == 1
    assert len(relprop.explain(lambda x: model(x.unsqueeze(1).expand(-1, 3, -1, -1))[:, 0], x)) == 3
