"""`relprop rules`: what rules and presets there are, with formulas and sources."""

import inspect
from typing import Annotated

import typer

from relprop.rules import files
from relprop.rules.book import all_about, as_text, composite_as_text
from relprop.rules.files import is_rule_file, read_rules


def rules(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A rule, a preset, or a TOML or JSON file of rules, to see all about it.",
            metavar="NAME",
            show_default="an overview of all",
        ),
    ] = None,
) -> None:
    """Print the rules with formula and source, the presets, and what to compare them with.

    relprop rules

    relprop rules Gamma

    relprop rules my_rules.toml
    """
    if name is None:
        typer.echo(f"{as_text()}\n\nRULES AS TEXT\n\n{inspect.cleandoc(files.__doc__ or '')}\n")
        typer.echo("All about one of them: relprop rules NAME")
    elif is_rule_file(name):
        typer.echo(composite_as_text(read_rules(name)))
    else:
        typer.echo(all_about(name))
