"""Runs the Python in a markdown page, as a reader would who types it from top to bottom."""

import io
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

FENCE = re.compile(r"^(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})[ ]*(?P<language>[^\s`]*)[^`]*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, the line on which the text begins (from 1) and its number of lines."""

    language: str
    text: str
    line: int
    length: int


def blocks(page: Path) -> list[Block]:
    """Give all fenced blocks of a page in order, those inside a list freed from its indentation."""
    found = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            continue
        content = []
        for _, inner in lines:
            closing = inner.strip()
            if closing.startswith(opening["fence"]) and not closing.strip(opening["fence"][0]):
                break
            content.append(inner)
        else:
            raise SyntaxError(f"{page}, line {number}: the block is never closed")
        text = dedent("".join(f"{inner}\n" for inner in content))
        found.append(Block(opening["language"], text, number + 1, len(content)))
    return found


def has_python(page: Path) -> bool:
    """Tell whether there is anything in a page to run."""
    return any(block.language == "python" for block in blocks(page))


def run(page: Path) -> dict[str, Any]:
    """Run the `python` blocks of a page in one namespace, and give that namespace.

    An `output` block states what the Python block before it prints; anything else is an AssertionError that
    names the line. Tracebacks show the page's own lines, with their numbers.
    """
    namespace, outputs = execute(page)
    for block, printed in outputs:
        assert printed == block.text, (
            f"{page}, line {block.line}: the block before this one prints\n{printed}"
            f"If that is right, `python tests/comparisons/markdown.py {page}` writes it there."
        )
    return namespace


def execute(page: Path) -> tuple[dict[str, Any], list[tuple[Block, str]]]:
    """Run a page, and give its namespace and each `output` block beside what has really been printed."""
    # The name is not "__main__": a page is read, not started.
    namespace: dict[str, Any] = {"__name__": page.stem}
    outputs = []
    printed = ""
    for block in blocks(page):
        if block.language == "python":
            # Empty lines before the code put it on the line on which it stands in the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with redirect_stdout(io.StringIO()) as stdout:
                exec(code, namespace)
            printed = stdout.getvalue()
        elif block.language == "output":
            outputs.append((block, printed))
    return namespace, outputs


def renew(page: Path) -> None:
    """Write what has really been printed into the `output` blocks of a page (which stand outside lists)."""
    _, outputs = execute(page)
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    for block, printed in reversed(outputs):
        first = block.line - 1
        lines[first : first + block.length] = [printed]
    page.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        renew(Path(name))
