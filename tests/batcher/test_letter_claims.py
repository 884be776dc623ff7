"""Whose a letter is, and how often it is sent."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from email.message import EmailMessage
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from batcher.letters.postman import (
    LEASE,
    Postman,
)
from core.clock import now
from core.models import Account, Letter, LetterKind, LetterState
from core.outbox import write_letter
from core.repository import letters
from tests.batcher.conftest import ServeMail
from tests.batcher.posting import all_sent, claimed, only_letter, running
from tests.mail_servers import DROP

NewAccount = Callable[..., Awaitable[Account]]
Delivered = Callable[[], list[EmailMessage]]


async def claimed_by_two() -> tuple[Letter, Letter]:
    """The only letter, as one who slept through the end of its claim has it, and as who claimed it then."""
    [asleep] = await claimed()
    asleep.claimed_until = now() - timedelta(seconds=1)
    await asleep.save(update_fields=["claimed_until"])
    [awake] = await claimed()
    return asleep, awake


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
