"""How the service stands at a moment, as an operator would ask."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from core.clock import now
from core.errors import DarkroomError
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat
from core.models import Window, WindowState
from core.queue import Lane, Queue
from core.repository import standing, windows
from core.repository.standing import Letters, Open, Waits

_T = TypeVar("_T")

_RECENT: Final = timedelta(minutes=10)
_DAY: Final = timedelta(days=1)
_WINDOWS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowStanding:
    """A batch window and how its jobs do: ``done`` have ended, ``failed`` of them badly."""

    window: Window
    done: int
    running: int
    failed: int

    @property
    def over(self) -> bool:
        """Whether all of it has ended."""
        return self.window.state is WindowState.FINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything at one moment; what could not be asked is none, and ``trouble`` says why.

    Attributes:
        at: the moment.
        lanes: jobs that the broker holds, those in flight included.
        workers: those that gave a sign of life in the last seconds.
        generations: what has not ended.
        waits: how long premium waited in the last ten minutes.
        next_window_at: when the next one opens.
        windows: the newest ones, the newest first.
        letters: those that have not left.
        dead: generations of the last day that our side failed.
        trouble: what does not answer.
    """

    at: datetime
    lanes: Mapping[Lane, int] | None = None
    workers: Sequence[Heartbeat] | None = None
    generations: Mapping[Tier, Open] | None = None
    waits: Waits | None = None
    next_window_at: datetime | None = None
    windows: Sequence[WindowStanding] | None = None
    letters: Letters | None = None
    dead: int | None = None
    trouble: Sequence[str] = field(default=())


async def ask(queue: Queue) -> Standing:
    """How everything stands; the database has to be open."""
    at, trouble = now(), list[str]()

    async def told(answer: Awaitable[_T]) -> _T | None:
        try:
            return await answer
        except DarkroomError as error:
            if str(error) not in trouble:
                trouble.append(str(error))
            return None

    clock = await told(windows.clock())
    return Standing(
        at=at,
        lanes=await told(_lanes(queue)),
        workers=await told(queue.workers()),
        generations=await told(standing.open_generations()),
        waits=await told(standing.premium_waits(since=at - _RECENT)),
        next_window_at=clock.next_at if clock else None,
        windows=await told(_windows()),
        letters=await told(standing.letters()),
        dead=await told(standing.dead_jobs(since=at - _DAY)),
        trouble=tuple(trouble),
    )


async def _lanes(queue: Queue) -> Mapping[Lane, int]:
    return {lane: await queue.depth(lane) for lane in Lane}


async def _windows() -> Sequence[WindowStanding]:
    found = []
    for window in await windows.recent(limit=_WINDOWS):
        counts = window.counts if window.finished_at else (await windows.tally(window.id)).states
        found.append(
            WindowStanding(
                window=window,
                done=sum(jobs for state, jobs in counts.items() if state.terminal),
                running=counts.get(GenerationState.RUNNING, 0),
                failed=counts.get(GenerationState.FAILED, 0),
            )
        )
    return found
