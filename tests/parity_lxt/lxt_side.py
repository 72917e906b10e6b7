"""One model on both sides: explained by relprop here, and by LXT in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, VOCABULARY, InDouble, as_arguments, draw_weights, scores
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from relprop import Explanation, explain

if find_spec("lxt") is None:
    pytest.skip("needs lxt 2.1 and transformers 4.57.6: make parity-lxt", allow_module_level=True)

PRESETS = {"attnLRP": "attnlrp", "cp_LRP": "cp-lrp"}
"""relprop's presets by LXT's names."""

PROGRAM = Path(__file__).with_name("by_lxt.py")


@dataclass(frozen=True)
class Run:
    """A model with its inputs.

    Args:
        model: the module, as the library has it.
        inputs: its arguments.
        order: how LXT's process makes the same: family, attention, dtype, settings, stabilised.
    """

    model: nn.Module
    inputs: dict[str, Tensor]
    order: dict[str, Any]

    def by_relprop(self, rules: Any) -> Explanation:
        positional, named = as_arguments(self.inputs)
        model = self.model if self.order["dtype"] == "float32" else self.in_double
        explanation = explain(model, *positional, target=scores, rules=rules, **named)
        assert isinstance(explanation, Explanation)
        return explanation

    def in_double(self, *positional: Tensor, **named: Tensor) -> Any:
        with InDouble():
            return self.model(*positional, **named)


def draw(
    family: str,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float64,
    *,
    integers: bool = False,
    stabilised: bool = False,
    **settings: Any,
) -> Run:
    """A model and inputs, from torch's generator.

    Args:
        family: its name.
        attention: "sdpa" or "eager".
        dtype: of weights and inputs; float64 in all of the model.
        integers: whether the input is numbers of tokens instead of embeddings.
        stabilised: whether LXT's f(x)/x has its stabiliser of 1e-10, or none.
        settings: further ones of the configuration.
    """
    model = FAMILIES[family].build(attention, dtype, **settings)
    draw_weights(model)
    inputs = FAMILIES[family].draw_inputs(dtype)
    if integers:
        inputs["input_ids"] = torch.randint(3, VOCABULARY, inputs.pop("inputs_embeds").shape[:2])
    order = {"family": family, "attention": attention, "dtype": str(dtype).removeprefix("torch.")}
    return Run(model, inputs, order | {"settings": settings, "stabilised": stabilised})


def by_lxt(runs: Sequence[Run], variant: str) -> list[dict[str, Tensor]]:
    """LXT's "relevance" and "scores" of each run.

    Args:
        runs: of one family.
        variant: "attnLRP" or "cp_LRP".
    """
    with tempfile.TemporaryDirectory() as folder:
        orders = []
        for number, run in enumerate(runs):
            files = {
                name: str(Path(folder, f"{number}-{name}.safetensors"))
                for name in ("weights", "inputs", "results")
            }
            weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
            save_file(weights, files["weights"])
            save_file(run.inputs, files["inputs"])
            orders.append(run.order | files)
        order = {
            "family": runs[0].order["family"],
            "variant": variant,
            "runs": orders,
        }
        done = subprocess.run(
            [sys.executable, str(PROGRAM)], input=json.dumps(order), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [load_file(order["results"]) for order in orders]
