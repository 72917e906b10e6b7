"""The command line. Each command is a function in a file of its own; `commands` puts them together.

These files define how commands are called, and import nothing slow. So help and mistyped options are answered
at once. A command imports its work from `work` when it runs.
"""

import sys

from relprop.cli.status import INTERRUPTED


def main() -> None:
    """Run the command line. Errors of relprop end it with a message and status 2, Ctrl-C with 130."""
    try:
        # Imported here, where Ctrl-C is awaited.
        from relprop.cli.commands import app
        from relprop.errors import RelpropError

        try:
            app(prog_name="relprop")
        except RelpropError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
