"""How letters leave: over real SMTP, to servers that behave well and to others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import Mock
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from batcher.letters.postman import (
    FIRST_RETRY,
    LEASE,
    LONGEST_RETRY,
    MAX_ATTEMPTS,
    Postman,
    retry_delay,
)
from batcher.letters.traffic import LONGEST_REST
from core.clock import now
from core.models import Account, Generation, Letter, LetterKind, LetterState
from core.outbox import write_letter
from core.repository import letters
from core.settings import MailSettings
from tests.mail_servers import DROP, HANG, Answer, Receiver, always, mail_server, yes

NOBODY_THERE: Final = MailSettings(smtp_host="127.0.0.1", smtp_port=1)

NewAccount = Callable[..., Awaitable[Account]]
Delivered = Callable[[], list[EmailMessage]]


ServeMail = Callable[..., Awaitable[tuple[Receiver, MailSettings]]]


@pytest.fixture
async def serve_mail(mailbox: Path) -> AsyncIterator[ServeMail]:
    """Starts mail servers that answer as the test says, until it ends."""
    async with AsyncExitStack() as servers:

        async def start(at_data: Answer = yes, **answers: Any) -> tuple[Receiver, MailSettings]:
            return await servers.enter_async_context(mail_server(mailbox, at_data=at_data, **answers))

        yield start


async def claimed(*, at: datetime | None = None, limit: int = 10) -> list[Letter]:
    return await letters.claim(now=at or now(), lease=LEASE, limit=limit)


async def claimed_by_two() -> tuple[Letter, Letter]:
    """The only letter, as one who slept through the end of its claim has it, and as who claimed it then."""
    [asleep] = await claimed()
    asleep.claimed_until = now() - timedelta(seconds=1)
    await asleep.save(update_fields=["claimed_until"])
    [awake] = await claimed()
    return asleep, awake


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


@pytest.mark.parametrize("stage", ["at_rcpt", "at_data"])
async def test_a_refusal_for_good_is_final_and_shown_on_the_account_until_a_letter_is_taken(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
    stage: str,
) -> None:
    async def refuse_once(number: int, recipient: str) -> str | None:
        return "550 5.1.1 nobody lives here" if number == 1 else None

    receiver, mail = await serve_mail(**{stage: refuse_once})
    account, other = await new_account(), await new_account()
    await write_letter(account.id, LetterKind.ADDRESS_TAKEN)
    postman = new_postman(mail=mail)

    [letter] = await claimed()
    await postman.deliver(letter)

    failed = await only_letter()
    assert failed.state is LetterState.FAILED
    assert failed.error == "550 5.1.1 nobody lives here"
    assert await claimed(at=now() + timedelta(days=1)) == []
    assert len(receiver.recipients) == 1
    assert delivered() == []
    await account.refresh_from_db()
    assert account.bounce_reason == failed.error
    assert account.bounced_at is not None
    assert abs(account.bounced_at - now()) < timedelta(seconds=10)
    await other.refresh_from_db()
    assert other.bounced_at is None

    await letters.retry(letter.id, now=now())
    [again] = await claimed()
    await postman.deliver(again)
    await account.refresh_from_db()
    assert not account.bounced_at
    assert not account.bounce_reason


async def test_what_a_mail_server_says_is_kept_whatever_it_is_made_of(
    new_account: NewAccount, new_postman: Callable[..., Postman], serve_mail: ServeMail
) -> None:
    _, mail = await serve_mail(always("550 no\x00body\x1b[2J " + "very long " * 100))
    account = await new_account()
    await write_letter(account.id, LetterKind.ADDRESS_TAKEN)

    [letter] = await claimed()
    await new_postman(mail=mail).deliver(letter)

    failed = await only_letter()
    assert (failed.error or "").startswith("550 no?body?[2J very long")
    assert len(failed.error or "") == 500
    await account.refresh_from_db()
    assert account.bounce_reason == failed.error


async def test_without_a_mail_server_letters_wait_and_no_attempt_is_counted(
    new_account: NewAccount, new_postman: Callable[..., Postman]
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    [letter] = await claimed()
    await new_postman(mail=NOBODY_THERE).deliver(letter)

    waiting = await only_letter()
    assert (waiting.state, waiting.attempts) == (LetterState.PENDING, 0)
    assert now() < waiting.due_at < now() + LONGEST_REST


async def test_letters_leave_once_the_mail_server_is_there_and_it_is_asked_by_one_at_a_time(
    new_account: NewAccount, new_postman: Callable[..., Postman], serve_mail: ServeMail
) -> None:
    async def closed_at_first(number: int, recipient: str) -> str | None:
        return "451 4.3.0 starting up" if number == 1 else None

    receiver, mail = await serve_mail(at_mail=closed_at_first)
    mail = mail.model_copy(update={"smtp_connections": 1})
    for _ in range(6):
        await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    async with running(new_postman(mail=mail)):
        await all_sent()

    assert len(receiver.senders) == 7
    assert await Letter.filter(attempts=1).count() == 6
    assert await Account.exclude(bounced_at=None).count() == 0


async def test_after_the_last_attempt_a_letter_has_failed_and_its_account_says_so(
    new_account: NewAccount, new_postman: Callable[..., Postman], serve_mail: ServeMail
) -> None:
    _, mail = await serve_mail(always("452 4.2.2 mailbox full"))
    account = await new_account()
    await write_letter(account.id, LetterKind.ADDRESS_TAKEN)
    await Letter.all().update(attempts=MAX_ATTEMPTS - 1)

    [letter] = await claimed()
    await new_postman(mail=mail).deliver(letter)

    assert (await only_letter()).state is LetterState.FAILED
    await account.refresh_from_db()
    assert "452 4.2.2 mailbox full" in (account.bounce_reason or "")


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
    mail = mail.model_copy(update={"smtp_timeout_seconds": 60})
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


async def test_a_domain_that_takes_nothing_leaves_connections_to_the_others(
    new_account: NewAccount, new_postman: Callable[..., Postman], serve_mail: ServeMail, delivered: Delivered
) -> None:
    async def black_hole(number: int, recipient: str) -> str | None:
        return HANG if recipient.endswith("@hole.example") else None

    receiver, mail = await serve_mail(at_rcpt=black_hole)
    mail = mail.model_copy(update={"smtp_timeout_seconds": 0.5, "smtp_connections": 4})
    for _ in range(8):
        await write_letter((await new_account(f"{uuid4()}@hole.example")).id, LetterKind.ADDRESS_TAKEN)
    async with running(new_postman(mail=mail)):
        async with asyncio.timeout(8):
            while not receiver.recipients:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        for _ in range(10):
            await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
        async with asyncio.timeout(8):
            while await Letter.filter(state=LetterState.SENT).count() < 10:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)

    assert len(delivered()) == 10
    assert await Letter.filter(state=LetterState.SENT, attempts=1).count() == 10


async def test_a_postman_that_is_told_to_stop_leaves_hanging_letters_to_others(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batcher.letters.postman._DRAIN_SECONDS", 0.2)
    receiver, mail = await serve_mail(always(HANG))
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    async with running(new_postman(mail=mail)):
        async with asyncio.timeout(8):
            while not receiver.offered:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)

    assert (await only_letter()).state is LetterState.CLAIMED
    [again] = await claimed(at=now() + LEASE + timedelta(seconds=1))
    assert again.attempts == 2


async def test_a_letter_that_takes_long_stays_claimed(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease = timedelta(seconds=0.6)
    monkeypatch.setattr("batcher.letters.postman.LEASE", lease)

    async def slow(number: int, recipient: str) -> str | None:
        await asyncio.sleep(2 * lease.total_seconds())
        return None

    receiver, mail = await serve_mail(slow)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)

    async with running(new_postman(mail=mail), new_postman(mail=mail)):
        await all_sent()

    assert len(receiver.offered) == 1
    assert (await only_letter()).attempts == 1


async def test_who_slept_through_the_end_of_its_claim_sends_nothing_and_changes_nothing(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    asleep, awake = await claimed_by_two()

    await new_postman().deliver(asleep)
    assert delivered() == []
    await letters.mark_retry(asleep, due_at=now(), error="late")
    await letters.mark_failed(asleep, error="late")
    await letters.hand_back(asleep, due_at=now(), error="late")
    await letters.keep(asleep, until=now() + timedelta(hours=1))

    row = await only_letter()
    assert (row.state, row.attempts) == (LetterState.CLAIMED, 2)
    assert not row.error
    assert row.claimed_until == awake.claimed_until
    await new_postman().deliver(awake)
    assert (await only_letter()).state is LetterState.SENT


async def test_what_was_sent_stays_sent_whoever_has_claimed_it_since(new_account: NewAccount) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    sender, other = await claimed_by_two()

    await letters.mark_sent(sender, at=now())
    await letters.mark_retry(other, due_at=now(), error="too late")

    assert (await only_letter()).state is LetterState.SENT


async def test_only_a_death_between_taking_and_marking_sends_a_letter_twice_under_one_name(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    [first] = await claimed()
    postman = new_postman()
    with pytest.MonkeyPatch.context() as patch:
        died = RuntimeError("killed between the 250 and the mark")
        patch.setattr("batcher.letters.postman._mark_sent", Mock(side_effect=died))
        with pytest.raises(RuntimeError):
            await postman.deliver(first)

    assert len(delivered()) == 1
    assert await claimed() == []
    [again] = await claimed(at=now() + LEASE + timedelta(seconds=1))
    await postman.deliver(again)

    assert [letter["Message-ID"] for letter in delivered()] == [first.message_id] * 2
    assert (await only_letter()).state is LetterState.SENT


async def test_a_letter_whose_answer_was_lost_is_sent_again_under_the_same_name(
    new_account: NewAccount, new_postman: Callable[..., Postman], serve_mail: ServeMail, delivered: Delivered
) -> None:
    async def breaks_off(number: int, recipient: str) -> str | None:
        return DROP if number == 1 else None

    receiver, mail = await serve_mail(breaks_off)
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    postman = new_postman(mail=mail)
    [letter] = await claimed()
    await postman.deliver(letter)
    waiting = await only_letter()
    assert (waiting.state, waiting.attempts) == (LetterState.PENDING, 1)

    [again] = await claimed(at=waiting.due_at)
    await postman.deliver(again)

    assert len(receiver.offered) == 2
    assert [found["Message-ID"] for found in delivered()] == [letter.message_id]


async def test_a_letter_that_is_too_large_for_the_server_goes_with_links_instead(
    new_account: NewAccount,
    new_generation: Callable[..., Awaitable[Generation]],
    new_postman: Callable[..., Postman],
    succeed: Callable[[Generation], Awaitable[None]],
    serve_mail: ServeMail,
    delivered: Delivered,
) -> None:
    async def nothing_heavy(number: int, recipient: str) -> str | None:
        return "552 5.3.4 too big" if number == 1 else None

    _, mail = await serve_mail(nothing_heavy)
    account = await new_account()
    await succeed(await new_generation(account, tier="PREMIUM", count=2))

    [letter] = await claimed()
    await new_postman(mail=mail).deliver(letter)

    [found] = delivered()
    types = [part.get_content_type() for part in found.walk()]
    assert (types.count("image/png"), types.count("image/jpeg")) == (0, 2)
    body = found.get_body(("plain",))
    assert body is not None
    assert body.get_content().count("https://darkroom.example/images/") == 2
    assert (await only_letter()).state is LetterState.SENT
    await account.refresh_from_db()
    assert account.bounced_at is None


async def test_what_waits_and_how_long_letters_took_is_measured(
    new_account: NewAccount, new_postman: Callable[..., Postman]
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    await Letter.all().update(created_at=now() - timedelta(minutes=5), due_at=now() + timedelta(hours=1))
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    taken = partial(REGISTRY.get_sample_value, "darkroom_letter_seconds_count", {"kind": "address_taken"})
    before = taken() or 0

    async with running(new_postman()):
        async with asyncio.timeout(8):
            while (taken() or 0) == before:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)

    assert REGISTRY.get_sample_value("darkroom_letters_waiting") in {1, 2}
    oldest = REGISTRY.get_sample_value("darkroom_oldest_letter_seconds")
    assert oldest is not None
    assert 300 <= oldest < 330


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


def test_all_attempts_together_take_about_two_days() -> None:
    waits = sum((retry_delay(attempts) for attempts in range(1, MAX_ATTEMPTS)), timedelta(0))
    assert timedelta(hours=36) < waits < timedelta(hours=65)
