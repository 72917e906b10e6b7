"""Random programs give by graphs what they give without, for other values than the example's."""

from random import Random

import pytest
import torch
from torch import Tensor

from by_graph import graphs_of
from random_drawing import draw, draw_spelling
from random_programs import made
from relprop import Explainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

RULES = ("epsilon", "epsilon-gamma-flat", "epsilon-alpha2-beta1", "cp-lrp", "attnlrp")
BLOCK, BLOCKS = 8, 5


def total(output: Tensor) -> Tensor:
    return output.reshape(len(output), -1).sum(1)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_programs(block: int) -> None:
    by_graph = 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        random = Random(seed)
        drawn = draw(seed)
        program, inputs = made(drawn, draw_spelling(drawn, random))
        explainer = Explainer(program, rules=random.choice(RULES))
        compiled = explainer.compile(*inputs, target=total)
        by_graph += graphs_of(compiled) > 0
        for factor in (1.0, -0.5):
            others = [x.flip(0) * factor for x in inputs]
            found, expected = (e(*others, target=total) for e in (compiled, explainer))
            scale = max(float(R.abs().max()) for R in (expected.score, *expected.inputs.values()))
            for name, R in expected.inputs.items():
                torch.testing.assert_close(found.inputs[name], R, rtol=0, atol=1e-10 * max(scale, 1))
            torch.testing.assert_close(found.score, expected.score, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(found.ledger.absorbed, expected.ledger.absorbed, rtol=1e-7, atol=1e-9)
    assert by_graph >= BLOCK - 2
