"""`compile(dynamic=True)`: one graph for every length, or one for each where lengths are not alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from by_graph import assert_same, graphs_of
from networks import DOUBLE
from readers import Reader, one_by_one, texts
from relprop import Explainer
from relprop.runs import compiled as compiled_module
from relprop.runs.kinds import Family
from relprop.runs.lengths import Law, law_of

pytestmark = pytest.mark.filterwarnings("ignore:the explained score is negative")


class Runs(Explainer):
    """Counts explanations in Python."""

    in_python = 0

    def _results(self, *args: Any) -> Any:
        self.in_python += 1
        return super()._results(*args)


def after(explainer: Explainer, lengths: tuple[int, ...] = (6, 7, 9, 4), **options: Any) -> Explainer:
    """Return a compiled explainer that was called with texts of several lengths."""
    compiled = explainer.compile(dynamic=True, **options)
    for length in lengths:
        compiled(texts(length), target=1)
    return compiled


def has_graph(compiled: Explainer) -> bool:
    """Whether there is one graph for all lengths."""
    assert compiled._graphs is not None
    return any(family.graphs for family in compiled._graphs._families.values())


@pytest.mark.parametrize("rules", ["attnlrp", "cp-lrp", "epsilon", "gradient-times-input"])
def test_one_graph_serves_every_length(rules: str) -> None:
    explainer = Runs(Reader(), rules=rules)
    compiled = after(explainer)
    assert has_graph(compiled)
    for length in (2, 5, 12, 31):
        in_python = []
        for seed in range(3):
            before = explainer.in_python
            found = compiled(texts(length, seed), target=2)
            in_python.append(explainer.in_python - before)
            assert_same(found, explainer(texts(length, seed), target=2))
        assert in_python == [1, 0, 0]
    assert graphs_of(compiled) == 4  # of the lengths before


def test_batches_of_any_size_and_length() -> None:
    explainer = Explainer(Reader(), rules="cp-lrp")
    compiled = after(explainer)
    for length, samples in ((5, 1), (8, 5), (5, 3), (8, 4)):
        x = texts(length, samples=samples)
        for _ in range(2):
            assert_same(compiled(x, target=1), explainer(x, target=1))
    assert has_graph(compiled)
    assert graphs_of(compiled) == 4


def test_what_is_recorded_and_several_targets() -> None:
    explainer = Explainer(Reader(), rules="attnlrp")
    options: dict[str, Any] = {"targets": [0, 2], "record": ["tokens", "parts"], "per_operation": True}
    compiled = explainer.compile(dynamic=True)
    for length in (6, 7, 9, 4, 8, 8):
        found, expected = (e.each(texts(length), **options) for e in (compiled, explainer))
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
            torch.testing.assert_close(dict(one.inner), dict(other.inner))
    assert has_graph(compiled)


def test_a_length_of_one_has_a_graph_of_its_own() -> None:
    explainer = Explainer(Reader(), rules="cp-lrp")
    compiled = after(explainer, (6, 1, 7, 9, 4))
    assert has_graph(compiled)
    for length in (1, 5):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
    assert graphs_of(compiled) == 5


def test_weights_that_changed_are_noticed() -> None:
    explainer = Explainer(model := Reader(), rules="epsilon")
    compiled = after(explainer, (6, 7, 9, 4, 5, 5))
    with torch.no_grad():
        model.head.weight.mul_(-1.5)
    for length in (5, 8, 11, 12, 5, 13):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
    assert has_graph(compiled)  # a new one


def test_weights_that_change_while_lengths_are_recorded() -> None:
    explainer = Explainer(model := Reader(), rules="epsilon")
    compiled = explainer.compile(dynamic=True)
    for length in (6, 7, 9, 4, 5, 8, 10):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
        with torch.no_grad():
            model.head.weight.mul_(1.5)
    assert not has_graph(compiled)


def at_most(limit: int) -> Callable[[Tensor], Tensor]:
    def between(h: Tensor) -> Tensor:
        if h.shape[1] > limit:
            raise ValueError(f"at most {limit} tokens")
        return h

    return between


def test_an_error_for_some_lengths_is_one_as_before() -> None:
    compiled = after(explainer := Explainer(Reader(at_most(10)), rules="epsilon"))
    for _ in range(2):
        with pytest.raises(ValueError, match="at most 10 tokens"):
            compiled(texts(11), target=1)
    assert_same(compiled(texts(10), target=1), explainer(texts(10), target=1))


def longer_otherwise(h: Tensor) -> Tensor:
    return h.tanh() if h.shape[1] > 10 else h


def longer_with_more_sinks(h: Tensor) -> Tensor:
    return h + 1.0 if h.shape[1] > 10 else h


def even_otherwise(h: Tensor) -> Tensor:
    return h * 2 if h.shape[1] % 2 == 0 else h


@pytest.mark.parametrize(
    ("between", "lengths", "others"),
    [
        (longer_otherwise, (6, 7, 9, 4), 1),
        (longer_with_more_sinks, (6, 7, 9, 4), 1),
        (even_otherwise, (5, 7, 9, 3), 2),
    ],
)
def test_a_model_that_branches_on_the_length(
    between: Callable[[Tensor], Tensor], lengths: tuple[int, ...], others: int
) -> None:
    compiled = after(explainer := Explainer(Reader(between), rules="epsilon"), lengths)
    assert has_graph(compiled)
    for length in (8, 12, 8, 12, 5):
        for seed in range(2):
            assert_same(compiled(texts(length, seed), target=1), explainer(texts(length, seed), target=1))
    assert graphs_of(compiled) == 4 + others


def test_values_on_which_a_model_branches() -> None:
    model = Reader(lambda h: h if bool(h[0, 0, 0] > 0) else h * 2)
    explainer = Runs(model, rules="epsilon")
    with torch.no_grad():  # of the first position, which attends to itself alone
        h = model.tokens.weight + model.positions.weight[0]
        signs = ((h + model.parts(h)[:, 16:])[:, 0] > 0).tolist()

    def beginning(length: int, seed: int, *, positive: bool) -> Tensor:
        x = texts(length, seed)
        x[0, 0] = signs.index(positive)
        return x

    compiled = explainer.compile(dynamic=True)
    for length in (6, 7, 9, 4, 12):
        compiled(beginning(length, 0, positive=True), target=1)
    assert has_graph(compiled)
    for positive, runs in ((True, 0), (False, None), (True, 0), (False, 0)):
        for seed in (1, 2):
            x, before = beginning(12, seed, positive=positive), explainer.in_python
            found = compiled(x, target=1)
            assert runs is None or explainer.in_python - before == runs
            assert_same(found, explainer(x, target=1))
    assert has_graph(compiled)


def with_a_list_that_is_written_to(h: Tensor) -> Tensor:
    mask = torch.tensor([1.0] * 8, dtype=h.dtype)
    mask[0] = 0.5
    mask[1] += 1
    return h * mask


class WithoutAutocast(nn.Module):
    """A product of parameters in double precision, whatever autocast says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one, self.other = (nn.Parameter(torch.randn(8, 8)) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return h @ (self.one @ self.other).to(h.dtype)


def test_constants_to_which_the_model_writes() -> None:
    compiled = after(explainer := Runs(Reader(with_a_list_that_is_written_to), rules="epsilon"))
    for length in (8, 8, 5, 8):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
    before = explainer.in_python
    compiled(texts(8, 1), target=1)
    assert explainer.in_python == before
    assert has_graph(compiled)


def test_constants_that_are_computed_without_autocast() -> None:
    explainer = Explainer(Reader(WithoutAutocast()), rules="epsilon")
    with torch.autocast("cpu", torch.bfloat16):
        compiled = after(explainer)
        assert has_graph(compiled)
        for length in (8, 8):
            assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))


