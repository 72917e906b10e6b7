"""Random programs have equal relevance in equivalent spellings; `make fuzz` searches further seeds."""

import re
import runpy
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import pytest
import torch

from random_drawing import draw, draw_spelling
from random_programs import PRELUDE, complete, made
from random_steps import OPERATIONS
from relprop.rules import Epsilon, Incoming, LinearOperation, Propagated
from search_of_spellings import Counts, Failure, GeneratorError, check, minimal

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

BLOCK, BLOCKS = 10, 25


@pytest.mark.parametrize("block", range(BLOCKS))
def test_equal_spellings_have_equal_relevance(block: int) -> None:
    counts = Counts()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        failure = check(seed, spellings=2, rules=2, counts=counts)
        assert failure is None, f"seed {seed}: {minimal(failure)}"
    assert counts.programs == BLOCK
    assert counts.compared >= 4 * BLOCK
    assert counts.unclear <= counts.compared / 20


def test_programs_are_of_every_kind() -> None:
    drawn = [draw(seed) for seed in range(BLOCK * BLOCKS)]
    assert {step.operation for d in drawn for step in d.steps} == set(OPERATIONS)
    assert {len(d.shapes) for d in drawn} == {1, 2}
    assert {len(d.steps) for d in drawn} == set(range(2, 7))
    assert {len(shape) for d in drawn for shape in d.shapes} == {2, 3, 4}


def test_a_program_is_drawn_from_its_seed() -> None:
    for seed in range(5):
        assert draw(seed) == draw(seed)
        spellings = [draw_spelling(draw(seed), Random(seed)) for _ in range(2)]
        assert spellings[0] == spellings[1]


def test_what_is_printed_runs_by_itself() -> None:
    for seed in range(20):
        drawn = draw(seed)
        program, inputs = made(drawn, drawn.plain)
        names: dict[str, Any] = {"__name__": "printed"}
        exec(PRELUDE + complete(drawn, drawn.plain), names)
        assert torch.equal(names["program"](*names["inputs"]), program(*inputs))


# ---- tests of the test ----


def first_failure(kind: str) -> Failure:
    """The first failure of a kind, made minimal."""
    failures = (check(seed, spellings=4) for seed in range(300))
    found = next((failure for failure in failures if failure is not None and failure.kind == kind), None)
    assert found is not None, f"no {kind} failed"
    return minimal(found)


def test_a_product_by_the_order_of_its_factors_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relprop.operations.products.weighed_by", lambda roles: [1])
    failure = first_failure("relevance")
    assert len(failure.drawn.steps) <= 3


def test_a_rule_that_is_wrong_by_a_millionth_in_one_notation_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Epsilon.__call__

    def wrong(self: Epsilon, op: LinearOperation, incoming: Incoming) -> Propagated:
        result = right(self, op, incoming)
        notation = getattr(op.map, "transposed", False) and op.bias is not None
        if notation and result.coefficient is not None:
            result.coefficient = result.coefficient * (1 + 1e-6)
        return result

    monkeypatch.setattr(Epsilon, "__call__", wrong)
    failure = first_failure("relevance")
    assert any(step.operation.startswith("linear") for step in failure.drawn.steps)
    assert re.search(r"differs by \d\.\de-0[67] of the largest\.", str(failure))
    assert str(failure).count("def program(") == 2


def test_a_ledger_that_misses_its_balance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relprop.operations.arithmetic.times", lambda c, constant: c * constant * 1.001)
    assert re.search("the ledger misses its balance by", str(first_failure("ledger")))


def test_spellings_of_other_values_are_mistakes_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ("$x * 0.5", "$x * 0.5000001")
    monkeypatch.setitem(OPERATIONS, "scale", replace(OPERATIONS["scale"], ways=lambda *_: ways))
    seeds = [seed for seed in range(100) if any(step.operation == "scale" for step in draw(seed).steps)]
    with pytest.raises(GeneratorError, match=r"other values[^$]*0\.5000001"):
        all(check(seed) is None for seed in seeds)


def test_the_tool_prints_what_it_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = runpy.run_path("tools/fuzz.py")
    monkeypatch.setattr("sys.argv", ["fuzz.py", "--seed", "3"])
    assert tool["main"]() == 0
    assert re.search(r"seeds 3 to 3: 1 programs, \d+ comparisons, .*; 0 failed", capsys.readouterr().out)
    monkeypatch.setattr("relprop.operations.products.weighed_by", lambda roles: [1])
    monkeypatch.setattr("sys.argv", ["fuzz.py", "--first", "0", "--seconds", "20"])
    monkeypatch.setattr("time.monotonic", count().__next__)
    assert tool["main"]() == 1
    assert "and the same in another spelling:" in capsys.readouterr().out
