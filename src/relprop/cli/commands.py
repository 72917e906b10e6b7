"""The commands, put together. Each is a function in a file of its own."""

from typing import Annotated

import typer

from relprop.cli.coverage import coverage
from relprop.cli.explain import explain
from relprop.cli.rules import rules
from relprop.cli.text import text
from relprop.cli.train import train
from relprop.cli.tutorial import tutorial
from relprop.files import VERSION

app = typer.Typer(
    name="relprop",
    help="Explain predictions of neural networks by layer-wise relevance propagation.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(tutorial)
app.command()(explain)
app.command()(train)
app.command()(rules)
app.command()(coverage)
app.command()(text)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relprop {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass
