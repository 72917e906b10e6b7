"""The commands, put together. Each is a function in a file of its own."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relprop.cli.coverage import coverage
from relprop.cli.demo import demo
from relprop.cli.explain import explain
from relprop.cli.rules import rules
from relprop.cli.status import INTERRUPTED
from relprop.cli.text import text
from relprop.cli.train import train
from relprop.cli.tutorial import tutorial
from relprop.files import VERSION


class _Program(TyperGroup):
    """All commands. Ctrl-C ends each of them with a word; the library would end it in silence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="relprop",
    cls=_Program,
    help="Explain predictions of neural networks by layer-wise relevance propagation.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _add(command: Callable[..., None]) -> None:
    """Add a command, with its docstring for help: its first line whole, and examples as they stand there."""
    told = inspect.cleandoc(command.__doc__ or "")
    # The library breaks lines anew, but for paragraphs with this mark.
    told_as_is = told.replace("\n\nExample", "\n\n\b\nExample")
    app.command(help=told_as_is, short_help=told.splitlines()[0])(command)


for _command in (tutorial, demo, explain, train, rules, coverage, text):
    _add(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relprop {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass
