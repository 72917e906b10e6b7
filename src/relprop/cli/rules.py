"""`relprop rules`: what rules and presets there are, with formulas and sources."""

from typing import Annotated

import typer


def rules(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A rule, a preset, or a TOML or JSON file of rules. Everything about it is printed.",
            metavar="NAME",
            show_default="an overview of all",
        ),
    ] = None,
) -> None:
    """Print rules with formula and source, presets, and plain gradients for comparison.

    Examples:
      relprop rules
      relprop rules Gamma
      relprop rules my_rules.toml
    """
    from relprop.cli.work.rules import tell_rules

    tell_rules(name)
