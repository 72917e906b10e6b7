"""What rules and presets there are, with formulas and sources."""

import inspect

import typer

from relprop.cli.work.terminal import tell
from relprop.rules import files
from relprop.rules.book import all_about, as_text, composite_as_text
from relprop.rules.files import is_rule_file, read_rules


def tell_rules(name: str | None) -> None:
    """Print all about a rule, a preset or a file of rules, or an overview.

    Raises:
        RuleError: there is none of this name, or an entry of the file has no meaning.
        FileError: the file cannot be read.
    """
    if name is None:
        typer.echo(f"{as_text()}\n\nRULES AS TEXT\n\n{inspect.cleandoc(files.__doc__ or '')}\n")
        typer.echo("Print one of them: relprop rules NAME")
    elif is_rule_file(name):
        tell(composite_as_text(read_rules(name)))
    else:
        typer.echo(all_about(name))
