"""How letters leave: over real SMTP, to servers that behave well and to others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from batcher.letters.postman import FIRST_RETRY, LONGEST_RETRY, MAX_ATTEMPTS, Postman, retry_delay
from core.clock import now
from core.models import Account, Generation, Letter, LetterKind, LetterState
from core.outbox import write_letter
from core.repository import letters
from core.repository.database import in_transaction
from core.settings import MailSettings
from infra.local.mail_server import MaildirHandler

NewAccount = Callable[..., Awaitable[Account]]
Delivered = Callable[[], list[EmailMessage]]


class Answer(Protocol):
    """What a mail server of a test says to a letter: its number from 1, and for whom."""

    async def __call__(self, number: int, recipient: str) -> str | None: ...


class MoodyHandler(MaildirHandler):
    """Keeps a letter only when the test's answer is none."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        super().__init__(folder)
        self._answer = answer
        self.offered: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's hook
        self.offered.append(envelope.rcpt_tos[0])
        said = await self._answer(len(self.offered), envelope.rcpt_tos[0])
        return said or await super().handle_DATA(server, session, envelope)


ServeMail = Callable[[Answer], Awaitable[tuple[MoodyHandler, MailSettings]]]


@pytest.fixture
async def serve_mail(mailbox: Path) -> AsyncIterator[ServeMail]:
    """Starts mail servers that answer as the test says."""
    servers: list[asyncio.Server] = []

    async def start(answer: Answer) -> tuple[MoodyHandler, MailSettings]:
        handler = MoodyHandler(mailbox, answer)
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(handler, hostname="tests"), "127.0.0.1", 0
        )
        servers.append(server)
        return handler, MailSettings(smtp_host="127.0.0.1", smtp_port=server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def claimed(*, at: datetime | None = None, limit: int = 10) -> list[Letter]:
    async with in_transaction():
        return await letters.claim(now=at or now(), lease=timedelta(minutes=2), limit=limit)


async def only_letter() -> Letter:
    return await Letter.get()


@asynccontextmanager
async def running(*postmen: Postman) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for postman in postmen:
            tasks.create_task(postman.run(stop=stop))
        try:
            yield
        finally:
            stop.set()


async def all_sent() -> None:
    async with asyncio.timeout(8):
        while await Letter.exclude(state=LetterState.SENT).exists():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)


