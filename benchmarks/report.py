"""What was measured, against the bars: a table for people and JSON for programs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Side(StrEnum):
    """On which side of its bar a figure has to be."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held to."""

    side: Side
    limit: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` is on the right side."""
        return value >= self.limit if self.side is Side.AT_LEAST else value <= self.limit

    def __str__(self) -> str:
        return f"{self.side} {self.limit:g}"


def at_least(limit: float) -> Bar:
    """A figure must not be below ``limit``."""
    return Bar(Side.AT_LEAST, limit)


def at_most(limit: float) -> Bar:
    """A figure must not be above ``limit``."""
    return Bar(Side.AT_MOST, limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        name: what it is.
        value: in ``unit``.
        unit: such as ``images/s``; empty for a ratio.
        bar: what it is held to; none where it is told for information.
        note: how it was measured, where that is not plain.
    """

    name: str
    value: float
    unit: str = ""
    bar: Bar | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds its bar; true without one."""
        return self.bar is None or self.bar.holds(self.value)

    def __str__(self) -> str:
        verdict = "" if self.bar is None else f"{self.bar} {'PASS' if self.passed else 'FAIL'}"
        return f"  {self.name:<52} {self.value:>9.3f} {self.unit:<8}  {verdict:<11}  {self.note}".rstrip()


def tell(what: str) -> None:
    """Say on standard error what is being measured: a run takes its time."""
    print(f"… {what}", file=sys.stderr, flush=True)


class Report:
    """Every figure of a run, printed as soon as it is known."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Figure]] = {}

    def add(self, part: str, figures: Sequence[Figure], *, seconds: float) -> None:
        """Take in and print the figures of one part, which took ``seconds``."""
        self._parts[part] = list(figures)
        print(f"\n{part} ({seconds:.0f} s)")
        for figure in figures:
            print(figure, flush=True)

    @property
    def passed(self) -> bool:
        """Whether every figure holds its bar."""
        return all(figure.passed for figures in self._parts.values() for figure in figures)

    def write(self, path: Path, *, setting: dict[str, object]) -> None:
        """Write all of it as one JSON object; ``setting`` says on what it was measured."""
        parts = {
            part: [{**asdict(figure), "passed": figure.passed} for figure in figures]
            for part, figures in self._parts.items()
        }
        content = {"setting": setting, "passed": self.passed, "parts": parts}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
