"""The command line. Each command is a function in a file of its own; `commands` puts them together.

These files define how commands are called, and import nothing slow. So help and mistyped options are answered
at once. A command imports its work from `work` when it runs.
"""

import io
import os
import sys

from relprop.cli.signals import Ended, end_by, signals_end
from relprop.cli.status import FAILED, INTERRUPTED


def main() -> None:
    """Run the command line. Errors end it with a message and status 2, Ctrl-C with 130.

    SIGTERM and SIGHUP end it as they end any program, once no file is left half written.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that is no UTF-8, or γ where the output is in Latin-1, is written as an escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with signals_end() as pressed:
        try:
            _run()
        except Ended as ended:
            end_by(ended.number)
        except SystemExit:
            raise
        except BaseException as error:
            # Packages written in C turn a Ctrl-C while they are imported into errors of their own.
            if not isinstance(error, KeyboardInterrupt) and not pressed:
                raise
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)


def _run() -> None:
    # Imported here, where Ctrl-C is awaited.
    from relprop.cli.commands import app
    from relprop.errors import RelpropError, visible

    try:
        try:
            app(prog_name="relprop")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except RelpropError as error:
        print(f"error: {visible(str(error), keep=chr(10))}", file=sys.stderr)
        sys.exit(FAILED)
    except BrokenPipeError:  # as in `relprop rules | head`
        _give_up_stdout()
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "cannot write the output: "
        print(f"error: {visible(where)}{error.strerror or error}", file=sys.stderr)
        _give_up_stdout()
        sys.exit(FAILED)
    except MemoryError:
        print("error: the memory is full. Take a smaller model, picture or --size.", file=sys.stderr)
        sys.exit(FAILED)


def _give_up_stdout() -> None:
    """Let nothing more be written to an output that takes nothing, not even at the end of the program."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # there is no such output any more, or it is no file
        return
