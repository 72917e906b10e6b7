"""A page of all pictures that were explained, with what was found of each."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from relprop.cli.work.one_picture import Finding
from relprop.cli.work.terminal import counted, plural, refuse_to_replace_others
from relprop.errors import Call, InputError
from relprop.files import require_writable, write_whole
from relprop.models import Model
from relprop.pages.items import Item, encoded_size
from relprop.pages.look import Look
from relprop.pages.pictures import items_of
from relprop.pages.report import MOST_BYTES, report
from relprop.pages.words import Told, ToldOfMap
from relprop.results.explanation import Explanation


def check_report(path: Path, pictures: Sequence[Path]) -> None:
    """Find out before any picture is explained whether the page can be written.

    Raises:
        InputError: the name does not end in .html, or is that of one of the pictures.
        FileError: there is something else at the path that relprop did not write, or nothing can be written.
    """
    if path.suffix.lower() != ".html":
        raise InputError(f"--html {path}: give a name that ends in .html.")
    if os.path.realpath(path) in {os.path.realpath(picture) for picture in pictures}:
        raise InputError(f"--html {path}: this is one of the pictures given. Choose another name.")
    # After Ctrl-C, an earlier page stays, and the new one has a name of its own.
    refuse_to_replace_others([path, _of_interrupted(path)], "another name with --html")
    require_writable(path)


def _of_interrupted(path: Path) -> Path:
    """Return where the page of a run that was interrupted goes, if there is an earlier page."""
    return path.with_stem(f"{path.stem}-interrupted")


class Report:
    """Collects what was found, encoded at once, and writes the page.

    Args:
        path: the file to write.
        model: which model.
        pictures: all pictures that are to be explained.
    """

    def __init__(self, path: Path, model: Model, pictures: Sequence[Path]) -> None:
        self.path = path
        self._model = model
        self._pictures = list(pictures)
        self._look = Look(model=model.name, classes=model.classes, shared=True, call=Call(f"--html {path}"))
        self._items: list[Item] = []
        self._size = 0
        self._failed = 0
        self._summed: bool | None = None

    def add(self, found: Finding) -> None:
        """Take up what was found of a picture.

        Raises:
            InputError: relevance that cannot be drawn.
        """
        shown = self._small_enough(found.pixels)
        if len(shown) == 1:
            shown = {"": next(iter(shown.values()))}
        told = self._told(found, list(shown))
        many = len(self._pictures)
        item = next(items_of(shown, found.prepared.picture, self._look, told=lambda _: told, thumbnails=many))
        self._items.append(item)
        self._size += item.size

    def _told(self, found: Finding, names: Sequence[str]) -> Told:
        """Return what is told of a picture, with the names of its explanations."""
        best, asked = found.best, list(found.explained)
        facts = [("Predicted", best.title)]
        if best.share is not None:
            facts.append(("Share of the picture" if best.area else "Probability", f"{best.share:.2f}"))
        facts.append(("Weights", self._model.weights))
        if self._summed:
            facts.append(("Channels", "summed, so that all pictures fit into the page"))
        explained = "" if best in asked else f"; explained: {', '.join(answer.title for answer in asked)}"
        maps = [
            ToldOfMap(target=answer.title, aim=answer.title, notes=found.notes(answer)) for answer in asked
        ]
        return Told(
            number=self._number(found.picture),
            label=self._label(found.picture),
            caption=best.label + explained,
            facts=tuple(facts),
            maps=dict(zip(names, maps, strict=True)),
        )

    def _small_enough(self, shown: dict[str, Explanation]) -> dict[str, Explanation]:
        """Sum over the channels if all pictures would otherwise not fit into the page."""
        if self._summed is None:
            sizes = [encoded_size(each.relevance.shape[1:]) for each in shown.values()]
            self._summed = sum(sizes) * len(self._pictures) > MOST_BYTES // 2
        if not self._summed:
            return shown
        return {
            name: replace(each, inputs={"pixels": each.relevance.sum(1, keepdim=True)})
            for name, each in shown.items()
        }

    def add_error(self, picture: Path, error: Exception) -> None:
        """Note that a picture could not be explained, and why."""
        told = Told(number=self._number(picture), label=self._label(picture), caption="", maps={})
        self._items.append(Item(told=told, error=str(error)))
        self._failed += 1

    def require_room(self) -> None:
        """Find out, as soon as one picture is explained, whether all of them fit into a page.

        Raises:
            InputError: they do not.
        """
        explained = len(self._items) - self._failed
        if not explained or self._size / explained * len(self._pictures) <= MOST_BYTES:
            return
        fit = MOST_BYTES * explained // self._size
        raise InputError(
            f"--html {self.path}: {plural(len(self._pictures))} would take "
            f"{self._size / explained * len(self._pictures) / 2**20:,.0f} MB, and a page has "
            f"{MOST_BYTES / 2**20:.0f} MB at most. {fit} of them fit. Give fewer pictures, or fewer classes "
            "with --top."
        )

    def write(self, interrupted: bool = False) -> Path | None:
        """Write the page, whole or not at all; return where it is.

        Nothing is written if no picture was explained. A page of a run that was interrupted does not replace
        an earlier one, but stands beside it.

        Args:
            interrupted: whether some pictures are missing because of Ctrl-C. The page says so.

        Raises:
            FileError: the file cannot be written.
        """
        if len(self._items) == self._failed:
            return None
        # Of a model in a file, the name of the file is enough here; the facts have all of it.
        name, all_ = self._model.name.rpartition(os.sep)[2], len(self._pictures)
        explained = [item for item in self._items if not item.error]
        if all_ == 1 and explained:
            title = f"What makes {name} say {explained[0].maps[0].told.target}?"
        else:
            title = f"What {name} looks at, in {plural(all_)}"
        about = []
        if interrupted:
            about.append(f"interrupted: {counted(len(explained), all_)} done")
        if self._failed:
            about.append(f"{counted(self._failed, all_)} could not be explained")
        page = report(self._items, self._look, title, about="; ".join(about))
        path = _of_interrupted(self.path) if interrupted and self.path.exists() else self.path
        write_whole(path, page.encode("utf-8"))
        return path

    def _number(self, picture: Path) -> int:
        return self._pictures.index(picture) + 1

    def _label(self, picture: Path) -> str:
        """Return a picture's name, with its folder if there is another one of this name."""
        same = [other for other in self._pictures if other.name == picture.name]
        return picture.name if len(same) == 1 else str(picture)
