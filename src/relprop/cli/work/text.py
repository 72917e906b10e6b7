"""Which tokens of a text made a language model say what it says."""

import sys
import warnings
from pathlib import Path
from typing import Any

import rich.progress
import torch
import typer
from rich.console import Console

from relprop.cli.status import INTERRUPTED
from relprop.cli.work.named_model import chosen_device
from relprop.cli.work.terminal import console, progress_bar, tell
from relprop.errors import FileError, InputError, RuleError, at_the_shell, visible
from relprop.models.language import load_language_model
from relprop.rules.choice import resolve
from relprop.rules.presets import DEFAULT_FOR_TOKENS
from relprop.text.explain import explain_text
from relprop.text.result import TextExplanation

FOR_TOKENS = (DEFAULT_FOR_TOKENS, "attnlrp", "epsilon")
"""Presets that are meant for texts, or are for everything."""


def explain_prompt(
    model: str,
    prompt: str,
    *,
    trust_remote_code: bool,
    device: str | None,
    html: Path | None,
    as_json: bool,
    rules: str | None,
    generate: int,
    **wishes: Any,
) -> None:
    """Explain a text, or what is on stdin, and print it.

    Args:
        model: its name.
        prompt: the text, or "-".
        trust_remote_code: whether to run Python code that comes with the model.
        device: the device to compute on, by name; None for the CPU.
        html: a page to write, too.
        as_json: whether to print everything for programs.
        rules: as the user wrote them.
        generate: how many tokens are to follow.
        wishes: what else `relprop.explain_text` takes.

    Raises:
        InputError: the options have no meaning.
        RuleError: the rules are none for texts.
        Exit: with status 130, after Ctrl-C.
    """
    if html is not None and html.suffix.lower() != ".html":
        raise InputError(f"--html {html}: give a name that ends in .html.")
    if generate < 0:
        raise InputError(f"--generate {generate}: give the number of tokens to generate, 1 or more.")
    there = chosen_device(device)
    if rules is not None:
        _require_no_bounds(rules)
    told = _read() if prompt == "-" else prompt
    try:
        explained, notes = _explained(
            model, trust_remote_code, there, text=told, generate=generate, rules=rules, **wishes
        )
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was explained", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if html is not None:
        explained.save(html)
    if as_json:
        typer.echo(explained.to_json())
    else:
        explained.print()
    if html is not None and not as_json:
        console().print(str(html))
    for line in notes:
        tell(line, err=True)


def _require_no_bounds(rules: str) -> None:
    """Refuse rules for pixels, which can have bounds.

    Raises:
        RuleError: they are such, or none at all.
    """
    resolve(rules, (0.0, 1.0))
    try:
        resolve(rules)
    except RuleError as error:
        raise RuleError(
            f"--rules {rules}: these rules have a box rule, which needs the bounds of pixels. Take a preset "
            f"for texts: {', '.join(FOR_TOKENS)}."
        ) from error


def _explained(
    name: str, trusted: bool, device: torch.device | None, **wishes: Any
) -> tuple[TextExplanation, list[str]]:
    """Load a model and explain a text by it, with a bar; warnings are told apart."""
    # On stderr, so that the bar is never among the results.
    with progress_bar(Console(stderr=True), rich.progress.TimeElapsedColumn()) as bar:
        task = bar.add_task(f"loading {visible(name)}", total=None)
        model = load_language_model(name, trust_remote_code=trusted)
        if device is not None:
            model.module.to(device)
        bar.update(task, description="explaining")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            explained = explain_text(
                model, progress=lambda done, all_: bar.update(task, completed=done, total=all_), **wishes
            )
    return explained, list(dict.fromkeys(f"warning: {at_the_shell(warning.message)}" for warning in caught))


def _read() -> str:
    """Read the text from stdin, without the end of its last line.

    Raises:
        FileError: it is not text.
    """
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise FileError(
            f"stdin is not text in {error.encoding}: {error.reason}. Give it in UTF-8."
        ) from error
