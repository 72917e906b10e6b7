"""`relprop text`: which tokens of a text made a language model say what it says."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import rich.progress
import typer
from rich.console import Console
from torch import nn

from relprop.cli.model_options import RulesForTokens
from relprop.cli.status import INTERRUPTED
from relprop.cli.terminal import console, progress_bar
from relprop.errors import FileError, InputError, RuleError
from relprop.models.language import load_language_model
from relprop.rules.choice import resolve
from relprop.rules.presets import DEFAULT_FOR_TOKENS
from relprop.text.explain import explain_text
from relprop.text.result import TextExplanation

FOR_TOKENS = (DEFAULT_FOR_TOKENS, "attnlrp", "epsilon")
"""Presets that are meant for texts, or are for everything."""


def text(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: hf: and a folder, or the name of one on the Hugging Face hub.",
            show_default=False,
        ),
    ],
    prompt: Annotated[
        str, typer.Argument(help="The text, or - to read it from stdin.", metavar="TEXT", show_default=False)
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="What to explain: the label of a classifier, by name or number; of other models a "
            "token, with the space that it begins with, as ' Paris'.",
            metavar="LABEL",
            show_default="what the model says",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another label or token: why the target, or what the model says, and not this?",
            metavar="LABEL",
            show_default="none",
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            help="The number of the token whose output is explained, from 0; -1 is the last. Of causal "
            "models it says what follows this token.",
            metavar="N",
            show_default="the last one, or the mask",
        ),
    ] = None,
    rules: RulesForTokens = None,
    words: Annotated[bool, typer.Option("--words", help="Merge tokens into words.")] = False,
    generate: Annotated[
        int, typer.Option(help="Let the model go on by up to N tokens, and explain each.", metavar="N")
    ] = 0,
    continuation: Annotated[
        str | None,
        typer.Option(
            help="Explain each token of this text, in the place of what the model would generate.",
            metavar="TEXT",
            show_default="none",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page of HTML too.", metavar="FILE", show_default="none"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run Python code that comes with the model."),
    ] = False,
) -> None:
    """Show which tokens of a text speak for what a language model says of it.

    Red tokens speak for the target, blue ones against it.
    Without colours, as in a file, every token has a line.

    relprop text hf:./my-classifier "The film was not bad." --target positive

    relprop text hf:./my-gpt "The capital of France is" --target " Paris" --against " Rome"

    relprop text hf:./my-gpt "The capital of France is" --generate 10 --html paris.html
    """
    if html is not None and html.suffix.lower() != ".html":
        raise InputError(f"--html {html}: give a name that ends in .html.")
    if generate < 0:
        raise InputError(f"--generate {generate}: give how many tokens are to follow, 1 or more.")
    if rules is not None:
        _require_no_bounds(rules)
    told = _read() if prompt == "-" else prompt
    try:
        explained, notes = _explained(
            model,
            trust_remote_code,
            text=told,
            target=target,
            against=against,
            at=at,
            generate=generate,
            continuation=continuation,
            rules=rules,
            words=words,
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
        typer.echo(line, err=True)


def _require_no_bounds(rules: str) -> None:
    """Refuse rules for pixels, which can have bounds.

    Raises:
        RuleError: they are such, or none at all.
    """
    resolve(None, rules, (0.0, 1.0))
    try:
        resolve(nn.Identity(), rules, None)
    except RuleError as error:
        raise RuleError(
            f"--rules {rules}: the box rule in it needs the bounds of pixels, and a text has none. Presets "
            f"for texts are {', '.join(FOR_TOKENS)}."
        ) from error


def _explained(name: str, trusted: bool, **wishes: Any) -> tuple[TextExplanation, list[str]]:
    """Load a model and explain a text by it, with a bar; warnings are told apart."""
    # On stderr, so that the bar is never among the results.
    with progress_bar(Console(stderr=True), rich.progress.TimeElapsedColumn()) as bar:
        task = bar.add_task(f"loading {name}", total=None)
        model = load_language_model(name, trust_remote_code=trusted)
        bar.update(task, description="explaining")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            explained = explain_text(
                model, progress=lambda done, all_: bar.update(task, completed=done, total=all_), **wishes
            )
    return explained, list(dict.fromkeys(f"warning: {warning.message}" for warning in caught))


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
