"""explain(..., checkpoint=...) is bit by bit what it is without; models that checkpoint by themselves."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import relprop
from alike import near, relevance, same_relevance
from bit_by_bit import same
from leftovers import everything_about
from networks import DOUBLE, linear
from relprop.engine import checkpoints
from relprop.errors import InputError, ModelError
from relprop.rules import Epsilon, Flat, Gamma

N, T, D, WORDS = 2, 7, 12, 20


class Block(nn.Module):
    """A pre-norm block that writes in place, takes a keyword, and returns a tuple, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(D), nn.MultiheadAttention(D, 3, batch_first=True)
        self.wide, self.narrow = nn.Linear(D, 2 * D), nn.Linear(D, D)
        self.calls = 0

    def forward(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor]:
        h = self.norm(x)
        x = x + self.attention(h, h, h, attn_mask=mask, need_weights=False)[0]
        both = self.wide(self.norm(x))
        gate, signal = both[..., :D], both[..., D:]
        gate *= gate.sigmoid()
        return (x + self.narrow(gate * signal),)


class Model(nn.Module):
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, D)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(D, 5)

    def forward(self, ids: Tensor) -> Tensor:
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        x = self.embedding(ids)
        for layer in self.layers:
            (x,) = layer(x, mask=mask)
        return self.head(x[:, -1])


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    model = Model().eval()
    for p in model.parameters():
        p.data.normal_(0, 0.4)
    return model


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(WORDS, (N, T))


RULES: list[Any] = [
    "attnlrp",
    "cp-lrp",
    "epsilon",
    "epsilon-plus-flat",
    Gamma(0.25),
    Flat(),
    Epsilon(0.1, of="rms"),
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("blocks", ["layers.*", "layers.1", ["layers.0", "layers.2"], "modules"], ids=str)
def test_it_is_the_same_bit_by_bit(model: Model, ids: Tensor, rules: Any, blocks: Any) -> None:
    blocks = model.layers if blocks == "modules" else blocks
    before = list(everything_about(model))
    same(
        relprop.explain(model, ids, rules=rules),
        relprop.explain(model, ids, rules=rules, checkpoint=blocks),
    )
    assert list(everything_about(model)) == before


@pytest.mark.parametrize("rules", ["attnlrp", Gamma(0.25)], ids=str)
def test_with_all_that_explain_offers(model: Model, ids: Tensor, rules: Any) -> None:
    options: dict[str, Any] = {
        "targets": [0, relprop.targets.RunnerUp(), 3],
        "rules": rules,
        "record": ["layers.*", "layers.1.attention"],
        "conditions": {"layers.1.narrow": lambda R: R > 0},
        "parameters": "layers.*.wide.weight",
        "per_operation": True,
    }
    without = relprop.explain_each(model, ids, **options)
    checkpointed = relprop.explain_each(model, ids, **options, checkpoint="layers.*")
    for a, b in zip(without, checkpointed, strict=True):
        same(a, b)
        assert a.ledger.operations.keys() == b.ledger.operations.keys()


def test_a_module_that_overwrites_what_it_was_given(ids: Tensor) -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x).relu()
            x += y
            return x * y.sigmoid()

    network = nn.Sequential(
        nn.Embedding(WORDS, D), Overwriting(), Overwriting(), nn.Flatten(), nn.Linear(T * D, 3)
    )
    for rules in ("epsilon", Gamma(0.25), "attnlrp"):
        same(
            relprop.explain(network.eval(), ids, rules=rules),
            relprop.explain(network, ids, rules=rules, checkpoint=["1", "2"]),
        )


def test_the_embedding_may_be_in_it(model: Model, ids: Tensor) -> None:
    outer = nn.Sequential(model).eval()
    same(relprop.explain(outer, ids), relprop.explain(outer, ids, checkpoint="0"))


@pytest.mark.parametrize("rules", ["attnlrp", "epsilon", Gamma(0.25)], ids=str)
def test_inner_values_are_let_go(model: Model, ids: Tensor, rules: Any) -> None:
    alive: list[weakref.ref[Any]] = []
    model.layers[0].wide.register_forward_hook(
        lambda _module, _x, y: alive.append(weakref.ref(y.untyped_storage()))
    )
    seen: list[bool] = []

    def target(output: Tensor) -> Tensor:
        seen.append(alive[-1]() is not None)
        return output[:, 0]

    relprop.explain(model, ids, target=target, rules=rules)
    relprop.explain(model, ids, target=target, rules=rules, checkpoint="layers.*")
    assert seen == [True, False]


