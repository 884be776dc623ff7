"""The broker's beats as the batcher sees them: started, told, and made up for where the broker missed one."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from batcher.window import next_tick
from core.clock import now, pause
from core.errors import ConfigurationError, ServiceUnavailableError
from core.queue import Delivery, Queue
from core.repository import windows
from core.settings import WindowSettings
from core.telemetry import BEATS_MADE_UP

_GRACE: Final = timedelta(seconds=10)
"""After which a beat that was due counts as missed."""

_SKEW: Final = timedelta(seconds=2)
"""By which the broker's clock may be behind the one that says when a beat is due."""

_LOOK_SECONDS: Final = 5.0
"""Between two looks at whether one was missed."""

_RETRY_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Clock:
    """Keeps the broker beating by the schedule, and the next beat noted; any number of replicas may run.

    Where their schedules differ, as during a rollout, that of the one which started last stands.
    """

    def __init__(self, *, queue: Queue, settings: WindowSettings) -> None:
        """Make a clock.

        Raises:
            ConfigurationError: the schedule is not one that the broker could keep.
        """
        next_tick(settings.window, since=now(), now=now())
        self._queue = queue
        self._expression = settings.window
        self._looked_at = float("-inf")

    async def start(self, *, stop: asyncio.Event) -> None:
        """Have the broker beat, once it and the database are there; ends early when ``stop`` is set."""
        while not stop.is_set():
            try:
                schedule = await self._queue.schedule_window(self._expression)
                next_at = next_tick(self._expression, since=schedule.since, now=now())
                noted = await windows.clock()
                # A beat that is due stays noted until it has come or was made up for.
                if noted is None or noted.next_at > now():
                    await windows.set_clock(self._expression, next_at=next_at)
            except ServiceUnavailableError as error:
                log.warning("clock_postponed", error=repr(error))
                await pause(stop, seconds=_RETRY_SECONDS)
            else:
                log.info("clock_started", expression=self._expression, next_at=next_at.isoformat())
                return

    async def note(self, beat: Delivery) -> None:
        """Note the beat that follows this one, by the schedule that stands, whoever set it."""
        expression = (await self._queue.keep_schedule(self._expression)).expression
        announced = beat.headers.get("Nats-Schedule-Next")
        if announced and (next_at := datetime.fromisoformat(announced)) > now():
            await windows.set_clock(expression, next_at=next_at)
            return
        # One beside the schedule announces none; one that comes late, because nobody ran, one that is over.
        noted = await windows.clock()
        if noted is None or noted.next_at <= now() or noted.expression != expression:
            next_at = next_tick(expression, since=beat.stored_at, now=now())
            await windows.set_clock(expression, next_at=next_at)

    async def look(self) -> None:
        """See now and then whether a beat is overdue, and beat in the broker's place."""
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            await self._make_up()
        except ServiceUnavailableError as error:
            log.warning("clock_unseen", error=repr(error))

    async def _make_up(self) -> None:
        """A server that was down when a beat was due does not make up for it, nor does a stream made anew."""
        noted = await windows.clock()
        if noted is None or noted.next_at + _GRACE > now():
            return
        # A stream that differs is a person's to change, as the reconciler says: windows open all the same.
        with suppress(ConfigurationError):
            await self._queue.declare()
        await self._queue.keep_schedule(self._expression)
        last = await self._queue.last_beat_at()
        if last is not None and last > noted.next_at - _SKEW:
            # It has come, and waits for us or is in another's hands.
            return
        await self._queue.beat()
        BEATS_MADE_UP.inc()
        log.warning("beat_made_up", due=noted.next_at.isoformat())
