"""A result behaves like the batch that it explains: samples taken out of it, and batches joined."""

import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import DOUBLE
from relprop.errors import InputError
from relprop.rules import Epsilon, Gamma
from relprop.targets import At, Contrastive, Difference, Weighted


class Two(nn.Module):
    """A network with two inputs and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.Linear(4, 4, **DOUBLE), nn.Linear(4, 3, **DOUBLE)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head((self.layer(a) + self.layer(b)).relu())}


def batch(seed: int, samples: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(samples, 4, **DOUBLE), torch.randn(samples, 4, **DOUBLE)


def explained(*inputs: Tensor, **options: Any) -> relprop.Explanation:
    given = {"record": ["layer", "head"], "per_operation": True, "rules": Epsilon(0.1)} | options
    return relprop.explain(Two().eval(), *inputs, **given)


def same(a: relprop.Explanation, b: relprop.Explanation) -> None:
    """Two explanations are equal in everything."""
    assert list(a.inputs) == list(b.inputs)
    for name in a.inputs:
        torch.testing.assert_close(a.inputs[name], b.inputs[name], rtol=0, atol=1e-14)
    torch.testing.assert_close(a.output, b.output, rtol=0, atol=1e-14)
    torch.testing.assert_close(a.score, b.score, rtol=0, atol=1e-14)
    torch.testing.assert_close(a.target, b.target)
    torch.testing.assert_close(dict(a.inner.calls), dict(b.inner.calls), rtol=0, atol=1e-14)
    assert (a.preset, a.rules, a.measure) == (b.preset, b.rules, b.measure)
    assert a.ledger.samples == b.ledger.samples
    for one, other in ((a.ledger.absorbed, b.ledger.absorbed), (a.ledger.operations, b.ledger.operations)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
    torch.testing.assert_close(a.ledger.seed, b.ledger.seed, rtol=0, atol=1e-14)
    torch.testing.assert_close(a.ledger.inputs, b.ledger.inputs, rtol=0, atol=1e-14)
    assert float(a.ledger.gap.max()) < 1e-12
    assert float(b.ledger.gap.max()) < 1e-12


def test_samples_are_what_each_alone_would_be() -> None:
    a, b = batch(1, 5)
    whole = explained(a, b)
    assert len(whole) == 5
    singles = [explained(a[i : i + 1], b[i : i + 1]) for i in range(5)]
    for number, single in enumerate(singles):
        same(whole[number], single)
    assert len(list(whole)) == 5
    for part, single in zip(whole, singles, strict=True):
        same(part, single)
    same(whole[-1], singles[4])


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, 2), [0, 2, 4]),
        ([3, 0], [3, 0]),
        (torch.tensor([3, 0]), [3, 0]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
        (np.array([1, 1]), [1, 1]),
    ],
)
def test_several_samples(index: Any, numbers: list[int]) -> None:
    a, b = batch(1, 5)
    same(explained(a, b)[index], explained(a[numbers], b[numbers]))


@pytest.mark.parametrize("index", [5, -6, "layer", [7], 1.5, None])
def test_samples_that_do_not_exist(index: Any) -> None:
    with pytest.raises(InputError, match=r"explanation\[.*\]: give the number of a sample.*there are 5 samp"):
        explained(*batch(1, 5))[index]


def test_batches_are_joined() -> None:
    (a, b), (c, d) = batch(1, 3), batch(2, 2)
    joined = relprop.Explanation.concatenate([explained(a, b), explained(c, d)])
    same(joined, explained(torch.cat([a, c]), torch.cat([b, d])))
    same(relprop.Explanation.concatenate(list(joined)), joined)


def test_relevance_of_parameters_is_summed_over_batches() -> None:
    (a, b), (c, d) = batch(1, 3), batch(2, 2)
    options: dict[str, Any] = {"parameters": "head.weight", "target": 1}
    joined = relprop.Explanation.concatenate([explained(a, b, **options), explained(c, d, **options)])
    whole = explained(torch.cat([a, c]), torch.cat([b, d]), **options)
    assert list(whole.parameters) == ["head.weight"]
    torch.testing.assert_close(joined.parameters["head.weight"], whole.parameters["head.weight"])
    assert whole[0].parameters == {}


def test_what_cannot_be_joined() -> None:
    one = explained(*batch(1, 2))
    join = relprop.Explanation.concatenate
    with pytest.raises(InputError, match="give a list of at least one explanation"):
        join([])
    with pytest.raises(InputError, match="explanations of different rules cannot be concatenated"):
        join([one, explained(*batch(1, 2), rules=Gamma())])
    with pytest.raises(InputError, match="explanations of different recorded modules"):
        join([one, explained(*batch(1, 2), record=())])
    with pytest.raises(InputError, match="explanations of different targets"):
        join([one, explained(*batch(1, 2), target=Contrastive(1))])
    with pytest.raises(InputError, match="explanations of different inputs"):
        join([one, relprop.explain(nn.Linear(4, 3).eval(), torch.rand(2, 4), rules=Epsilon(0.1))])


def test_a_model_that_mixes_its_samples_balances_as_a_whole() -> None:
    def mixing(x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True) / 2

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), **DOUBLE)
    whole = relprop.explain(mixing, x, target=0, rules=Epsilon())
    assert whole.ledger.mixed
    part = whole[1:3]
    assert part.ledger.samples == 2
    assert part.ledger.gap.shape == (2,)
    assert float(part.ledger.gap.max()) == float(whole.ledger.gap.max()) < 1e-12
    assert float(part[0].ledger.gap.max()) < 1e-12


def test_one_input_is_a_tensor_and_of_several_the_error_names_them() -> None:
    e = explained(*batch(1, 2))
    assert list(e.inputs) == ["a", "b"]
    with pytest.raises(InputError, match=r"2 inputs were explained, a, b\. .*explanation.inputs\['a'\]"):
        _ = e.relevance
    x = torch.rand(2, 4)
    single = relprop.explain(nn.Linear(4, 3).eval(), x, rules=Epsilon())
    assert list(single.inputs) == ["input"]
    assert single.relevance is single.inputs["input"]


def test_a_name_that_is_not_there_is_told() -> None:
    torch.manual_seed(0)
    explanation = relprop.explain(Two().eval(), *batch(0, 2), rules="epsilon")
    with pytest.raises(
        InputError, match=r"explanation.inputs\['c'\]: there is no such name; there are 'a', 'b'."
    ):
        explanation.inputs["c"]
    with pytest.raises(InputError, match=r"explanation.parameters\['w'\]: .* there are none."):
        explanation.parameters["w"]
    assert explanation.inputs.get("c") is None
    assert "c" not in explanation.inputs
    stored = pickle.loads(pickle.dumps(explanation[:1].inputs))
    with pytest.raises(InputError, match=r"explanation.inputs\['c'\]"):
        stored["c"]


def test_an_explanation_can_be_pickled() -> None:
    torch.manual_seed(0)
    model = Two().eval()
    explanation = relprop.explain(model, *batch(0, 2), rules="epsilon", record=model.head)
    copy = pickle.loads(pickle.dumps(explanation))
    torch.testing.assert_close(copy.inputs["a"], explanation.inputs["a"])
    torch.testing.assert_close(copy.inner["head"], explanation.inner[model.head])
    assert copy.rules == explanation.rules


def test_an_array_of_numpy() -> None:
    x = torch.rand(2, 4)
    e = relprop.explain(nn.Linear(4, 3).eval(), x, rules=Epsilon())
    assert isinstance(e.numpy(), np.ndarray)
    assert np.array_equal(e.numpy(), e.relevance.numpy())
    half = relprop.explain(nn.Linear(4, 3).eval().bfloat16(), x.bfloat16(), rules=Epsilon(0.1))
    assert half.numpy().dtype == np.float32
    with pytest.raises(InputError, match="2 inputs were explained"):
        explained(*batch(1, 2)).numpy()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("foo", "('foo'): it is no device. Give one such as 'cpu' or 'cuda:0'."),
        (None, "(None): it is no device. Give one such as 'cpu' or 'cuda:0'."),
        (
            torch.float16,
            "(torch.float16): it is a type; tensors have types of their own, as in "
            "explanation.relevance.to(torch.float16). Give one such as 'cpu' or 'cuda:0'.",
        ),
    ],
)
def test_what_is_no_device(device: Any, message: str) -> None:
    e = explained(*batch(0, 2))
    with pytest.raises(InputError, match=re.escape(f"explanation.to{message}")):
        e.to(device)
    with pytest.raises(InputError, match=re.escape(f"ledger.to{message}")):
        e.ledger.to(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(
        InputError, match=r"explanation\.to\('cuda'\): there is no such device here \(.+\)\. Give"
    ):
        explained(*batch(0, 2)).to("cuda")


def test_all_tensors_go_to_a_device() -> None:
    e = explained(*batch(1, 2), parameters="*.weight", target=1)
    same(e.to("cpu"), e)
    moved = e.to("meta")
    found = [
        *moved.inputs.values(),
        moved.output["logits"],
        moved.target,
        moved.score,
        *(R for calls in moved.inner.calls.values() for R in calls),
        *moved.parameters.values(),
        moved.ledger.seed,
        moved.ledger.inputs,
        *moved.ledger.absorbed.values(),
        *(amount for each in moved.ledger.operations.values() for amount in each.values()),
    ]
    assert len(found) > 12
    assert {t.device.type for t in found if isinstance(t, Tensor)} == {"meta"}


def test_relevance_of_inner_modules() -> None:
    e = explained(*batch(1, 2))
    assert list(e.inner) == ["layer", "head"]
    assert len(e.inner) == 2
    assert "head" in e.inner
    assert "tail" not in e.inner
    assert e.inner["head"].shape == (2, 3)
    assert len(e.inner.calls["layer"]) == 2
    with pytest.raises(InputError, match=r"inner\['layer'\]: the module was called 2 times; take one of"):
        e.inner["layer"]
    with pytest.raises(InputError, match=r"recorded are 'layer', 'head'\. Did you mean 'head'\?"):
        e.inner["heads"]
    with pytest.raises(InputError, match=r"nothing is recorded\. Modules are recorded by explain"):
        explained(*batch(1, 2), record=()).inner["head"]


def test_targets_at_positions_keep_their_samples() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3).eval()
    x = torch.randn(3, 5, 4)
    whole = relprop.explain(model, x, target=At(-1), rules=Epsilon())
    assert whole[1].output.shape == (1, 5, 3)
    assert whole[1].score == whole.score[1:2]


class Sequences(nn.Module):
    """A network that computes with the sequence first, (tokens, samples, features)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = nn.Linear(4, 4, **DOUBLE), nn.Linear(4, 3, **DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x.transpose(0, 1)).relu()
        y: Tensor = self.head(h.sum(0))
        return y


