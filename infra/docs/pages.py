"""The site's pages, from the repository's documents: what lies where, and links that go on leading there."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from core.errors import ConfigurationError

_LINK: Final = re.compile(r"`[^`\n]+`|(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
"""A link, or code in a line, in which nothing is one."""

_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_FOREIGN: Final = ("http://", "https://", "mailto:")

ROOT_PAGES: Final = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "gpu_worker/demo_model/README.md": "demo-model-card.md",
    "examples/README.md": "examples.md",
}
"""Documents outside of ``docs/``, and where the site has them."""


class Pages:
    """Copies documents into the site's source.

    Args:
        repository: where they stand.
        source: the folder to fill.
        draw: makes an SVG file of a diagram's text.
    """

    def __init__(self, repository: Path, source: Path, *, draw: Callable[[str, Path], None]) -> None:
        self._repository = repository
        self._source = source
        self._draw = draw
        self._diagrams = 0

    def copy(self) -> None:
        """Copy every document, picture and linked file.

        Raises:
            ConfigurationError: a link leads nowhere.
        """
        for origin, place in self._places().items():
            path = self._repository / origin
            target = self._source / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":
                target.write_text(self.rewritten(path.read_text(), origin=origin, place=place))
            else:
                shutil.copyfile(path, target)

    def _places(self) -> Mapping[str, str]:
        """Where each file of the repository that belongs to the site lies there."""
        docs = {
            path.relative_to(self._repository).as_posix(): path.relative_to(
                self._repository / "docs"
            ).as_posix()
            for path in sorted((self._repository / "docs").rglob("*"))
            if path.is_file()
        }
        roots = {
            origin: place for origin, place in ROOT_PAGES.items() if (self._repository / origin).exists()
        }
        return {**docs, **roots}

    def rewritten(self, text: str, *, origin: str, place: str) -> str:
        """A page as the site has it: diagrams drawn, and every link to where its file lies there.

        Args:
            text: the page.
            origin: where it stands in the repository.
            place: where the site has it.

        Raises:
            ConfigurationError: a link leads nowhere.
        """
        folder = PurePosixPath(place).parent

        def diagram(found: re.Match[str]) -> str:
            if found[2] != "mermaid":
                return found[0]
            self._diagrams += 1
            name = f"diagrams/{self._diagrams}.svg"
            (self._source / "diagrams").mkdir(exist_ok=True)
            self._draw(found[3], self._source / name)
            return f"![Diagram]({_relative(name, folder)}){{ .diagram }}"

        def link(found: re.Match[str]) -> str:
            if found[2] is None:
                return found[0]
            target, mark, heading = found[2].partition("#")
            if not target or found[2].startswith(_FOREIGN):
                return found[0]
            lies = os.path.normpath(PurePosixPath(origin).parent / target)
            return f"{found[1]}({_relative(self._place_of(lies, origin=origin), folder)}{mark}{heading})"

        drawn = _FENCE.sub(diagram, text)
        return "".join(part if is_code else _LINK.sub(link, part) for is_code, part in _code_and_prose(drawn))

    def _place_of(self, lies: str, *, origin: str) -> str:
        path = self._repository / lies
        if lies.startswith("diagrams/"):
            return lies
        if path.is_dir():
            lies = f"{lies}/index.md" if lies.startswith("docs/") else f"{lies}/README.md"
        place = self._places().get(lies)
        if place is not None:
            return place
        if (self._source / lies.removeprefix("docs/")).exists():
            return lies.removeprefix("docs/")
        if not path.is_file():
            raise ConfigurationError(f"{origin}: nothing is at {lies}")
        # Sources and the like are shown as they are.
        copied = f"files/{lies}"
        (self._source / copied).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self._source / copied)
        return copied


def _relative(place: str, folder: PurePosixPath) -> str:
    return os.path.relpath(place, folder)


def _code_and_prose(text: str) -> Iterator[tuple[bool, str]]:
    """The parts of a page by turns: what stands in fences, and the rest."""
    end = 0
    for fence in _FENCE.finditer(text):
        yield False, text[end : fence.start()]
        yield True, fence[0]
        end = fence.end()
    yield False, text[end:]
