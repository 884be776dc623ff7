"""What a day of windows is held to: who was served when, what letters came, what it left in memory. Pure."""

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from benchmarks.report import Figure, at_least, at_most
from core.lifecycle import GenerationState
from core.models import Generation, Letter, Window

DIFFERENCE: Final = 0.1
GROWTH: Final = 1.1

_BACKLOG: Final = 10
"""Jobs that somebody has to have had: of fewer, one more or less would be over the tenth."""

_SAMPLES: Final = 3


def job_figures(rows: Sequence[Generation], *, asked: int) -> list[Figure]:
    """Whether so many were accepted, and each has its pictures."""
    ends = Counter(row.state for row in rows)
    return [
        Figure(name="jobs", value=len(rows), bar=at_least(asked)),
        Figure(
            name="jobs without their pictures",
            value=len(rows) - ends[GenerationState.SUCCEEDED],
            bar=at_most(0),
            note=", ".join(f"{count} {state.value}" for state, count in sorted(ends.items())),
        ),
    ]


def window_figures(rows: Sequence[Generation], found: Sequence[Window], *, due: int) -> list[Figure]:
    """Whether every job was in its window, in time, and in its turn.

    Args:
        rows: all jobs.
        found: all windows, in order.
        due: how many there have to be.
    """
    beats = [window.tick_at for window in found]
    openings = [window.opened_at or window.tick_at for window in found]
    places = {window.id: place for place, window in enumerate(found)}
    astray, at_the_edge = 0, 0
    for row in rows:
        place = -1 if row.window_id is None else places[row.window_id]
        # What comes after a beat may still be there when its window opens; what was published before, must.
        first = bisect_left(openings, row.created_at)
        last = bisect_left(beats, row.published_at or row.created_at)
        astray += not first <= place <= last
        at_the_edge += first < last
    took = [
        (window.finished_at - (window.opened_at or window.tick_at)).total_seconds()
        for window in found
        if window.finished_at is not None
    ]
    usual, longest = statistics.median(took or [0]), max(took, default=0)
    late = sum(window.finished_at is None or window.finished_at > window.deadline for window in found)
    figures = [
        Figure(name="windows", value=len(found), bar=at_least(due)),
        Figure(
            name="jobs outside their window",
            value=astray,
            bar=at_most(0),
            note=f"{at_the_edge} were on their way to the queue at a beat, and may be in either",
        ),
        Figure(
            name="windows that missed their deadline",
            value=late,
            bar=at_most(0),
            note=f"they took {usual:.2f} s, the longest {longest:.2f} s",
        ),
        Figure(name="jobs put off to the next window", value=sum(window.put_off for window in found)),
    ]
    unfair = list(differences(rows))
    if unfair:
        figures.append(
            Figure(
                name="difference among backlogs in mid-window, the worst",
                value=max(unfair),
                bar=at_most(DIFFERENCE),
                note=f"of {len(unfair)} windows in which several had more jobs waiting",
            )
        )
    return figures


def differences(rows: Sequence[Generation]) -> Iterator[float]:
    """By how much customers with a backlog differ when half of their window's pictures are made."""
    members: defaultdict[UUID | None, list[Generation]] = defaultdict(list)
    for row in rows:
        if row.finished_at is not None:
            members[row.window_id].append(row)
    for jobs in members.values():
        jobs.sort(key=lambda row: row.finished_at or row.created_at)
        asked = Counter(row.account_id for row in jobs)
        had = Counter(row.account_id for row in jobs[: len(jobs) // 2])
        backlogs = [had[account] for account in asked if had[account] < asked[account]]
        if len(backlogs) > 1 and max(backlogs) >= _BACKLOG:
            yield (max(backlogs) - min(backlogs)) / max(backlogs)


def letter_figures(
    rows: Sequence[Generation], written: Sequence[Letter], arrived: Mapping[str, int]
) -> list[Figure]:
    """Whether each customer of each window got one letter.

    Args:
        rows: all jobs.
        written: the letters' rows.
        arrived: how often each has arrived, by its ``Message-ID``.
    """
    due = {(str(row.window_id), row.account_id) for row in rows}
    told = Counter((str(letter.parameters["window_id"]), letter.account_id) for letter in written)
    return [
        Figure(name="letters", value=len(due), note="one for each customer of each window"),
        Figure(
            name="letters that never arrived",
            value=len(due - set(told)) + sum(not arrived.get(letter.message_id) for letter in written),
            bar=at_most(0),
        ),
        Figure(
            name="letters too many",
            value=sum(count - 1 for count in (*told.values(), *arrived.values())),
            bar=at_most(0),
        ),
    ]


def memory_figures(samples: Sequence[Mapping[str, int]], *, quarter: int) -> Iterator[Figure]:
    """Whether any process needs more and more.

    Args:
        samples: bytes in use of each process, as time went by.
        quarter: how many samples were taken in the first quarter, at least one.
    """
    for name in samples[0]:
        resident = [sample[name] for sample in samples]
        quarters = [
            statistics.median(resident[max(0, end - _SAMPLES) : end]) / 2**20
            for end in (quarter, 2 * quarter, 3 * quarter, len(resident))
        ]
        yield Figure(
            name=f"memory of {name} at the end ÷ after a quarter",
            value=quarters[-1] / quarters[0],
            bar=at_most(GROWTH),
            note=f"after each quarter {', '.join(f'{each:.1f}' for each in quarters)} MiB",
        )
