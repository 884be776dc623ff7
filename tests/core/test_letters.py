"""Letters in PostgreSQL: claimed by one, sent, marked."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from core.clock import now
from core.models import Account, Letter, LetterKind, LetterState
from core.outbox import write_letter
from core.repository import letters
from core.repository.database import in_transaction

NewAccount = Callable[..., Awaitable[Account]]

LEASE = timedelta(minutes=2)


async def claim(*, at: datetime | None = None, limit: int = 10) -> list[Letter]:
    async with in_transaction():
        return await letters.claim(now=at or now(), lease=LEASE, limit=limit)


async def test_a_claimed_letter_comes_with_its_account_and_counts_the_attempt(
    new_account: NewAccount,
) -> None:
    account = await new_account("ada@example.com")
    await write_letter(account.id, LetterKind.PREMIUM_STARTED, {"a": 1})

    [letter] = await claim()

    assert letter.address == "ada@example.com"
    assert (letter.state, letter.attempts, letter.parameters) == (LetterState.CLAIMED, 1, {"a": 1})
    assert letter.message_id == f"<{letter.id}@darkroom>"


async def test_a_letter_is_claimed_by_one_until_the_lease_ends(new_account: NewAccount) -> None:
    await write_letter((await new_account()).id, LetterKind.PREMIUM_STARTED)
    at = now()

    [letter] = await claim(at=at)

    assert await claim(at=at + LEASE - timedelta(seconds=1)) == []
    assert [again.id for again in await claim(at=at + LEASE + timedelta(seconds=1))] == [letter.id]


async def test_claims_at_the_same_moment_share_the_letters(new_account: NewAccount) -> None:
    account = await new_account()
    for _ in range(12):
        await write_letter(account.id, LetterKind.PREMIUM_STARTED)

    shares = await asyncio.gather(*(claim(limit=5) for _ in range(4)))

    claimed = [letter.id for share in shares for letter in share]
    assert len(claimed) == len(set(claimed))
    left = await claim(limit=50)
    assert len(claimed) + len(left) == 12


async def test_the_letter_that_waits_longest_leaves_first(new_account: NewAccount) -> None:
    account = await new_account()
    for _ in range(3):
        await write_letter(account.id, LetterKind.PREMIUM_STARTED)
    written = await Letter.all().order_by("due_at")

    assert [letter.id for letter in await claim(limit=2)] == [letter.id for letter in written[:2]]


async def test_a_postponed_letter_is_due_at_its_time(new_account: NewAccount) -> None:
    await write_letter((await new_account()).id, LetterKind.PREMIUM_STARTED)
    [letter] = await claim()
    due_at = now() + timedelta(seconds=30)

    await letters.mark_retry(letter, due_at=due_at, error="busy")

    assert await claim(at=due_at - timedelta(seconds=1)) == []
    [again] = await claim(at=due_at)
    assert (again.attempts, again.error) == (2, "busy")


async def test_sent_and_failed_letters_are_never_claimed_again(new_account: NewAccount) -> None:
    account = await new_account()
    for _ in range(2):
        await write_letter(account.id, LetterKind.PREMIUM_STARTED)
    sent, failed = await claim()
    await letters.mark_sent(sent, at=now())
    await letters.mark_failed(failed, error="no such mailbox")

    assert await claim(at=now() + timedelta(days=30)) == []
    assert (await Letter.get(id=sent.id)).sent_at is not None
    assert (await Letter.get(id=failed.id)).error == "no such mailbox"


async def test_a_failed_letter_can_be_given_a_new_round_of_attempts(new_account: NewAccount) -> None:
    await write_letter((await new_account()).id, LetterKind.PREMIUM_STARTED)
    [letter] = await claim()
    assert not await letters.retry(letter.id, now=now())
    await letters.mark_failed(letter, error="no")

    assert await letters.retry(letter.id, now=now())

    [again] = await claim()
    assert (again.id, again.attempts) == (letter.id, 1)


async def test_the_newest_letters_are_listed_by_state(new_account: NewAccount) -> None:
    account = await new_account()
    for kind in (LetterKind.VERIFY_EMAIL, LetterKind.PREMIUM_STARTED):
        await write_letter(account.id, kind)
    [oldest] = await claim(limit=1)
    await letters.mark_failed(oldest, error="no")

    listed = await letters.recent(state=None, limit=10)
    assert [letter.kind for letter in listed] == [LetterKind.PREMIUM_STARTED, LetterKind.VERIFY_EMAIL]
    [failed] = await letters.recent(state=LetterState.FAILED, limit=10)
    assert failed.address == account.email
