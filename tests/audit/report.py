"""The table of what was tried and what became of it, which ``make audit`` prints."""

from dataclasses import dataclass
from typing import Any, Final

import pytest

_PROPERTY: Final = "audit"
_HEADINGS: Final = ("attack", "transport", "answer", "median ms", "verdict")


@dataclass(frozen=True)
class Report:
    """One test's rows; they travel with its outcome, also from another test process."""

    node: pytest.Item

    def add(
        self, attack: str, transport: str, answer: object, *, seconds: float | None = None, verdict: str
    ) -> None:
        """Note one attack.

        Args:
            answer: the status or the close code.
            seconds: how long the answer took, the median.
            verdict: what the service did about it.
        """
        median = "" if seconds is None else f"{1000 * seconds:.1f}"
        self.node.user_properties.append((_PROPERTY, (attack, transport, str(answer), median, verdict)))


def print_table(terminal: Any) -> None:
    """Print all rows of all tests, those of failed ones marked."""
    told = {outcome: terminal.stats.get(outcome, []) for outcome in ("passed", "", "failed", "error")}
    bad = {test.nodeid for outcome in ("failed", "error") for test in told[outcome]}
    rows = {
        (*row[:-1], f"FAILED {row[-1]}" if test.nodeid in bad else row[-1])
        for tests in told.values()
        for test in tests
        for name, row in getattr(test, "user_properties", ())
        if name == _PROPERTY
    }
    if not rows:
        return
    widths = [max(len(row[column]) for row in (_HEADINGS, *rows)) for column in range(len(_HEADINGS))]
    terminal.section("audit")
    for row in (_HEADINGS, *sorted(rows)):
        terminal.write_line(
            "  ".join(
                cell.rjust(width) if column == 3 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
