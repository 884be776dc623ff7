"""One generation and those who follow it. What they are told is decided here; nothing is waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from core.errors import NotFoundError
from core.lifecycle import GenerationState, preceding
from core.models import Generation
from core.outlook import Outlook


@dataclass(frozen=True, slots=True)
class Status:
    """A moment in a generation's life.

    Attributes:
        row: the generation, which is not to be changed.
        outlook: where it stands.
        step: denoising steps taken; never falls.
        preview: a small JPEG as a data URL, where it is new.
    """

    row: Generation
    outlook: Outlook
    step: int
    preview: str | None = None


class Follower:
    """One reader of a generation's statuses; who is too slow for some skips them.

    Args:
        account_id: whose the generation has to be.
        previews: whether previews are wanted.
    """

    __slots__ = ("_error", "_next", "_waiter", "account_id", "previews")

    def __init__(self, *, account_id: UUID, previews: bool) -> None:
        self.account_id = account_id
        self.previews = previews
        self._next: Status | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, status: Status) -> None:
        """Take the place of what has not been read, save its preview where there is no newer one."""
        if not self.previews or status.row.state.terminal:
            status = replace(status, preview=None) if status.preview else status
        elif status.preview is None and self._next is not None and self._next.preview is not None:
            status = replace(status, preview=self._next.preview)
        self._next = status
        self._wake()

    def fail(self, error: Exception) -> None:
        """Have ``error`` raised by whoever reads."""
        self._error = error
        self._wake()

    async def read(self) -> Status:
        """The newest status, once there is one that has not been read.

        Raises:
            NotFoundError: there is no such generation, or it is another account's.
            ServiceUnavailableError: the database did not answer, before anything could be read.
        """
        while self._next is None:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        status, self._next = self._next, None
        return status

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True, eq=False)
class Watch:
    """One generation and those who follow it; ``joining`` have not been told anything yet."""

    key: UUID
    listening: asyncio.Task[None] | None = None
    """While the broker is asked to say what it hears of the generation."""
    stop: Callable[[], Awaitable[None]] | None = None
    """How it is told to be silent again, once it was asked."""
    joining: list[Follower] = field(default_factory=list)
    followers: list[Follower] = field(default_factory=list)
    row: Generation | None = None
    outlook: Outlook = field(default_factory=Outlook)
    step: int = 0
    preview: str | None = None

    changed: bool = False
    """Whether followers have yet to be told."""

    @property
    def open(self) -> bool:
        """Whether it is known and has not ended."""
        return self.row is not None and not self.row.state.terminal

    @property
    def running(self) -> bool:
        """Whether a worker has begun."""
        return self.row is not None and self.row.state is GenerationState.RUNNING

    @property
    def behind(self) -> bool:
        """Whether the broker may know a step or a preview that those who join are to be told."""
        previews = any(follower.previews for follower in self.joining)
        return self.running and bool(self.joining) and (previews or not self.step)

    def take(self, row: Generation) -> bool:
        """Take over what was read, unless it is older than what is known; whether its state is another."""
        known, self.preview = self.row, None
        if known is not None and row.state in preceding(known.state):
            return False
        self.row = row
        return known is not None and row.state is not known.state

    def tell(self, preview: str | None = None) -> None:
        """Tell those who follow how it is now."""
        if self.followers:
            status = self._status(preview)
            for follower in self.followers:
                follower.offer(status)

    def welcome(self) -> bool:
        """Tell those who join; whether any of them wants previews. Another account's generation is none."""
        assert self.row is not None  # noqa: S101 - it has just been read
        joining, self.joining = self.joining, []
        owners = [follower for follower in joining if follower.account_id == self.row.account_id]
        for follower in owners:
            follower.offer(self._status(self.preview))
        self.followers += owners
        for follower in joining:
            if follower not in owners:
                follower.fail(not_found())
        self.preview = None
        return any(follower.previews for follower in owners)

    def fail(self, error: Exception, *, everybody: bool = False) -> None:
        """Fail those who have not been told anything, or everybody."""
        for follower in (*self.joining, *(self.followers if everybody else ())):
            follower.fail(error)
        self.joining = []

    def lose(self, follower: Follower) -> None:
        """Somebody leaves."""
        for group in (self.joining, self.followers):
            if follower in group:
                group.remove(follower)

    def _status(self, preview: str | None) -> Status:
        row = self.row
        assert row is not None  # noqa: S101 - nobody is told anything before it was read
        step = 0 if row.state is GenerationState.QUEUED else min(self.step, row.steps)
        if row.state is GenerationState.SUCCEEDED:
            step = row.steps
        return Status(row, self.outlook, step, preview)


def not_found() -> NotFoundError:
    """What is said of another account's generation, and of one that is not there."""
    return NotFoundError("There is no such generation.")