@pytest.mark.parametrize("tokens", [3, 5])
def test_samples_of_inner_values_are_where_they_are_and_not_always_first(tokens: int) -> None:
    model, x = Sequences().eval(), torch.randn(3, tokens, 4, **DOUBLE)

    def recorded(part: Tensor) -> relprop.Explanation:
        return relprop.explain(model, part, target=1, rules=Epsilon(0), record="encoder")

    whole = recorded(x)
    assert whole.inner["encoder"].shape == (tokens, 3, 4)
    for number in range(3):
        alone = recorded(x[number : number + 1]).inner["encoder"]
        torch.testing.assert_close(whole[number].inner["encoder"], alone, rtol=0, atol=1e-14)
    joined = relprop.Explanation.concatenate([whole[:1], whole[1:]])
    torch.testing.assert_close(joined.inner["encoder"], whole.inner["encoder"], rtol=0, atol=0)


def test_recorded_modules_are_joined_by_path_and_not_by_order() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 3, **DOUBLE), nn.Linear(4, 3, **DOUBLE)
            self.orders = iter(["ab", "ba"])

        def forward(self, x: Tensor) -> Tensor:
            parts = {name: self.get_submodule(name)(x) for name in next(self.orders)}
            return parts["a"] + parts["b"]

    model, x = Either().eval(), torch.randn(2, 4, **DOUBLE)
    one, other = (
        relprop.explain(model, x, target=1, rules=Epsilon(), record=[model.a, model.b]) for _ in range(2)
    )
    assert [list(e.inner) for e in (one, other)] == [["a", "b"], ["b", "a"]]
    joined = relprop.Explanation.concatenate([one, other])
    for module in (model.a, model.b):
        assert torch.equal(joined.inner[module], torch.cat([one.inner[module], other.inner[module]]))


