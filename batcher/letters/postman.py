"""Takes letters that are due, writes them and hands them to the mail server."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email.message import EmailMessage
from functools import partial
from typing import Final

import structlog

from batcher.letters.contents import Author
from batcher.letters.rendering import Renderer
from batcher.letters.traffic import Journey, Traffic
from core import tracing
from core.clock import now, pause
from core.errors import ServiceUnavailableError
from core.failpoints import Failpoint, reach
from core.mail import (
    LetterPostponedError,
    LetterRefusedError,
    LetterTooLargeError,
    Mailer,
    MailServerUnavailableError,
)
from core.models import Letter, LetterKind
from core.repository import accounts, letters
from core.repository.database import in_transaction
from core.telemetry import LETTER_SECONDS, LETTERS, LETTERS_WAITING, OLDEST_LETTER_SECONDS

MAX_ATTEMPTS: Final = 24
"""Over about two days; then the letter has failed until somebody looks at it."""

FIRST_RETRY: Final = timedelta(seconds=5)
LONGEST_RETRY: Final = timedelta(hours=4)

LEASE: Final = timedelta(seconds=60)
"""After which a letter whose postman died is somebody else's; one that lives renews it in time."""

_WRITING_LIMIT = timedelta(seconds=100)
"""For reading and encoding one letter."""

_WRITTEN_AT_ONCE = 4
"""A letter full of pictures takes some 100 MB of memory while it is encoded."""

_AFTER_OUTAGE = timedelta(seconds=3)
"""When the database is back, those who have sent letters meanwhile mark them before anybody claims them."""

_PAUSE = 0.4
_MEASURE_PAUSE = 5.0
_DRAIN_SECONDS = 5.0
"""After which letters that hang are left to whoever claims them next."""

log = structlog.get_logger(__name__)

for _kind in LetterKind:
    for _outcome in ("sent", "postponed", "failed", "handed_back", "dropped"):
        # As in `core.telemetry`: so that the first of them is seen to have come.
        LETTERS.labels(kind=_kind.value, outcome=_outcome)


class _ClaimLostError(Exception):
    """This process was asleep for too long: the letter is somebody else's."""


class Postman:
    """Sends letters, several at a time so that a stuck one holds up no other; replicas may run beside it."""

    def __init__(self, *, author: Author, renderer: Renderer, mailer: Mailer) -> None:
        self._author = author
        self._renderer = renderer
        self._mailer = mailer
        self._traffic = Traffic(connections=mailer.connections)
        self._writing = asyncio.Semaphore(_WRITTEN_AT_ONCE)
        self._claim_at = now()
        # Beside which full domains nothing was found, and when to look there again.
        self._searched: frozenset[str] = frozenset()
        self._search_at = now()

    async def run(self, *, stop: asyncio.Event) -> None:
        """Send what is due until ``stop`` is set; letters under way are finished first, unless they hang."""
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_measure(stop))
            while not stop.is_set():
                letter = await self._claim()
                if letter is None:
                    await self._rest(stop, under_way)
                    continue
                journey = self._traffic.enter(letter.address or "")
                task = tasks.create_task(self.deliver(letter))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(partial(self._come_back, journey))
            if under_way:
                await asyncio.wait(under_way, timeout=_DRAIN_SECONDS)
            for task in list(under_way):
                task.cancel()
        await self._mailer.close_idle(after=0)

    async def deliver(self, letter: Letter) -> None:
        """Make one attempt at a claimed letter, and note how it went; one that is for nobody is dropped."""
        with (
            structlog.contextvars.bound_contextvars(
                letter=str(letter.id), kind=letter.kind.value, attempt=letter.attempts
            ),
            tracing.span(
                "letter",
                kind=tracing.Kind.CONSUMER,
                parent=letter.traceparent,
                darkroom__letter=str(letter.id),
                darkroom__kind=letter.kind.value,
                darkroom__attempt=letter.attempts,
            ),
        ):
            await self._try(letter)

    async def _try(self, letter: Letter) -> None:
        if not letter.address:
            await _note(letter, "dropped", lambda: letters.drop(letter.id))
        elif letter.attempts > MAX_ATTEMPTS:
            await _fail(letter, "Every attempt ended together with its process.")
        else:
            await self._attempt(letter, letter.address)

    async def _attempt(self, letter: Letter, address: str) -> None:
        try:
            async with _kept(letter):
                sent = await self._send(letter)
        except LetterRefusedError as error:
            self._traffic.answered(address)
            await _fail(letter, str(error), bounced=True)
        except MailServerUnavailableError as error:
            await self._hand_back(letter, error)
        except LetterPostponedError as error:
            self._traffic.hung(address)
            await _postpone(letter, error, bounced=True)
        except (ServiceUnavailableError, TimeoutError) as error:  # the latter when it took too long to write
            await _postpone(letter, error)
        except _ClaimLostError:
            log.warning("letter_claim_lost")
        except Exception as error:  # one letter that cannot be written must not end the others
            log.exception("letter_unwritable")
            await _fail(letter, repr(error))
        else:
            if sent:
                self._traffic.answered(address)
                await _note(letter, "sent", lambda: _mark_sent(letter))
            else:
                await _note(letter, "dropped", lambda: letters.drop(letter.id))

    async def _send(self, letter: Letter) -> bool:
        """Write a letter and hand it over; false when there is nothing to say any more."""
        reach(Failpoint.LETTER_AFTER_CLAIM)
        message = await self._write(letter)
        if message is None:
            return False
        try:
            await self._hand_over(letter, message)
        except LetterTooLargeError as error:
            log.warning("letter_too_large", error=str(error))
            smaller = await self._write(letter, attach=False)
            if smaller is None:
                return False
            await self._hand_over(letter, smaller)
        reach(Failpoint.LETTER_AFTER_ACCEPT)
        return True

    async def _hand_over(self, letter: Letter, message: EmailMessage) -> None:
        _require_claim(letter)
        with tracing.span("send letter", kind=tracing.Kind.CLIENT):
            await self._mailer.send(message)

    async def _write(self, letter: Letter, *, attach: bool = True) -> EmailMessage | None:
        with tracing.span("write letter"):
            return await self._written(letter, attach=attach)

    async def _written(self, letter: Letter, *, attach: bool) -> EmailMessage | None:
        # Encoding is work for a thread, and the pictures are let go of before the message is sent.
        async with self._writing, asyncio.timeout(_WRITING_LIMIT.total_seconds()):
            contents = await self._author.write(letter, attach=attach)
            if contents is None:
                return None
            return await asyncio.to_thread(self._renderer.render, letter, contents, at=now())

    def _come_back(self, journey: Journey, _: asyncio.Task[None]) -> None:
        self._traffic.leave(journey)

    async def _claim(self) -> Letter | None:
        moment, full = now(), self._traffic.full_domains()
        if self._traffic.closed_for or not self._traffic.has_room or moment < self._claim_at:
            return None
        if full and full == self._searched and moment < self._search_at:
            return None
        try:
            claimed = await letters.claim(now=moment, lease=LEASE, limit=1, but_not_to=full)
        except ServiceUnavailableError as error:
            log.warning("letters_postponed", error=repr(error))
            self._claim_at = now() + _AFTER_OUTAGE
            return None
        if claimed:
            return claimed[0]
        self._searched, self._search_at = full, moment + timedelta(seconds=_PAUSE)
        return None

    async def _rest(self, stop: asyncio.Event, under_way: set[asyncio.Task[None]]) -> None:
        """Wait until there may be another letter, or room for it."""
        if under_way:
            await asyncio.wait(under_way, timeout=_PAUSE, return_when=asyncio.FIRST_COMPLETED)
        else:
            await self._mailer.close_idle()
            await pause(stop, seconds=_PAUSE)

    async def _hand_back(self, letter: Letter, error: MailServerUnavailableError) -> None:
        due_at = now() + self._traffic.lost_server()
        log.error("mail_server_unavailable", error=str(error), due_at=due_at.isoformat())
        await _note(letter, "handed_back", lambda: letters.hand_back(letter, due_at=due_at, error=str(error)))