def test_nothing_stays_behind_after_an_error(model: Model, ids: Tensor) -> None:
    before = list(everything_about(model))
    message = r"the model's embedding has no row for some of the integers in ids of shape \(1, 3\)"
    with pytest.raises(InputError, match=message):
        relprop.explain(model, torch.full((1, 3), WORDS), checkpoint="layers.*")
    with pytest.raises(RuntimeError, match="in the target"):
        relprop.explain(model, ids, target=failing, checkpoint="layers.*")
    assert list(everything_about(model)) == before


def failing(output: Tensor) -> Tensor:
    raise RuntimeError("in the target")


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("layer.*", r"checkpoint='layer.\*' is no module of the model.* Give paths, such as 'layers"),
        (["layers.0", "layers.7"], r"checkpoint='layers.7' is no module of the model\. Did you mean 'layers"),
        (nn.Linear(2, 2), "checkpoint=Linear is no module of the model"),
    ],
    ids=["glob", "path", "module"],
)
def test_what_is_no_module_is_refused(model: Model, ids: Tensor, blocks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.explain(model, ids, checkpoint=blocks)


class Changing(nn.Module):
    """Does something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(D, D), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x).tanh() if self.calls % 2 else self.layer(x) * 2


def test_a_module_that_does_something_else_is_refused() -> None:
    network = nn.Sequential(nn.Linear(D, D), Changing(), nn.Linear(D, 2)).eval()
    with pytest.raises(ModelError, match=r"Changing, a module of checkpoint=\.\.\., computed something else"):
        relprop.explain(network, torch.randn(N, D), checkpoint="1", rules="epsilon")


# ---- models that checkpoint by themselves ----


class ByItself(nn.Module):
    def __init__(self, model: Model, *, reentrant: bool) -> None:
        super().__init__()
        self.model, self.reentrant = model, reentrant

    def forward(self, ids: Tensor) -> Tensor:
        model = self.model
        mask = torch.ones(T, T, dtype=torch.bool).triu(1)
        x = model.embedding(ids)
        for layer in model.layers:
            (x,) = checkpoint(lambda x, layer=layer: layer(x, mask=mask), x, use_reentrant=self.reentrant)
        return model.head(x[:, -1])


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_model_that_checkpoints_by_itself(model: Model, ids: Tensor, rules: Any) -> None:
    e = relprop.explain(ByItself(model, reentrant=False).eval(), ids, rules=rules)
    assert torch.equal(e.relevance, relprop.explain(model, ids, rules=rules).relevance)


def test_both_at_once_are_refused(model: Model, ids: Tensor) -> None:
    outer = nn.Sequential(ByItself(model, reentrant=False)).eval()
    with pytest.raises(
        ModelError, match=r"ByItself, a module of checkpoint=\.\.\., uses torch.utils.checkpoint or"
    ):
        relprop.explain(outer, ids, checkpoint="0")


def test_reentrant_checkpoints_are_seen_into(model: Model, ids: Tensor) -> None:
    e = relprop.explain(ByItself(model, reentrant=True).eval(), ids)
    torch.testing.assert_close(e.relevance, relprop.explain(model, ids).relevance)


CHECKPOINTED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: z.relu(),
    "gate": lambda z: z * z.mean(1, keepdim=True).sigmoid(),
    "chain": lambda z: z * z.sigmoid(),
}


@pytest.mark.parametrize("part", CHECKPOINTED)
@pytest.mark.parametrize("targets", [[1], [0, 1]])
def test_a_checkpointed_part_between_layers(part: str, targets: list[int]) -> None:
    layer, head, x = nn.Linear(4, 5).double(), nn.Linear(5, 2).double(), torch.randn(3, 4, **DOUBLE)
    run = CHECKPOINTED[part]
    found = relprop.explain_each(
        lambda x: head(checkpoint(run, layer(x), use_reentrant=False)), x, targets=targets, rules=Epsilon(0.1)
    )
    near(found[-1].relevance, relevance(lambda x: head(run(layer(x))), x, Epsilon(0.1)))


def test_a_checkpointed_model() -> None:
    from torch.utils.checkpoint import checkpoint

    layer, other = linear(), linear(6, 3)
    x = torch.randn(2, 6, **DOUBLE)
    e = same_relevance(
        lambda x: other(checkpoint(lambda h: layer(h).relu(), x, use_reentrant=False)),
        lambda x: other(layer(x).relu()),
        x,
    )
    assert len(e.rules) == 2


def test_a_pointwise_function_in_several_calls_within_a_checkpoint() -> None:
    from torch.utils.checkpoint import checkpoint

    def hard_swish(z: torch.Tensor) -> torch.Tensor:
        return z * (F.relu6(z + 3) / 6)

    layer, other = linear(), linear(6, 3)
    same_relevance(
        lambda x: other(checkpoint(lambda h: hard_swish(layer(h)), x, use_reentrant=False)),
        lambda x: other(hard_swish(layer(x))),
        torch.randn(2, 6, **DOUBLE),
    )


# ---- modules that draw random numbers ----


class Drawing(nn.Module):
    """Draws noise in its own way, or takes noise that was drawn before."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(D, D).double(), draw

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x) * self.draw(x)) + self.layer(self.draw(x))