def test_a_recorded_module_is_found_by_itself(tmp_path: Any) -> None:
    model = Two().eval()
    e = relprop.explain(model, *batch(1, 2), target=1, rules=Epsilon(), record=model.head)
    assert e.inner[model.head] is e.inner["head"]
    assert model.head in e.inner
    assert e.inner.get(model.layer) is None
    assert torch.equal(e[1].inner[model.head], e.inner["head"][1:])
    with pytest.raises(InputError, match=r"explanation\.inner\['<Linear>'\]: recorded are 'head'"):
        e.inner[model.layer]


@pytest.mark.parametrize(
    "target",
    [
        lambda n: At(-1),
        lambda n: At(tuple(range(n)), 1),
        lambda n: At(-1, Contrastive()),
        lambda n: At(-1, Difference(None, 1)),
    ],
)
def test_targets_of_samples_are_taken_and_joined(target: Any) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).eval(), torch.randn(5, 5, 4)
    whole = relprop.explain(model, x, target=target(5), rules=Epsilon(0.1))
    for number in range(5):
        again = relprop.explain(
            model, x[number : number + 1], target=whole[number].target, rules=Epsilon(0.1)
        )
        torch.testing.assert_close(again.relevance, whole[number].relevance)
    assert relprop.Explanation.concatenate([whole[:2], whole[2:]]).target == whole.target
    backwards = relprop.Explanation.concatenate([whole[4], whole[0]])
    for number, part in zip((4, 0), backwards, strict=True):
        assert part.target == whole[number].target