def test_results_are_no_memory_of_the_graph() -> None:
    explainer = Explainer(Reader(), rules="epsilon")
    compiled = after(explainer, (6, 7, 9, 4, 8))
    found = compiled(texts(8), target=1)
    found.mapped(lambda t: t.data.fill_(7))
    assert_same(compiled(texts(8), target=1), explainer(texts(8), target=1))


def test_what_goes_wrong_while_lengths_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*args: Any) -> Any:
        raise MemoryError("of the test")

    monkeypatch.setattr(compiled_module, "of_any_length", failing)
    compiled = after(explainer := Explainer(Reader(), rules="epsilon"), (6, 7, 9))
    with pytest.warns(UserWarning, match="because MemoryError: of the test. Up to 32 lengths"):
        found = compiled(texts(4), target=1)
    assert_same(found, explainer(texts(4), target=1))
    assert_same(compiled(texts(5), target=1), explainer(texts(5), target=1))


def halves(h: Tensor) -> Tensor:
    n = h.shape[1] // 2
    return h[:, :n] + h[:, -n:]


def by_a_list(h: Tensor) -> Tensor:
    return h * torch.tensor([1.0 + i for i in range(h.shape[1])], dtype=h.dtype)[:, None]


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (by_a_list, "they have other constants"),
        (halves, "aten.slice.Tensor takes 3, 4, 2 for the lengths 7, 9, 4"),
    ],
)
def test_lengths_that_are_not_alike_have_graphs_of_their_own(
    between: Callable[[Tensor], Tensor], reason: str
) -> None:
    explainer = Explainer(Reader(between), rules="cp-lrp")
    compiled = explainer.compile(dynamic=True)
    for length in (6, 7, 9):
        compiled(texts(length), target=1)
    told = (
        rf"compile\(dynamic=True\): there is no graph for all lengths, because {reason}. Up to 32 lengths get"
    )
    with pytest.warns(UserWarning, match=told):
        compiled(texts(4), target=1)
    for length in (4, 5, 8, 7):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
    assert not has_graph(compiled)