def drawing(draw: Callable[[Tensor], Tensor]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Drawing(draw), Drawing(draw), linear(D, 3)).eval()


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "rand_like": torch.rand_like,
    "randn": lambda x: torch.randn(x.shape, dtype=x.dtype),
    "in place": lambda x: x.new_empty(x.shape).uniform_(),
    "dropout": lambda x: F.dropout(torch.ones_like(x), 0.5, training=True),
    "permutation": lambda x: torch.randperm(D).to(x.dtype).expand_as(x) / D,
}


@pytest.mark.parametrize("rules", [Epsilon(0.1), "epsilon-plus-flat", Gamma(0.25)], ids=str)
@pytest.mark.parametrize("way", DRAWS)
def test_a_module_that_draws_draws_the_same_again(way: str, rules: Any) -> None:
    x = torch.randn(N, D, **DOUBLE)
    torch.manual_seed(3)
    drawn = [DRAWS[way](x) for _ in range(4)]
    after = torch.get_rng_state()
    following = iter(drawn)
    # The right value: the same noise as constants, which cannot change.
    expected = relprop.explain(drawing(lambda _: next(following)), x, target=1, rules=rules)
    model = drawing(DRAWS[way])
    torch.manual_seed(3)
    e = relprop.explain(model, x, target=1, rules=rules, checkpoint=["0", "1"])
    near(e.relevance, expected.relevance)
    near(e.output, expected.output)
    assert e.ledger.gap.max() < 1e-12
    assert torch.equal(torch.get_rng_state(), after)


def test_states_of_generators_are_kept_only_of_modules_that_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    sets: list[Any] = []
    real = checkpoints._set_state
    monkeypatch.setattr(checkpoints, "_set_state", lambda *args: (sets.append(args), real(*args)))
    x = torch.randn(N, D, **DOUBLE)
    relprop.explain(drawing(lambda x: x.sigmoid()), x, target=1, rules="epsilon", checkpoint=["0", "1"])
    assert not sets
    relprop.explain(drawing(torch.rand_like), x, target=1, rules="epsilon", checkpoint="0")
    assert len(sets) == 2  # the state of the call, and then that of before


def test_what_is_drawn_between_the_targets_is_not_drawn_twice() -> None:
    def score(y: Tensor) -> Tensor:
        seen.append(torch.rand(()))
        return y[:, 1]

    seen: list[Tensor] = []
    x, model = torch.randn(N, D, **DOUBLE), drawing(torch.rand_like)
    torch.manual_seed(5)
    one, other = relprop.explain_each(
        model, x, targets=[score, score], rules="epsilon", checkpoint=["0", "1"]
    )
    torch.manual_seed(5)
    for _ in range(4):
        torch.rand_like(x)
    assert seen == [torch.rand(()), torch.rand(())]
    near(one.relevance, other.relevance)
