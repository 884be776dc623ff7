"""How letters leave: over real SMTP, to servers that behave well and to others."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from email.message import EmailMessage
from functools import partial
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from batcher.letters.postman import (
    FIRST_RETRY,
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
from tests.batcher.conftest import ServeMail
from tests.batcher.posting import all_sent, claimed, only_letter, running
from tests.mail_servers import always

NOBODY_THERE: Final = MailSettings(smtp_host="127.0.0.1", smtp_port=1)

NewAccount = Callable[..., Awaitable[Account]]
Delivered = Callable[[], list[EmailMessage]]


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


async def test_a_letter_that_took_too_long_to_write_is_tried_again_later(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    delivered: Delivered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
    [letter] = await claimed()
    with monkeypatch.context() as busy:
        busy.setattr("batcher.letters.postman._WRITING_LIMIT", timedelta(0))
        await new_postman().deliver(letter)

    waiting = await only_letter()
    assert (waiting.state, waiting.attempts) == (LetterState.PENDING, 1)
    assert waiting.error == "TimeoutError()"
    [again] = await claimed(at=waiting.due_at)
    await new_postman().deliver(again)
    assert len(delivered()) == 1


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