def test_as_many_lengths_have_graphs_as_an_explainer_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "_KINDS", 7)
    explainer = Runs(Reader(one_by_one), rules="cp-lrp")
    compiled = explainer.compile(dynamic=True)
    for length in (3, 4, 5, 6, 7):
        compiled(texts(length), target=1)
    told = r"because explanations have \d+, \d+, \d+, \d+, \d+ operations. Up to 7 lengths get"
    with pytest.warns(UserWarning, match=told):
        compiled(texts(8), target=1)
    compiled(texts(9), target=1)
    with pytest.warns(UserWarning, match="there are graphs for 7 lengths, and no graph for all. The res"):
        compiled(texts(10), target=1)
    for length in (10, 11, 3, 9):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
    assert graphs_of(compiled) == 7
    before = explainer.in_python
    compiled(texts(3), target=1)
    assert explainer.in_python == before


def even_or_odd(h: Tensor) -> Tensor:
    return h.sin() if h.shape[1] % 2 == 0 else h.tanh()


@pytest.mark.parametrize("between", [even_or_odd, longer_otherwise])
def test_each_way_of_a_model_has_a_graph(between: Callable[[Tensor], Tensor]) -> None:
    explainer = Runs(Reader(between), rules="epsilon")
    compiled = after(explainer, (5, 16, 9, 30, 7, 14, 3, 20))
    assert compiled._graphs is not None
    (family,) = compiled._graphs._families.values()
    assert len(family.graphs) == 2
    for length in (8, 11, 25, 4, 12, 6):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
        before = explainer.in_python
        found = compiled(texts(length, 1), target=1)
        assert explainer.in_python == before
        assert_same(found, explainer(texts(length, 1), target=1))
    assert sum(len(graph.proven) for graph in family.graphs) == 7