def test_weights_and_functions_are_the_same_target_only_if_they_are() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.rand(2, 4)

    def explain(target: Any) -> relprop.Explanation:
        return relprop.explain(model, x, target=target, rules=Epsilon(0.1))

    def first(output: Tensor) -> Tensor:
        return output[:, 0]

    join = relprop.Explanation.concatenate
    assert len(join([explain(first), explain(first)])) == 4
    assert len(join([explain(Weighted(torch.ones(3))), explain(Weighted(torch.ones(3)))])) == 4
    each = join([explain(Weighted(torch.rand(2, 3))), explain(Weighted(torch.rand(2, 3)))])
    assert each.target.weights.shape == (4, 3)
    for one, other in (
        (first, lambda output: output[:, 1]),
        (Weighted(torch.ones(3)), Weighted(torch.zeros(3))),
        (1, first),
        (first, 1),
        (1, Contrastive(1)),
    ):
        with pytest.raises(InputError, match="explanations of different targets cannot be concatenated"):
            join([explain(one), explain(other)])


@pytest.mark.parametrize(
    "index", [True, False, np.True_, torch.tensor(True), [[0, 1]], torch.zeros(2, 2).long()]
)
def test_indices_that_mean_something_else_are_refused(index: Any) -> None:
    with pytest.raises(InputError, match="give the number of a sample"):
        explained(*batch(1, 5))[index]


@pytest.mark.parametrize("index", [np.int64(1), torch.tensor(1), np.array(1)])
def test_numbers_of_other_kinds(index: Any) -> None:
    whole = explained(*batch(1, 5))
    same(whole[index], whole[1])


def test_an_empty_explanation_says_so() -> None:
    none = explained(*batch(1, 5))[5:5]
    assert len(none) == 0
    assert list(none) == []
    assert "ledger balances to 0.0e+00" in repr(none)


@pytest.mark.parametrize(
    "index", [[], (), torch.tensor([]), np.array([]), torch.zeros(5, dtype=torch.bool), [False] * 5]
)
def test_a_selection_of_no_sample_is_told(index: Any) -> None:
    with pytest.raises(
        InputError, match=r"selects none of the 5 samples. Ask before, as by if len.numbers.: or"
    ):
        explained(*batch(1, 5))[index]


def test_a_part_of_a_mixed_batch_balances_with_it_after_joining() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), **DOUBLE)
    whole = relprop.explain(lambda x: x - x.mean(0, keepdim=True) / 2, x, target=0, rules=Epsilon())
    joined = relprop.Explanation.concatenate([whole[0:2], whole[3]])
    assert float(joined.ledger.gap.max()) < 1e-12
    assert joined.ledger.gap.shape == (3,)


def test_numpy_and_plots_take_a_single_input() -> None:
    e = relprop.explain(nn.Linear(4, 3).eval(), torch.rand(2, 4), rules=Epsilon())
    assert np.array_equal(np.asarray(e), e.numpy())
    assert np.asarray(e, dtype=np.float64).dtype == np.float64
