"""The same function in a dozen spellings has the same relevance and the same books, under every preset."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import relprop
from function_spellings import FIRST, FUNCTIONS, Function, Written
from networks import DOUBLE
from relprop import PRESETS, Explanation

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, of torch.jit among others
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*padding='same' with even kernel"),
    pytest.mark.filterwarnings("ignore:.*global hooks on modules"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:.*outside of the bounds"),
]


class Between(nn.Module):
    """A function between a layer and a head, for rules to matter."""

    def __init__(self, first: nn.Module, called: Function, head: nn.Linear) -> None:
        super().__init__()
        self.first, self.head = first, head
        self.called = called

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.called(self.first(x)).flatten(1))


@cache
def written(name: str) -> Written:
    torch.manual_seed(8)
    return FUNCTIONS[name]()


@cache
def ends(name: str) -> tuple[nn.Module, nn.Linear, Tensor]:
    """What a function stands between, and inputs."""
    spelled = written(name)
    torch.manual_seed(9)
    shape, make = FIRST[spelled.behind]
    x, first = torch.randn(shape, **DOUBLE), make().double().eval()
    with torch.no_grad():
        between = next(iter(spelled.ways.values()))(first(x)).flatten(1)
    return first, nn.Linear(between.shape[1], 3).double().eval(), x.clamp(-3.9, 3.9)


def model_of(name: str, called: Function | None = None) -> Between:
    first, head, _ = ends(name)
    return Between(first, called or next(iter(written(name).ways.values())), head).eval()


def explained(model: Callable[..., Any], x: Tensor, preset: str) -> Explanation:
    return relprop.explain(model, x, target=1, rules=PRESETS[preset].with_bounds(-4.0, 4.0))


@cache
def expected_of(name: str, preset: str) -> Explanation:
    return explained(model_of(name), ends(name)[2], preset)


# ---- spellings of any function ----


class Custom(torch.autograd.Function):
    """A function of its own, which computes another one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, called: Any) -> Tensor:
        return called(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError


def exported(model: nn.Module, x: Tensor) -> Any:
    return torch.export.export(model, (x,)).module()


def decomposed(model: nn.Module, x: Tensor) -> Any:
    return torch.export.export(model, (x,)).run_decompositions().module()


def traced(model: nn.Module, x: Tensor) -> Any:
    return torch.jit.trace(model, x, check_trace=False)


def frozen(model: nn.Module, x: Tensor) -> Any:
    return torch.jit.freeze(traced(model, x).eval())


def scripted(model: Any, _x: Tensor) -> Any:
    """Of modules, since scripts have no lambdas."""
    return torch.jit.script(nn.Sequential(model.first, model.called, nn.Flatten(1), model.head).eval())


def by_sample(model: nn.Module, _x: Tensor) -> Any:
    return torch.vmap(lambda x: model(x[None])[0])


_core = cache(core_aten_decompositions)


def with_called(how: Callable[[Function], Function]) -> Callable[[Between, Tensor], Any]:
    """The model with its function called in another way."""
    return lambda model, _x: Between(model.first, how(model.called), model.head).eval()


CALLED: dict[str, Callable[[Any, Tensor], Any]] = {
    "make_fx": lambda model, x: make_fx(model)(x),
    "functionalize": lambda model, x: torch.func.functionalize(model),
    "compile": with_called(lambda f: torch.compile(lambda x: f(x), backend="eager")),
    "symbolic_trace": lambda model, x: torch.fx.symbolic_trace(model),
    "custom": with_called(lambda f: lambda x: Custom.apply(x, f)),
    "checkpoint": with_called(lambda f: partial(checkpoint, f, use_reentrant=False)),
    "reentrant": with_called(lambda f: partial(checkpoint, f, use_reentrant=True)),
    "vmap": by_sample,
    "trace": traced,
    "frozen": frozen,
    "script": scripted,
    "export": exported,
    "decomposed": decomposed,
    "decomposed make_fx": lambda model, x: make_fx(model, decomposition_table=_core())(x),
}
"""Spellings of whole models, from a model and its input."""

# Presets are shared out among these, two for each spelling of each function.
FEW = 2


def in_turn(number: int, count: int) -> list[str]:
    """So many presets, so that the spellings of a function have all of them between them."""
    presets = list(PRESETS)
    return [presets[(count * number + i) % len(presets)] for i in range(count)]


def few(name: str, spelling: str) -> list[str]:
    return in_turn(list(FUNCTIONS).index(name) + list(CALLED).index(spelling), FEW)


# ---- comparing ----


CONSTANTS = ("constant", "parameters", "shift", "pointwise")
"""Sinks of constants: whether one is a shift or a function's value at zero is a matter of spelling."""


def by_sink(e: Explanation) -> dict[str, Tensor]:
    books: dict[str, Tensor] = {}
    for sink, amount in e.ledger.absorbed.items():
        known_as = "constants" if sink in CONSTANTS else sink
        books[known_as] = books.get(known_as, 0) + amount
    return books


def differences(found: Explanation, expected: Explanation) -> Iterator[str]:
    """What differs, up to rounding."""
    if not torch.allclose(found.output, expected.output, rtol=1e-11, atol=1e-11):
        yield "output"
    largest = float(expected.relevance.abs().max())
    error = float((found.relevance - expected.relevance).abs().max())
    if not error <= 1e-10 * largest:
        yield f"relevance by {error / largest:.1e}"
    books = [by_sink(found), by_sink(expected)]
    amounts = [float(v.abs().max()) for book in books for v in book.values()]
    largest = max([largest, float(expected.ledger.seed.abs().max()), *amounts])
    for sink in sorted(set(books[0]) | set(books[1])):
        of_both = [book.get(sink, torch.zeros(1, **DOUBLE)) for book in books]
        error = float((of_both[0] - of_both[1]).abs().max())
        if not error <= 1e-9 * largest:
            yield f"{sink} by {error / largest:.1e}"
    closes = [float(e.ledger.gap.max()) < 1e-9 for e in (found, expected)]
    if closes[0] != closes[1]:
        yield f"gap of {float(found.ledger.gap.max()):.1e}"


def compared(name: str, model: Callable[..., Any], presets: list[str]) -> int:
    """How many presets agree; all of them, or it fails."""
    x, wrong = ends(name)[2], []
    for preset in presets:
        found = explained(model, x, preset)
        different = list(differences(found, expected_of(name, preset)))
        if different:
            wrong.append(f"{preset}: {', '.join(different)}")
    assert not wrong, "\n".join(wrong)
    return len(presets)


# ---- tests ----

EXPENSIVE = {"export": 3, "decomposed": 9}
"""Of how many functions one is exported: each takes seconds, and make_fx writes the same programs."""


def can_be(name: str, how: str) -> bool:
    """Whether a function is written so: a script and a symbolic trace need modules."""
    spelled = written(name)
    if how in ("script", "symbolic_trace") and not isinstance(next(iter(spelled.ways.values())), nn.Module):
        return False
    if list(FUNCTIONS).index(name) % EXPENSIVE.get(how, 1):
        return False
    return how not in spelled.without


WAYS = [(name, way) for name in FUNCTIONS for way in written(name).ways]
WRITTEN_OTHERWISE = [(name, way) for name, way in WAYS if way != next(iter(written(name).ways))]
WHOLE = [(name, how) for name in FUNCTIONS for how in CALLED if can_be(name, how)]


def test_the_table_is_large() -> None:
    assert len(FUNCTIONS) >= 80
    assert len(WRITTEN_OTHERWISE) >= 700
    assert len(WHOLE) >= 900
    for how in CALLED:
        assert sum(how == other for _, other in WHOLE) >= (10 if how in EXPENSIVE else 40)
    assert {preset for name, how in WHOLE for preset in few(name, how)} == set(PRESETS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_the_others_are_compared_with_means_something(name: str) -> None:
    """Its books close, and rules make a difference."""
    for preset in PRESETS:
        e = expected_of(name, preset)
        assert e.relevance.abs().max() > 0
        assert e.relevance.isfinite().all()
        assert e.ledger.gap.max() < 1e-9
    assert len({float(expected_of(name, preset).relevance.sum()) for preset in PRESETS}) > 3


@pytest.mark.parametrize(("name", "way"), WRITTEN_OTHERWISE)
def test_a_function_is_the_same_in_every_spelling(name: str, way: str) -> None:
    presets = in_turn(WRITTEN_OTHERWISE.index((name, way)), 2)
    assert compared(name, model_of(name, written(name).ways[way]), presets) == 2


@pytest.mark.parametrize(("name", "how"), WHOLE)
def test_a_model_is_the_same_however_it_is_called(name: str, how: str) -> None:
    model = CALLED[how](model_of(name), ends(name)[2])
    assert compared(name, lambda x: model(x), few(name, how)) == FEW


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_one_sample_is_explained_as_it_is_among_several(name: str, way: str) -> None:
    x, model = ends(name)[2], model_of(name, written(name).ways[way])
    presets = list(PRESETS)
    preset = presets[WAYS.index((name, way)) % len(presets)]
    alone, among = explained(model, x[:1], preset), expected_of(name, preset)
    error = (alone.relevance[0] - among.relevance[0]).abs().max()
    assert error <= 1e-10 * among.relevance.abs().max()


def test_another_function_is_told_apart() -> None:
    """A test of the test: relevance that is wrong by a millionth fails."""
    way = written("linear").ways["operators"]
    with pytest.raises(AssertionError, match="relevance by"):
        compared("linear", model_of("linear", lambda x: way(x) * (1 + 1e-6)), ["epsilon"])
