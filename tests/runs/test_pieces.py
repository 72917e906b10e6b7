"""`compile(dynamic=True)`: batches of any size by one graph, or by one for each size where samples mix."""

import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from by_graph import Small, assert_by_graph, assert_same, graphs_of, pictures
from networks import DOUBLE
from relprop import Explainer
from relprop.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")


@pytest.fixture
def explainer() -> Explainer:
    return Explainer(Small(), rules="epsilon-gamma-flat")


def compiled(explainer: Explainer, samples: int = 3, **options: Any) -> Explainer:
    return explainer.compile(pictures(samples), target=0, dynamic=True, **options)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 6, 7])
def test_one_graph_serves_every_number_of_samples(explainer: Explainer, samples: int) -> None:
    graph = compiled(explainer)
    for seed in (1, 2):
        assert_by_graph(explainer, graph, pictures(samples, seed), target=2)


def test_a_much_larger_batch_gives_the_size_of_pieces(explainer: Explainer) -> None:
    graph = compiled(explainer, 1)
    assert_by_graph(explainer, graph, pictures(4), target=2)  # in four pieces
    assert_by_graph(explainer, graph, pictures(9), target=2, graphs=2)
    for samples in (8, 12, 3, 30):
        assert_by_graph(explainer, graph, pictures(samples), target=2, graphs=2)
    assert_by_graph(explainer, graph, pictures(1), target=2, graphs=2)
    assert_by_graph(explainer, graph, pictures(2), target=2, graphs=3)  # too few to be filled up


def test_classes_of_each_sample_are_cut_alike(explainer: Explainer) -> None:
    graph = compiled(explainer)
    assert_by_graph(explainer, graph, pictures(5), target=[4, 0, 1, 1, 3], graphs=2)
    assert_by_graph(explainer, graph, pictures(4), target=[2, 2, 1, 0])
    assert_by_graph(explainer, graph, pictures(7), graphs=3)  # the best class of each
    assert_by_graph(explainer, graph, pictures(4), target=lambda y: y[:, 1], graphs=4)


def test_what_is_recorded_is_joined(explainer: Explainer) -> None:
    graph = compiled(explainer)
    options: dict[str, Any] = {"target": 1, "record": ["first", "head.0"], "per_operation": True}
    found, expected = (e(pictures(5), **options) for e in (graph, explainer))
    assert_same(found, expected)
    for name, R in expected.inner.items():
        torch.testing.assert_close(found.inner[name], R)
    assert list(found.ledger.operations) == list(expected.ledger.operations)
    assert len(found[1:4]) == 3


def test_parameters_and_tensor_targets_are_not_cut(explainer: Explainer) -> None:
    graph = compiled(explainer)
    weights = torch.zeros(5, 5, **DOUBLE)
    weights[:, 2] = 1
    assert_by_graph(explainer, graph, pictures(5), target=weights, graphs=2)
    options: dict[str, Any] = {"target": 1, "parameters": ["head.2.weight"]}
    found, expected = (e(pictures(5), **options) for e in (graph, explainer))
    torch.testing.assert_close(found.parameters["head.2.weight"], expected.parameters["head.2.weight"])
    assert graphs_of(graph) == 3


class Centred(nn.Module):
    """A model whose samples depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x - x.mean(0))
        return y


def test_samples_that_depend_on_each_other_are_told_of_and_not_cut() -> None:
    explainer = Explainer(Centred().eval(), rules="epsilon")
    x = torch.randn(5, 4, **DOUBLE)
    graph = explainer.compile(x[:2], target=0, dynamic=True)
    with pytest.warns(
        UserWarning, match=r"compile\(dynamic=True\): in pieces of 2 samples the batch has another"
    ):
        found = graph(x, target=0)
    assert_same(found, explainer(x, target=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile")
        assert_same(graph(-x, target=0), explainer(-x, target=0))
    assert graphs_of(graph) == 2


def test_samples_that_seem_alone_among_copies_are_not_cut_later() -> None:
    layer = nn.Linear(4, 3).double()
    explainer = Explainer(lambda x: layer(x / x.abs().amax().detach()), rules="epsilon")
    x = torch.randn(9, 4, **DOUBLE)
    graph = explainer.compile(x[:4], target=0, dynamic=True)
    assert_same(
        graph(x[:3], target=0), explainer(x[:3], target=0)
    )  # filled up with copies, which change no maximum
    with pytest.warns(UserWarning, match="its samples depend on each other"):
        found = graph(x, target=0)
    assert_same(found, explainer(x, target=0))


def test_a_wrong_number_of_classes_is_told_as_without_a_graph(explainer: Explainer) -> None:
    with pytest.raises(InputError, match=r"3 classes.*5 samples|5 samples.*3"):
        compiled(explainer)(pictures(5), target=[0, 1, 2])


def test_arguments_without_samples_are_not_cut() -> None:
    table, columns = torch.randn(3, 2, **DOUBLE), torch.tensor([0, 2, 3])
    explainer = Explainer(lambda x, columns_index: x[:, columns_index] @ table, rules="epsilon")
    x = torch.randn(5, 4, **DOUBLE)
    graph = explainer.compile(x[:2], columns, target=0, dynamic=True)
    assert_by_graph(explainer, graph, x, columns, target=1, graphs=2)
    assert_by_graph(explainer, graph, x[:3], columns, target=1, graphs=3)


def test_texts_and_arguments_by_name() -> None:
    torch.manual_seed(0)
    words, head = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()

    def model(ids: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = head((words(ids) * mask[..., None]).sum(1))
        return y

    explainer = Explainer(model, rules="epsilon")
    ids, mask = torch.randint(9, (7, 5)), torch.rand(7, 5).gt(0.3).double()
    graph = explainer.compile(ids[:2], target=0, mask=mask[:2], dynamic=True)
    assert_by_graph(explainer, graph, ids, target=1, mask=mask)
    assert_by_graph(explainer, graph, ids[:3], target=1, mask=mask[:3])


def test_channels_last_has_no_second_graph(explainer: Explainer) -> None:
    x = torch.rand(3, 1, 6, 6, **DOUBLE).expand(3, 1, 6, 6).contiguous(memory_format=torch.channels_last)
    graph = explainer.compile(x, target=0, dynamic=True)
    more = torch.rand(7, 1, 6, 6, **DOUBLE).contiguous(memory_format=torch.channels_last)
    assert_by_graph(explainer, graph, more, target=0)


def test_it_is_said_and_kept() -> None:
    explainer = Explainer(nn.Linear(4, 3).eval(), rules="epsilon")
    graph = explainer.compile(torch.rand(2, 4), target=0, dynamic=True)
    assert repr(graph).endswith(".compile(..., mode='replay', dynamic=True)")
    again = pickle.loads(pickle.dumps(graph))
    assert repr(again) == repr(graph)
    x = torch.rand(5, 4)
    torch.testing.assert_close(again(x, target=0).relevance, explainer(x, target=0).relevance)


def test_dynamic_is_a_bool(explainer: Explainer) -> None:
    with pytest.raises(InputError, match=r"compile\(dynamic='batch'\): give True, for one graph for every"):
        explainer.compile(pictures(), target=0, dynamic="batch")  # type: ignore[arg-type]
