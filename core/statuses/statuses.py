"""The live status of generations: each is looked up once, however many watch it in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Final
from uuid import UUID

import structlog

from core.clock import now
from core.errors import ServiceUnavailableError
from core.messages import Control, Progress
from core.outlook import Outlook, Outlooks
from core.queue import Queue
from core.repository import generations
from core.statuses.watch import Follower, Watch, not_found
from core.telemetry import SUBSCRIPTIONS

REREAD_SECONDS: Final = 5.0
"""How long to trust the broker: progress may be lost, the row may not."""

RENEW_SECONDS: Final = 5.0
"""How often workers are asked for previews again; they make them for 15 s after each request."""

_TOGETHER: Final = 100
"""Rows that are read in one statement: few enough that the event loop does not notice."""

_RETRY_SECONDS: Final = 1.0

_TOLD_AGAIN: Final = 0.1
"""By what share of the time that is left an estimate has to move before it is told again."""

_AT_LEAST: Final = timedelta(seconds=1)

log = structlog.get_logger(__name__)


class Statuses:
    """Watches the generations that somebody follows, together.

    Progress is heard from the broker, one interest for each generation. A state that is another than the
    known one, and everybody's first status, are read from the database, up to 100 generations in one
    statement; so is, every 5 s, whether anything was missed. Where nobody follows anything, nothing runs.

    Args:
        queue: the broker.
        outlooks: says where they stand.
    """

    def __init__(self, *, queue: Queue, outlooks: Outlooks) -> None:
        self._queue = queue
        self._outlooks = outlooks
        self._watches: dict[UUID, Watch] = {}
        self._stale: dict[UUID, None] = {}
        self._something_stale = asyncio.Event()
        self._keepers: dict[str, asyncio.Task[None]] = {}

    def follow(self, generation_id: UUID, *, account_id: UUID, previews: bool = False) -> "Following":
        """Hear of a generation while a block runs: its present status at once, then every change.

        Raises:
            ServiceUnavailableError: the broker does not answer.
        """
        return Following(self, generation_id, Follower(account_id=account_id, previews=previews))

    async def join(self, generation_id: UUID, follower: Follower) -> Watch:
        """Let somebody follow a generation, until they leave."""
        watch = self._watches.get(generation_id)
        if watch is None:
            watch = self._watches[generation_id] = Watch(generation_id)
            self._keep()
        watch.joining.append(follower)
        try:
            # Listening first, reading after: nothing falls between the two.
            if watch.stop is None:
                watch.listening = watch.listening or asyncio.create_task(self._listen(watch))
                await asyncio.shield(watch.listening)
        except BaseException:
            await self.leave(watch, follower)
            raise
        self._refresh(watch.key)
        return watch

    async def leave(self, watch: Watch, follower: Follower) -> None:
        """Let somebody follow no longer; after the last one the broker is not listened to."""
        watch.lose(follower)
        if watch.joining or watch.followers or self._watches.get(watch.key) is not watch:
            return
        del self._watches[watch.key]
        self._stale.pop(watch.key, None)
        # Where it was the last one, the reader ends.
        self._something_stale.set()
        with suppress(ServiceUnavailableError):
            if watch.listening is not None:
                await watch.listening
            if watch.stop is not None:
                await watch.stop()

    async def _listen(self, watch: Watch) -> None:
        watch.stop = await self._queue.subscribe_progress(
            watch.key, lambda progress: self._receive(watch, progress)
        )
        watch.listening = None

    def _receive(self, watch: Watch, progress: Progress) -> None:
        watch.step = max(watch.step, progress.step)
        row = watch.row
        if row is None or progress.state is not row.state:
            self._refresh(watch.key)
        elif not row.state.terminal:
            if watch.step:
                watch.outlook = self._outlooks.at_step(row, watch.step)
            watch.tell(progress.preview)

    def _refresh(self, key: UUID) -> None:
        self._stale[key] = None
        self._something_stale.set()

    def _keep(self) -> None:
        """Have everything running that runs while somebody follows."""
        for work in (self._read_what_is_stale, self._look_for_what_was_missed, self._renew_previews):
            keeper = self._keepers.get(work.__name__)
            if keeper is None or keeper.done():
                self._keepers[work.__name__] = asyncio.create_task(work())

    async def _read_what_is_stale(self) -> None:
        while self._watches:
            await self._something_stale.wait()
            self._something_stale.clear()
            while self._stale:
                part = list(islice(self._stale, _TOGETHER))
                for key in part:
                    del self._stale[key]
                watches = [watch for key in part if (watch := self._watches.get(key)) is not None]
                await self._guarded(self._read, watches)

    async def _look_for_what_was_missed(self) -> None:
        while self._watches:
            parts = list(_parts(list(self._watches.values())))
            for part in parts:
                await asyncio.sleep(REREAD_SECONDS / len(parts))
                await self._guarded(
                    self._look_at, [one for one in part if self._watches.get(one.key) is one and one.open]
                )

    async def _renew_previews(self) -> None:
        while self._watches:
            await asyncio.sleep(RENEW_SECONDS)
            for watch in list(self._watches.values()):
                if watch.open and any(follower.previews for follower in watch.followers):
                    await self._ask_for_previews(watch.key)

    async def _guarded(
        self, work: Callable[[Sequence[Watch]], Awaitable[None]], watches: Sequence[Watch]
    ) -> None:
        """Do some of the work; while the database is away only those notice who have not been told yet."""
        try:
            if watches:
                await work(watches)
        except ServiceUnavailableError as error:
            log.warning("statuses_not_read", error=repr(error))
            for watch in watches:
                watch.fail(error)
                if self._watches.get(watch.key) is watch:
                    self._stale[watch.key] = None
            await asyncio.sleep(_RETRY_SECONDS)
            self._something_stale.set()
        except Exception as error:
            # Nobody waits for these tasks: what is wrong here has to reach those who wait for a status.
            log.exception("statuses_failed")
            for watch in watches:
                watch.fail(error, everybody=True)

    async def _read(self, watches: Sequence[Watch]) -> None:
        """Read these anew, and tell those who follow them what is new, those who join everything."""
        rows = {row.id: row for row in await generations.by_ids([watch.key for watch in watches])}
        for watch in watches:
            if (row := rows.get(watch.key)) is None:
                watch.fail(not_found(), everybody=True)
            else:
                watch.changed |= watch.take(row)
        known = [watch for watch in watches if watch.key in rows]
        await asyncio.gather(*(self._catch_up(watch) for watch in known if watch.behind))
        await self._look_ahead(known)
        for watch in known:
            if watch.changed:
                watch.changed = False
                watch.tell()
            if watch.welcome() and watch.open:
                await self._ask_for_previews(watch.key)

    async def _look_at(self, watches: Sequence[Watch]) -> None:
        """See whether anything was missed, and whether their outlook has changed."""
        missed = set(await generations.changed([watch.row for watch in watches if watch.row is not None]))
        for key in missed:
            self._refresh(key)
        rest = [watch for watch in watches if watch.key not in missed]
        await self._look_ahead(rest)
        for watch in rest:
            if watch.changed:
                watch.changed = False
                watch.tell()

    async def _catch_up(self, watch: Watch) -> None:
        """Hear of the step that was told last, before anybody listened here."""
        progress = await self._queue.last_progress(watch.key)
        if progress is not None:
            watch.step, watch.preview = max(watch.step, progress.step), progress.preview

    async def _look_ahead(self, watches: Sequence[Watch]) -> None:
        """Renew the outlooks; those of one tier and window are counted together."""
        by_pace = [watch for watch in watches if watch.step and watch.running]
        for watch in by_pace:
            assert watch.row is not None  # noqa: S101 - it runs
            watch.outlook = self._outlooks.at_step(watch.row, watch.step)
        others = [watch for watch in watches if not (watch.step and watch.running) and watch.row is not None]
        found = await self._outlooks.of([watch.row for watch in others if watch.row is not None])
        for watch, outlook in zip(others, found, strict=True):
            if _is_news(watch.outlook, outlook):
                watch.outlook = outlook
                watch.changed = True

    async def _ask_for_previews(self, key: UUID) -> None:
        """Have previews made, by whichever worker holds the generation or will."""
        try:
            await self._queue.publish_control(Control(id=key, action="preview"))
        except ServiceUnavailableError as error:
            # The next request makes up for it.
            log.warning("previews_not_asked_for", generation=str(key), error=str(error))


def _is_news(before: Outlook, after: Outlook) -> bool:
    """Whether it differs by more than those who wait care about."""
    was, will_be = before.estimated_finish_at, after.estimated_finish_at
    if before.queue_position != after.queue_position or was is None or will_be is None:
        return before != after
    return abs(will_be - was) > max(_AT_LEAST, _TOLD_AGAIN * (will_be - now()))


def _parts(watches: Sequence[Watch]) -> Iterator[Sequence[Watch]]:
    for begin in range(0, len(watches), _TOGETHER):
        yield watches[begin : begin + _TOGETHER]


class Following:
    """One who follows, for as long as a block runs.

    Not a generator, as context managers are wont to be: there are thousands.
    """

    __slots__ = ("_follower", "_generation_id", "_statuses", "_watch")

    def __init__(self, statuses: Statuses, generation_id: UUID, follower: Follower) -> None:
        self._statuses = statuses
        self._generation_id = generation_id
        self._follower = follower

    async def __aenter__(self) -> Follower:
        """Join."""
        self._watch = await self._statuses.join(self._generation_id, self._follower)
        SUBSCRIPTIONS.inc()
        return self._follower

    async def __aexit__(self, *_: object) -> None:
        """Leave."""
        try:
            await self._statuses.leave(self._watch, self._follower)
        finally:
            SUBSCRIPTIONS.dec()