async def test_a_letter_leaves_within_a_second_of_being_written(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    account = await new_account()
    async with running(new_postman()):
        await asyncio.sleep(0.1)
        written = now()
        await write_letter(account.id, LetterKind.ADDRESS_TAKEN)
        await all_sent()

    letter = await only_letter()
    assert letter.sent_at is not None
    assert letter.sent_at - written < timedelta(seconds=1)
    assert letter.attempts == 1
    assert not letter.error
    assert not letter.claimed_until
    assert [found["To"] for found in delivered()] == [account.email]


async def test_a_busy_mail_server_is_tried_again_later_with_the_same_letter(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
) -> None:
    async def busy_at_first(number: int, recipient: str) -> str | None:
        return "451 come back later" if number == 1 else None

    handler, mail = await serve_mail(busy_at_first)
    postman = new_postman(mail=mail)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    [letter] = await claimed()
    await postman.deliver(letter)

    waiting = await only_letter()
    assert waiting.state is LetterState.PENDING
    assert "451 come back later" in (waiting.error or "")
    assert FIRST_RETRY * 0.7 < waiting.due_at - now() < FIRST_RETRY * 1.3
    assert await claimed() == []

    [again] = await claimed(at=waiting.due_at + timedelta(seconds=1))
    await postman.deliver(again)

    sent = await only_letter()
    assert (sent.state, sent.attempts) == (LetterState.SENT, 2)
    assert not sent.error
    assert [found["Message-ID"] for found in delivered()] == [letter.message_id]
    assert len(handler.offered) == 2


async def test_a_refusal_for_good_is_final_and_kept_with_its_reason(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
) -> None:
    async def refuse(number: int, recipient: str) -> str | None:
        return "554 we do not want this"

    handler, mail = await serve_mail(refuse)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    [letter] = await claimed()
    await new_postman(mail=mail).deliver(letter)

    failed = await only_letter()
    assert failed.state is LetterState.FAILED
    assert failed.error == "554 we do not want this"
    assert await claimed(at=now() + timedelta(days=1)) == []
    assert len(handler.offered) == 1
    assert delivered() == []


async def test_without_a_mail_server_letters_wait(
    new_account: NewAccount, new_postman: Callable[..., Postman]
) -> None:
    nobody_there = MailSettings(smtp_host="127.0.0.1", smtp_port=1)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    [letter] = await claimed()
    await new_postman(mail=nobody_there).deliver(letter)

    waiting = await only_letter()
    assert waiting.state is LetterState.PENDING
    assert waiting.due_at > now()


async def test_after_the_last_attempt_a_letter_has_failed(
    new_account: NewAccount, new_postman: Callable[..., Postman]
) -> None:
    nobody_there = MailSettings(smtp_host="127.0.0.1", smtp_port=1)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    await Letter.all().update(attempts=MAX_ATTEMPTS - 1)

    [letter] = await claimed()
    await new_postman(mail=nobody_there).deliver(letter)

    assert (await only_letter()).state is LetterState.FAILED


async def test_a_letter_whose_every_attempt_killed_its_process_is_given_up(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    await Letter.all().update(attempts=MAX_ATTEMPTS)

    [letter] = await claimed()
    await new_postman().deliver(letter)

    assert (await only_letter()).state is LetterState.FAILED
    assert delivered() == []


async def test_a_letter_that_cannot_be_written_fails_alone(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    account = await new_account()
    await write_letter(account.id, LetterKind.GENERATION_FINISHED, {"generation_id": "no uuid at all"})
    await write_letter(account.id, LetterKind.ADDRESS_TAKEN)

    with capture_logs() as logs:
        async with running(new_postman()):
            async with asyncio.timeout(8):
                while await Letter.filter(state__in=["PENDING", "CLAIMED"]).exists():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)

    broken = await Letter.get(kind=LetterKind.GENERATION_FINISHED)
    assert broken.state is LetterState.FAILED
    assert "ValueError" in (broken.error or "")
    assert [letter["X-Darkroom-Letter"] for letter in delivered()] == ["address_taken"]
    [logged] = [entry for entry in logs if entry["event"] == "letter_unwritable"]
    assert logged["exc_info"] is True


async def test_a_letter_that_is_stuck_holds_up_no_other(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
) -> None:
    release = asyncio.Event()

    async def slow_for_one(number: int, recipient: str) -> str | None:
        if recipient.startswith("slow"):
            await release.wait()
        return None

    _, mail = await serve_mail(slow_for_one)
    slow = await new_account("slow@example.com")
    await write_letter(slow.id, LetterKind.ADDRESS_TAKEN)
    async with running(new_postman(mail=mail)):
        await asyncio.sleep(0.2)
        for _ in range(20):
            await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
        async with asyncio.timeout(8):
            while await Letter.filter(state=LetterState.SENT).count() < 20:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        assert "slow@example.com" not in [letter["To"] for letter in delivered()]
        release.set()

    # Being told to stop, the postman has finished what was under way.
    assert (await Letter.get(account_id=slow.id)).state is LetterState.SENT
    assert len(delivered()) == 21


async def test_replicas_send_every_letter_once(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    accounts = [await new_account() for _ in range(30)]
    for account in accounts:
        await write_letter(account.id, LetterKind.ADDRESS_TAKEN)

    async with running(new_postman(), new_postman(), new_postman()):
        await all_sent()

    assert sorted(letter["To"] for letter in delivered()) == sorted(account.email for account in accounts)
    assert await Letter.filter(attempts=1).count() == 30


async def test_a_letter_that_was_taken_while_the_database_went_away_is_marked_and_not_sent_again(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
    database_away: Callable[[], AbstractAsyncContextManager[None]],
) -> None:
    absence = AsyncExitStack()

    async def take_the_database_along(number: int, recipient: str) -> str | None:
        await absence.enter_async_context(database_away())
        return None

    handler, mail = await serve_mail(take_the_database_along)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    with capture_logs() as logs:
        async with running(new_postman(mail=mail)):
            async with asyncio.timeout(8):
                while not any(entry["event"] == "letter_unmarked" for entry in logs):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.02)
            await absence.aclose()
            await all_sent()

    assert len(handler.offered) == 1
    assert len(delivered()) == 1


async def test_a_letter_whose_sender_died_leaves_once_the_lease_is_over(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    [first] = await claimed()
    assert first.claimed_until is not None

    assert await claimed(at=first.claimed_until - timedelta(seconds=1)) == []
    [second] = await claimed(at=first.claimed_until + timedelta(seconds=1))
    await new_postman().deliver(second)

    assert len(delivered()) == 1
    assert (await only_letter()).attempts == 2


async def test_what_customers_write_is_not_logged(
    new_account: NewAccount,
    new_generation: Callable[..., Awaitable[Generation]],
    new_postman: Callable[..., Postman],
    fail: Callable[..., Awaitable[None]],
) -> None:
    account = await new_account()
    generation = await new_generation(account, tier="PREMIUM", prompt="a secret wish")
    await write_letter(account.id, LetterKind.VERIFY_EMAIL)

    with capture_logs() as logs:
        await fail(generation, "No.")
        for letter in await claimed():
            await new_postman().deliver(letter)

    assert {"letter_noted"} <= {entry["event"] for entry in logs}
    assert "secret wish" not in repr(logs)
    assert "token" not in repr(logs)
    assert account.email not in repr(logs)


@given(attempts=st.integers(1, MAX_ATTEMPTS))
def test_the_wait_between_attempts_doubles_up_to_its_limit(attempts: int) -> None:
    exact = min(FIRST_RETRY * 2 ** (attempts - 1), LONGEST_RETRY)

    assert exact * 0.75 <= retry_delay(attempts) <= exact * 1.25


def test_all_attempts_together_outlast_an_outage_of_two_hours() -> None:
    assert sum((retry_delay(attempts) for attempts in range(1, MAX_ATTEMPTS)), timedelta(0)) > timedelta(
        hours=2
    )
