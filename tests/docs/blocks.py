"""The code blocks of the documents, and what the comments before them say of each.

`<!-- not run: REASON -->` before a block leaves it at what can be checked without running it,
`<!-- prints: TEXT -->` wants the text in its output, and `<!-- fails: STATUS -->` that it ends so.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

REPOSITORY = Path(__file__).resolve().parents[2]
_ELSEWHERE = {".venv", "node_modules", "build", ".darkroom", ".git"}
_BLOCK = re.compile(
    r"(?P<marks>(?:^ *<!--[^\n]*-->\n)*)"
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- (not run|prints|fails): (.+?) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block: where it stands, what it holds, and its marks."""

    document: str
    line: int
    language: str
    text: str
    not_run: str | None
    prints: tuple[str, ...]
    fails: int

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """Every Markdown file of the repository."""
    found = (path for path in REPOSITORY.rglob("*.md"))
    return sorted(path for path in found if not _ELSEWHERE & set(path.relative_to(REPOSITORY).parts))


def blocks_of(document: Path) -> Iterator[Block]:
    """The blocks of a document, in order."""
    text = document.read_text()
    for found in _BLOCK.finditer(text):
        marks = _MARK.findall(found["marks"])
        said = dict(marks)
        yield Block(
            document=document.relative_to(REPOSITORY).as_posix(),
            line=text.count("\n", 0, found.start("indent")) + 1,
            language=found["language"].strip(),
            text=dedent(found["text"]),
            not_run=said.get("not run"),
            prints=tuple(value for name, value in marks if name == "prints"),
            fails=int(said.get("fails", 0)),
        )


BLOCKS = [block for document in documents() for block in blocks_of(document)]
