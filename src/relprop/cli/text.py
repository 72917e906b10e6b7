"""`relprop text`: which tokens of a text made a language model say what it says."""

from pathlib import Path
from typing import Annotated

import typer

from relprop.cli.model_options import Device, RulesForTokens


def text(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: hf: and a folder, or hf: and a model's name on the Hugging Face hub.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    prompt: Annotated[
        str, typer.Argument(help="The text, or - to read it from stdin.", metavar="TEXT", show_default=False)
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="Explain this label of a classifier, by name or number; or this token, with the space that "
            "it begins with, as in ' Paris'.",
            metavar="LABEL",
            show_default="the model's own answer",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Explain why the target, and not this label or token.",
            metavar="LABEL",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            help="Explain the output at token N, counted from 0; -1 is the last. Causal models predict the "
            "next token there.",
            metavar="N",
            show_default="the last token, or the mask",
        ),
    ] = None,
    rules: RulesForTokens = None,
    words: Annotated[bool, typer.Option("--words", help="Merge tokens into words.")] = False,
    generate: Annotated[
        int, typer.Option(help="Generate up to N tokens, and explain each.", metavar="N")
    ] = 0,
    continuation: Annotated[
        str | None,
        typer.Option(
            help="Explain each token of this text, as if the model had generated it.",
            metavar="TEXT",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page of HTML to this file too.", metavar="FILE", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run Python code that comes with the model."),
    ] = False,
) -> None:
    """Show which tokens of a text speak for a language model's answer.

    Red tokens speak for the target, blue ones against it.
    Without colours, as in a file, each token has a line.

    Examples:
      relprop text hf:./my-classifier "The film was not bad." --target positive
      relprop text hf:./my-gpt "The capital of France is" --target " Paris" --against " Rome"
      relprop text hf:./my-gpt "The capital of France is" --generate 10 --html paris.html
    """
    from relprop.cli.work.text import explain_prompt

    explain_prompt(
        model,
        prompt,
        trust_remote_code=trust_remote_code,
        device=device,
        html=html,
        as_json=as_json,
        target=target,
        against=against,
        at=at,
        generate=generate,
        continuation=continuation,
        rules=rules,
        words=words,
    )
