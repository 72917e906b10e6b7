"""LXT's side, a program: what LXT patches stays patched as long as the process lives.

It reads a list of runs of one family and variant from standard input, explains each model as LXT documents
it, by gradient times input, and writes relevance and scores.
"""

import json
import sys
from importlib import import_module
from typing import Any

import torch
from families import FAMILIES, as_arguments, precision, scores  # first: it makes torchvision importable
from lxt.efficient import monkey_patch, rules
from safetensors.torch import load_file, save_file
from torch import Tensor


def explain(run: dict[str, Any]) -> dict[str, Tensor]:
    family, dtype = FAMILIES[run["family"]], getattr(torch, run["dtype"])
    model = family.build(run["attention"], dtype, **run["settings"])
    model.load_state_dict(load_file(run["weights"]), strict=False)  # buffers that are not stored
    inputs = load_file(run["inputs"])
    if "input_ids" in inputs:
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    x = inputs[family.explained].requires_grad_()
    positional, named = as_arguments(inputs)
    with precision(dtype):
        chosen = scores(model(*positional, **named))
        chosen.sum().backward()
    assert x.grad is not None
    return {"relevance": x.grad * x.detach(), "scores": chosen.detach()}


def main() -> None:
    torch.set_num_threads(1)
    order = json.load(sys.stdin)
    family = FAMILIES[order["family"]]
    patches = import_module(f"lxt.efficient.models.{family.patches}")
    monkey_patch(import_module(family.module), getattr(patches, order["variant"]))
    for run in order["runs"]:
        rules.identity_rule_implicit_fn.forward.__defaults__ = (1e-10 if run["stabilised"] else 0.0,)
        save_file(explain(run), run["results"])


if __name__ == "__main__":
    main()
