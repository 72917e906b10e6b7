"""Write the pages of the documentation that the program itself tells: commands, rules, operations.

python tools/generate_docs.py           write them
python tools/generate_docs.py --check   fail if they are not as the program would write them
"""

import argparse
import inspect
import os
import sys
from pathlib import Path

os.environ["COLUMNS"] = "100"  # the width of help texts, whatever the terminal

import typer.main
from typer.testing import CliRunner

import relprop
from relprop import cli, operations, rules
from relprop.linear_operations import PrintedRule
from relprop.presets import DEFAULT, DEFAULT_WITHOUT_BOUNDS

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by `make docs`; changes made here are lost. -->\n\n"


def commands() -> str:
    """Every command's help text."""
    app = typer.main.get_command(cli.app)
    names = sorted(getattr(app, "commands", {}))
    pages = ["# Commands\n\nWhat `relprop COMMAND --help` prints.\n"]
    for name in [None, *names]:
        arguments = [name, "--help"] if name else ["--help"]
        result = CliRunner().invoke(cli.app, arguments, prog_name="relprop", env={"COLUMNS": "100"})
        title = f"relprop {name}" if name else "relprop"
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        pages.append(f"## {title}\n\n```text\n{text}\n```\n")
    return NOTE + "\n".join(pages)


def rules_and_presets() -> str:
    """Every rule with its formula, and every preset with its entries."""
    lines = [
        "# Rules and presets\n",
        inspect.cleandoc(rules.__doc__ or "").replace("<", "&lt;") + "\n",
        "## Rules\n",
    ]
    for rule in RULES:
        signature = str(inspect.signature(rule)).replace(" -> None", "")
        lines.append(f"### {rule.__name__}\n")
        lines.append(f"```text\n{rule.__name__}{_plain(signature)}\n```\n")
        lines.append(f"```text\n{inspect.cleandoc(rule.__doc__ or '')}\n```\n")
    lines.append("## Presets\n")
    lines.append(
        "For each linear operation the first line that matches gives the rule. Without `rules=`, "
        f"`{DEFAULT}` is taken where the bounds of the input are known, else `{DEFAULT_WITHOUT_BOUNDS}`.\n"
    )
    lines += ["| preset | where | rule |", "| --- | --- | --- |"]
    for name, composite in relprop.PRESETS.items():
        for where, chosen in composite.entries:
            lines.append(f"| `{name}` | {_place(where)} | `{chosen}` |")
            name = ""
    return NOTE + "\n".join(lines).replace("| `` |", "| |") + "\n"


def operation_table() -> str:
    """Every operation that relevance can cross."""
    lines = [
        "# Operations\n",
        "Relevance crosses these operations, whichever way they are spelled: as a module, a function, a",
        "method, an operator, in place or not. Anything else on its way is an error that names the place.",
        "How to add one is told in CONTRIBUTING.md.\n",
    ]
    for family, table in operations.FAMILIES.items():
        lines.append(f"- **{family}**: " + ", ".join(f"`{name}`" for name in table))
    return NOTE + "\n".join(lines) + "\n"


def _plain(signature: str) -> str:
    return signature.replace("relprop.rules.", "").replace("torch.Tensor", "Tensor")


def _place(where: object) -> str:
    if isinstance(where, tuple):
        return " and ".join(map(_place, where))
    return f'"{where}"' if isinstance(where, str) else getattr(where, "__name__", repr(where))


RULES = [
    value for value in vars(relprop).values() if isinstance(value, type) and issubclass(value, PrintedRule)
]

PAGES = {"commands.md": commands, "rules.md": rules_and_presets, "operations.md": operation_table}


def main() -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail if a page is not up to date"
    )
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path.relative_to(DOCS.parent)))
        else:
            path.write_text(text)
    if stale:
        print(f"not as the program would write them: {', '.join(stale)}. Run `make docs`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
