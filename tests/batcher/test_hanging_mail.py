"""Letters that hang: who waits for them, and who does not."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from email.message import EmailMessage
from uuid import uuid4

import pytest

from batcher.letters.postman import (
    LEASE,
    Postman,
)
from core.clock import now
from core.models import Account, Letter, LetterKind, LetterState
from core.outbox import write_letter
from tests.batcher.conftest import ServeMail
from tests.batcher.posting import all_sent, claimed, only_letter, running
from tests.mail_servers import HANG, always

NewAccount = Callable[..., Awaitable[Account]]
Delivered = Callable[[], list[EmailMessage]]


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


async def test_several_domains_that_hang_leave_connections_to_the_others(
    new_account: NewAccount,
    new_postman: Callable[..., Postman],
    serve_mail: ServeMail,
    delivered: Delivered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(number: int, recipient: str) -> str | None:
        return HANG if recipient.endswith(".hole.example") else None

    monkeypatch.setattr("batcher.letters.traffic.PROMPT", timedelta(seconds=0.3))
    receiver, mail = await serve_mail(hang)
    mail = mail.model_copy(update={"smtp_timeout_seconds": 60, "smtp_connections": 4})
    for number in range(9):
        account = await new_account(f"{uuid4()}@{number % 3}.hole.example")
        await write_letter(account.id, LetterKind.ADDRESS_TAKEN)
    async with running(new_postman(mail=mail)):
        async with asyncio.timeout(8):
            # Two of each, which is half of the connections.
            while len(receiver.offered) < 6:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        for _ in range(10):
            await write_letter((await new_account()).id, LetterKind.ADDRESS_TAKEN)
        async with asyncio.timeout(8):
            while await Letter.filter(state=LetterState.SENT).count() < 10:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        assert len(receiver.offered) == 16
        receiver.released.set()

    assert len(delivered()) == 10


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
    lease = timedelta(seconds=1.2)
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
