"""Takes letters that are due, writes them and hands them to the mail server."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from batcher.letters.contents import Author
from batcher.letters.rendering import Renderer
from core.clock import now, pause
from core.errors import ServiceUnavailableError
from core.failpoints import Failpoint, reach
from core.mail import LetterRefusedError, Mailer
from core.models import Letter
from core.repository import letters
from core.repository.database import UNAVAILABLE, in_transaction
from core.telemetry import LETTERS

MAX_ATTEMPTS: Final = 12
"""Over about two and a half hours; then the letter has failed until somebody looks at it."""

FIRST_RETRY: Final = timedelta(seconds=5)
LONGEST_RETRY: Final = timedelta(hours=1)

_LEASE = timedelta(minutes=2)
_TIME_LIMIT = timedelta(seconds=100)
"""For one attempt: shorter than the lease, so that a letter is never in two hands."""

_PARALLEL = 4
"""A letter full of pictures takes some 150 MB of memory while it is encoded."""

_PAUSE = 0.4

log = structlog.get_logger(__name__)


class Postman:
    """Sends letters, several at a time so that a stuck one holds up no other; replicas may run beside it."""

    def __init__(self, *, author: Author, renderer: Renderer, mailer: Mailer) -> None:
        self._author = author
        self._renderer = renderer
        self._mailer = mailer

    async def run(self, *, stop: asyncio.Event) -> None:
        """Send what is due until ``stop`` is set; letters under way are finished first."""
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                claimed = await _claim(_PARALLEL - len(under_way))
                for letter in claimed:
                    task = tasks.create_task(self.deliver(letter))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                if len(under_way) == _PARALLEL:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                elif not claimed:
                    await pause(stop, seconds=_PAUSE)

    async def deliver(self, letter: Letter) -> None:
        """Make one attempt at a claimed letter, and note how it went; one that is for nobody is dropped."""
        with structlog.contextvars.bound_contextvars(
            letter=str(letter.id), kind=letter.kind.value, attempt=letter.attempts
        ):
            if not letter.address:
                await _note(letter, "dropped", lambda: letters.drop(letter.id))
                return
            if letter.attempts > MAX_ATTEMPTS:
                await _fail(letter, "Every attempt ended together with its process.")
                return
            try:
                async with asyncio.timeout(_TIME_LIMIT.total_seconds()):
                    await self._send(letter)
            except LetterRefusedError as error:
                await _fail(letter, str(error))
            except (ServiceUnavailableError, *UNAVAILABLE) as error:
                await _postpone(letter, error)
            except Exception as error:  # one letter that cannot be written must not end the others
                log.exception("letter_unwritable")
                await _fail(letter, repr(error))
            else:
                await _note(letter, "sent", lambda: letters.mark_sent(letter.id, at=now()))

    async def _send(self, letter: Letter) -> None:
        reach(Failpoint.LETTER_AFTER_CLAIM)
        # Encoding is work for a thread, and the pictures are let go of before the message is sent.
        message = await asyncio.to_thread(
            self._renderer.render, letter, await self._author.write(letter), at=now()
        )
        await self._mailer.send(message)
        reach(Failpoint.LETTER_AFTER_ACCEPT)


async def _claim(limit: int) -> list[Letter]:
    try:
        async with in_transaction():
            return await letters.claim(now=now(), lease=_LEASE, limit=limit)
    except UNAVAILABLE as error:
        log.warning("letters_postponed", error=repr(error))
        return []


async def _postpone(letter: Letter, error: Exception) -> None:
    reason = str(error) or repr(error)
    if letter.attempts >= MAX_ATTEMPTS:
        await _fail(letter, reason)
        return
    due_at = now() + retry_delay(letter.attempts)
    log.warning("letter_postponed", error=reason, due_at=due_at.isoformat())
    await _note(letter, "postponed", lambda: letters.mark_retry(letter.id, due_at=due_at, error=reason))


async def _fail(letter: Letter, reason: str) -> None:
    log.error("letter_failed", error=reason)
    await _note(letter, "failed", lambda: letters.mark_failed(letter.id, error=reason))


async def _note(letter: Letter, outcome: str, mark: Callable[[], Awaitable[None]]) -> None:
    """Write an outcome down, however long the database is away: a letter sent but not marked leaves again."""
    while True:
        try:
            await mark()
        except UNAVAILABLE as error:
            log.warning("letter_unmarked", outcome=outcome, error=repr(error))
            if letter.claimed_until is None or now() > letter.claimed_until:
                return
            await asyncio.sleep(1)
        else:
            LETTERS.labels(kind=letter.kind.value, outcome=outcome).inc()
            log.info("letter_noted", outcome=outcome)
            return


def retry_delay(attempts: int) -> timedelta:
    """How long to wait after so many attempts: from 5 s doubling up to an hour, give or take a quarter."""
    delay = min(FIRST_RETRY * 2.0 ** (attempts - 1), LONGEST_RETRY)
    return delay * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, keeps no secret
