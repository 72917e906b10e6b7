"""Commands as a test runs them, and the errors that they raise."""

from collections.abc import Callable
from typing import Any

import typer
from typer.testing import CliRunner, Result

from relprop import RelpropError


def runner(command: Callable[..., Any]) -> Callable[..., Result]:
    """Return a function that runs a command with arguments."""

    def run(*arguments: object) -> Result:
        app = typer.Typer()
        app.command()(command)
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def error_of(result: Result) -> RelpropError:
    """The error of relprop that ended a command."""
    assert isinstance(result.exception, RelpropError), result.exception
    return result.exception


def raising(run: Callable[..., Result]) -> Callable[..., RelpropError]:
    """Return a function that runs a command with arguments, and gives the error that ended it."""
    return lambda *arguments: error_of(run(*arguments))
