"""Peak memory and time of explanations of a LLaMA-shaped network, relative to the plain input gradient.

The gradient is that of the best logit of the last position by the embedded tokens. Memory is what torch's
profiler counts as allocated at once on the CPU, beyond the model, in one run. Times are medians of ways that
take turns; measure on an idle machine. Weights are random: neither depends on them. With a checkpoint, what
each layer computes is let go and computed again in the backward; in brackets are then ratios to the gradient
with torch's checkpoints. Run with `make benchmark`.

LXT needs the environment of `make parity-lxt`, and runs in a process of its own, because what it patches
stays patched. autolrp needs `pip install --no-deps autolrp==0.2.0`.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import relprop
from networks import peak, seconds  # which makes the tests' networks importable
from torchvision_shim import import_torchvision

# Last, so that transformers is the library and not this file, also in LXT's process, which inherits the list.
HERE = Path(__file__).parent
_OURS = (str(HERE), str(HERE.parent / "tests" / "networks_explained"))
sys.path[:] = [*(entry for entry in sys.path if entry not in _OURS), str(HERE)]
os.environ["HF_HUB_OFFLINE"] = "1"
import_torchvision()  # transformers imports it

VOCABULARY = 1000

Way = Callable[[], Any]
Cost = Callable[[Way], float]
"""Memory in bytes, or time in seconds."""


COSTS: Mapping[str, Cost] = {"memory": peak, "time": seconds}


def build(width: int, layers: int, longest: int) -> nn.Module:
    """A decoder with heads of 64, random weights and no gradients of them."""
    transformers = import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=longest,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model: nn.Module = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    return model


def draw(tokens: int) -> Tensor:
    """Random tokens, (1, tokens)."""
    return torch.randint(VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(0))


def gradient(model: Any, ids: Tensor) -> Tensor:
    """Gradient times input, summed for each token; under LXT's patches its relevance."""
    x = model.get_input_embeddings()(ids).detach().requires_grad_()
    best = model(inputs_embeds=x, use_cache=False).logits[0, -1].amax()
    relevance: Tensor = x * torch.autograd.grad(best, x)[0]
    return relevance.sum(-1)


@contextmanager
def checkpointed(model: Any) -> Iterator[None]:
    """Put torch's checkpoints around the layers."""
    layers = list(model.model.layers)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def checkpointed_gradient(model: Any, ids: Tensor) -> Tensor:
    """As `gradient`."""
    with checkpointed(model):
        return gradient(model, ids)


def by_autolrp(model: Any, ids: Tensor, *, decomposed: bool) -> Tensor:
    """autolrp's AttnLRP, with attention written out, which is its default, or fused."""
    autolrp = import_module("autolrp")
    x = autolrp.tensor(model.get_input_embeddings()(ids))
    with autolrp.decompose_attention(decomposed):
        model(inputs_embeds=x, use_cache=False).logits[0, -1].amax().lrp(config=autolrp.LRPConfig.attnlrp())
    relevance: Tensor = x.relevance
    return relevance.sum(-1)


def ways(model: nn.Module, ids: Tensor, with_autolrp: bool) -> dict[str, Way]:
    """What is compared in this process, by name; those with a comma have checkpoints."""

    def explanation(rules: str, **options: Any) -> Way:
        return lambda: relprop.explain(
            model, input_ids=ids, target=relprop.targets.At(-1), rules=rules, **options
        )

    found: dict[str, Way] = {"gradient": lambda: gradient(model, ids)}
    found |= {rules: explanation(rules) for rules in ("attnlrp", "cp-lrp", "epsilon")}
    if with_autolrp:
        found["autolrp"] = lambda: by_autolrp(model, ids, decomposed=True)
        found["autolrp-fused"] = lambda: by_autolrp(model, ids, decomposed=False)
    found["gradient, checkpoint"] = lambda: checkpointed_gradient(model, ids)
    for rules in ("attnlrp", "cp-lrp", "epsilon"):
        found[f"{rules}, checkpoint"] = explanation(rules, checkpoint="model.layers.*")
    return found


BY_LXT: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "lxt": gradient,
    "lxt, checkpoint": checkpointed_gradient,
}


def serve_lxt(pipe: Any, options: argparse.Namespace) -> None:
    """LXT's process: the same network, patched; measures what it is asked for."""
    torch.set_num_threads(options.threads)
    module = import_module("transformers.models.llama.modeling_llama")
    patches = import_module("lxt.efficient.models.llama")
    import_module("lxt.efficient").monkey_patch(module, patches.attnLRP)
    model = build(options.width, options.layers, max(options.lengths))
    while (asked := pipe.recv()) is not None:
        label, tokens, cost = asked
        pipe.send(COSTS[cost](partial(BY_LXT[label], model, draw(tokens))))


@contextmanager
def lxt_process(options: argparse.Namespace) -> Iterator[Any]:
    """The pipe to LXT's process, or None if it is not wanted."""
    if not options.lxt:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve_lxt, args=(theirs, options), daemon=True)
    process.start()
    theirs.close()  # so that its end is noticed here
    yield pipe
    pipe.send(None)
    process.join()


def measure(model: nn.Module, tokens: int, lxt: Any, options: argparse.Namespace, console: Console) -> Table:
    """Each way's memory, then times in turns, as a table."""
    local = ways(model, draw(tokens), tokens <= options.autolrp)
    labels = [*local, *(BY_LXT if lxt is not None else ())]
    wanted = {"gradient", *(options.only or labels)}
    labels = sorted((label for label in labels if label in wanted), key=lambda label: "," in label)

    def cost(label: str, kind: str) -> float:
        if label in local:
            return COSTS[kind](local[label])
        lxt.send((label, tokens, kind))
        return float(lxt.recv())

    repeat = 1 if tokens >= 8192 else options.repeat
    steps = [("memory", label) for label in labels] + [("time", label) for label in labels] * repeat
    found: dict[tuple[str, str], list[float]] = {}
    for step in track(steps, f"{tokens} tokens", console=console, transient=True):
        found.setdefault(step, []).append(cost(step[1], step[0]))
    medians = {step: statistics.median(values) for step, values in found.items()}
    return as_table(labels, medians, f"{tokens} tokens, {repeat} times, {options.threads} threads")


def as_table(labels: Sequence[str], medians: Mapping[tuple[str, str], float], title: str) -> Table:
    """Amounts, and their ratios to the gradient and, in brackets, to the gradient with checkpoints."""
    table = Table("", title=title)
    units = {"memory": ("MiB", 2**20), "time": ("s", 1)}
    for kind, (unit, _) in units.items():
        table.add_column(f"{kind}, {unit}", justify="right")
        table.add_column("× gradient", justify="right")
    for label in labels:
        row = [label]
        for kind, (_, size) in units.items():
            amount = medians[kind, label]
            shown = f"{amount / size:.0f}" if amount >= 100 * size else f"{amount / size:.3g}"
            ratio = f"{amount / medians[kind, 'gradient']:.2f}"
            base = medians.get((kind, "gradient, checkpoint"))
            row += [shown, f"{ratio} ({amount / base:.2f})" if base and "," in label else ratio]
        table.add_row(*row)
    return table


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 8192], help="in tokens")
    parser.add_argument("--width", type=int, default=1024, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5, help="times; once from 8192 tokens on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    names = [*ways(nn.Module(), draw(1), with_autolrp=True), *BY_LXT]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="WAY", help="beside the gradient: rows of the tables"
    )
    parser.add_argument("--lxt", action="store_true", help="also LXT")
    parser.add_argument(
        "--autolrp", type=int, default=0, metavar="TOKENS", help="also autolrp, up to so many tokens"
    )
    options = parser.parse_args()
    for library, wanted in (("lxt", options.lxt), ("autolrp", options.autolrp)):
        if wanted and find_spec(library) is None:
            parser.error(f"--{library}: it is not installed here; see above how.")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", relprop.errors.ScoreWarning)  # of random weights
    console = Console()
    console.print(f"width {options.width}, {options.layers} layers")
    model = build(options.width, options.layers, max(options.lengths))
    with lxt_process(options) as lxt:
        for tokens in options.lengths:
            console.print(measure(model, tokens, lxt, options, console))


if __name__ == "__main__":
    main()