@asynccontextmanager
async def _kept(letter: Letter) -> AsyncIterator[None]:
    """Renew a letter's claim while the block runs."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 4)
            try:
                await letters.keep(letter, until=now() + LEASE)
            except ServiceUnavailableError as error:
                log.warning("letter_claim_unrenewed", error=repr(error))

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        # Whatever became of it must not be taken for what became of the letter.
        await asyncio.wait((renewing,))


def _require_claim(letter: Letter) -> None:
    if letter.claimed_until is None or letter.claimed_until <= now():
        raise _ClaimLostError


async def _postpone(letter: Letter, error: Exception, *, bounced: bool = False) -> None:
    reason = str(error) or repr(error)
    if letter.attempts >= MAX_ATTEMPTS:
        await _fail(letter, reason, bounced=bounced)
        return
    due_at = now() + retry_delay(letter.attempts)
    log.warning("letter_postponed", error=reason, due_at=due_at.isoformat())
    await _note(letter, "postponed", lambda: letters.mark_retry(letter, due_at=due_at, error=reason))


async def _fail(letter: Letter, reason: str, *, bounced: bool = False) -> None:
    """Give a letter up; ``bounced`` says that it was the mail server that would not take it."""
    log.error("letter_failed", error=reason)

    async def mark() -> None:
        async with in_transaction():
            await letters.mark_failed(letter, error=reason)
            if bounced and letter.account_id is not None:
                await accounts.note_bounce(letter.account_id, at=now(), reason=reason)

    await _note(letter, "failed", mark)


async def _mark_sent(letter: Letter) -> None:
    at = now()
    await letters.mark_sent(letter, at=at)
    if letter.account is not None and letter.account.bounced_at is not None:
        await accounts.forget_bounce(letter.account.id)
    LETTER_SECONDS.labels(kind=letter.kind.value).observe((at - letter.created_at).total_seconds())


async def _note(letter: Letter, outcome: str, mark: Callable[[], Awaitable[None]]) -> None:
    """Write an outcome down, however long the database is away: a letter sent but not marked leaves again."""
    while True:
        try:
            await mark()
        except ServiceUnavailableError as error:
            log.warning("letter_unmarked", outcome=outcome, error=repr(error))
            if outcome != "sent" and (letter.claimed_until is None or now() > letter.claimed_until):
                return
            await asyncio.sleep(1)
        else:
            LETTERS.labels(kind=letter.kind.value, outcome=outcome).inc()
            log.info("letter_noted", outcome=outcome)
            return


async def _measure(stop: asyncio.Event) -> None:
    """Tell operators what waits, until ``stop`` is set."""
    while not stop.is_set():
        try:
            waiting, oldest = await letters.waiting()
        except ServiceUnavailableError as error:
            log.warning("letters_uncounted", error=repr(error))
        else:
            LETTERS_WAITING.set(waiting)
            OLDEST_LETTER_SECONDS.set((now() - oldest).total_seconds() if oldest else 0)
        await pause(stop, seconds=_MEASURE_PAUSE)


def retry_delay(attempts: int) -> timedelta:
    """How long to wait after so many attempts: from 5 s doubling up to four hours, give or take a quarter."""
    delay = min(FIRST_RETRY * 2.0 ** (attempts - 1), LONGEST_RETRY)
    return delay * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, keeps no secret