class FirstTokens(nn.Module):
    """A model that reads at most so many tokens."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.head, self.most = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 3), most
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids[:, : self.most] if ids.shape[1] > self.most else ids
        out: Tensor = self.head(self.tokens(ids).relu().sum(1))
        return out


def test_a_padded_text_does_not_hide_that_a_model_takes_another_way() -> None:
    compiled = after(explainer := Explainer(FirstTokens(16), rules="epsilon"), (5, 7, 9, 12, 15))
    assert has_graph(compiled)
    padded = texts(20)
    padded[:, 10:] = 0
    for x in (padded, texts(20), texts(20, 1), texts(14)):
        assert_same(compiled(x, target=1), explainer(x, target=1))


def test_another_weight_for_some_lengths() -> None:
    one, other = torch.randn(2, 8, 8, **DOUBLE)
    model = Reader(lambda h: h @ (one if h.shape[1] < 10 else other))
    compiled = after(explainer := Explainer(model, rules="epsilon"))
    assert has_graph(compiled)
    for length in (8, 12, 12, 30):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))


def test_two_lengths_have_graphs_of_their_own() -> None:
    torch.manual_seed(0)
    one, other = nn.Embedding(20, 4).double(), nn.Embedding(20, 4).double()
    explainer = Explainer(lambda x, y: (one(x) @ other(y).mT).sum((1, 2))[:, None], rules="epsilon")
    compiled = explainer.compile(dynamic=True)
    told = "because their inputs differ in more than one size"
    for lengths in ((4, 5), (5, 5), (6, 4)):
        compiled(*map(texts, lengths), target=0)
    with pytest.warns(UserWarning, match=told):
        compiled(texts(7), texts(9), target=0)
    for lengths in ((4, 5), (8, 3)):
        found, expected = (e(*map(texts, lengths), target=0) for e in (compiled, explainer))
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("layouts", "expected"),
    [
        ([(2, 6, 6, 1)], False),  # as the first
        ([(2, 7, 7, 1)], True),
        ([(2, 1, 1, 1)], False),
        ([(2, 0, 1, 1)], False),
        ([(1, 7, 7, 1)], False),
    ],
)
def test_which_layouts_are_examples(layouts: Any, expected: bool) -> None:
    family = Family()
    assert not family.learns_from([(2, 6, 6, 1)])
    assert family.learns_from(layouts) is expected


@pytest.mark.parametrize(
    ("numbers", "lengths", "terms"),
    [
        ((5, 6, 9), (5, 6, 9), (0, 1, 0, 0)),
        ((11, 13, 19), (5, 6, 9), (1, 2, 0, 0)),
        ((-5, -6, -9), (5, 6, 9), (0, -1, 0, 0)),
        ((25, 36, 81), (5, 6, 9), (0, 0, 1, 0)),
        ((55, 78, 171), (5, 6, 9), (0, 1, 2, 0)),
        ((1 / 5, 1 / 6, 1 / 9), (5, 6, 9), (0, 0, 0, 1)),
        ((2.5, 3.0, 4.5), (5, 6, 9), (0, 0.5, 0, 0)),
        ((5, 6, 10), (5, 6, 9), None),
        ((2, 3, 4), (5, 6, 9), None),
        ((5**0.5, 6**0.5, 3.0), (5, 6, 9), None),
        ((0, 1, 1), (5, 6, 9), None),
    ],
)
def test_laws(numbers: Any, lengths: Any, terms: Any) -> None:
    law = law_of(numbers, lengths)
    assert law == (None if terms is None else Law(terms))
    if law is not None:
        assert [law(length) for length in lengths] == pytest.approx(numbers, rel=1e-14)


def test_each_order_of_dimensions_has_a_graph() -> None:
    torch.manual_seed(0)
    explainer = Explainer(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), Mean(), nn.Linear(3, 2)).double().eval())
    compiled = explainer.compile(dynamic=True)
    for length in (5, 6, 7, 8, 9, 11, 12, 13, 14):
        for x in (torch.randn(2, length, 4, **DOUBLE), torch.randn(2, 4, length, **DOUBLE).mT):
            assert_same(compiled(x, target=1), explainer(x, target=1))
    assert compiled._graphs is not None
    (family,) = compiled._graphs._families.values()
    assert [len(graph.proven) for graph in family.graphs] == [6, 5]  # the very first is not recorded


class Mean(nn.Module):
    """The mean over time."""

    def forward(self, h: Tensor) -> Tensor:
        return h.mean(1)


def test_weights_that_share_their_memory() -> None:
    """As cuDNN's layers have them: parts of one flat tensor."""
    flat = torch.randn(144, **DOUBLE)
    one, other = flat[:64].view(8, 8), flat[64:128].view(8, 8)
    compiled = after(
        explainer := Explainer(Reader(lambda h: h @ one + (h @ other.mT).tanh()), rules="attnlrp")
    )
    assert has_graph(compiled)
    for length in (8, 8, 5):
        assert_same(compiled(texts(length), target=1), explainer(texts(length), target=1))
