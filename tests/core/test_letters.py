"""Letters in PostgreSQL: claimed by one, sent, marked."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from tortoise import connections

from core.clock import now
from core.models import Account, Letter, LetterKind, LetterState
from core.outbox import write_farewell, write_letter, write_letter_if_known
from core.repository import letters

NewAccount = Callable[..., Awaitable[Account]]

LEASE = timedelta(minutes=2)


async def claim(
    *, at: datetime | None = None, limit: int = 10, but_not_to: Sequence[str] = ()
) -> list[Letter]:
    return await letters.claim(now=at or now(), lease=LEASE, limit=limit, but_not_to=but_not_to)


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


async def test_a_claim_reads_few_letters_however_many_wait(new_account: NewAccount) -> None:
    account = await new_account()
    kept = {"account_id": account.id, "kind": LetterKind.PREMIUM_STARTED, "due_at": now()}
    await Letter.bulk_create([Letter(message_id=str(number), **kept) for number in range(3000)])
    connection = connections.get("default")
    await connection.execute_script("ANALYZE letter, account")
    values = [now(), ["full.example"], 1, now() + LEASE]

    plan = await connection.execute_query_dict(f"EXPLAIN ANALYZE {letters._CLAIM}", values)

    rows = [float(line) for row in plan for line in re.findall(r"actual .*rows=([\d.]+)", row["QUERY PLAN"])]
    assert len(rows) > 3
    assert max(rows) < 10


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

    listed = await letters.recent(limit=10)
    assert [letter.kind for letter in listed] == [LetterKind.PREMIUM_STARTED, LetterKind.VERIFY_EMAIL]
    [failed] = await letters.recent(state=LetterState.FAILED, limit=10)
    assert failed.address == account.email
    [verification] = await letters.recent(kind=LetterKind.VERIFY_EMAIL, limit=10)
    assert verification.id == failed.id
    assert await letters.recent(account_id=uuid4(), limit=10) == []
    assert len(await letters.recent(account_id=account.id, limit=10)) == 2


async def test_all_failed_letters_of_a_kind_or_an_account_are_sent_once_more(new_account: NewAccount) -> None:
    one, other = await new_account(), await new_account()
    for account in (one, other):
        for kind in (LetterKind.VERIFY_EMAIL, LetterKind.PREMIUM_STARTED):
            await write_letter(account.id, kind)
    for letter in await claim():
        await letters.mark_failed(letter, error="no")

    retried = await letters.retry_all(kind=LetterKind.VERIFY_EMAIL, account_id=one.id, now=now())

    assert retried == 1
    [again] = await claim()
    assert (again.account_id, again.kind, again.attempts) == (one.id, LetterKind.VERIFY_EMAIL, 1)
    assert await letters.retry_all(kind=None, account_id=None, now=now()) == 3


async def test_no_letter_is_claimed_for_a_domain_that_has_enough(new_account: NewAccount) -> None:
    for email in ("a@busy.example", "b@Busy.example", "c@calm.example"):
        await write_letter((await new_account(email)).id, LetterKind.PREMIUM_STARTED)
    await write_farewell("d@BUSY.example")
    await write_letter_if_known("nobody@busy.example", LetterKind.RESET_PASSWORD)

    claimed = await claim(but_not_to=["busy.example"])

    assert sorted(letter.address or "" for letter in claimed) == ["", "c@calm.example"]
    assert len(await claim()) == 3


async def test_what_waits_is_counted_with_its_oldest(new_account: NewAccount) -> None:
    assert await letters.waiting() == (0, None)
    account = await new_account()
    for _ in range(3):
        await write_letter(account.id, LetterKind.PREMIUM_STARTED)
    oldest, *_ = await Letter.all().order_by("created_at")
    assert await letters.waiting() == (3, oldest.created_at)
    await letters.mark_sent(oldest, at=now())
    assert (await letters.waiting())[0] == 2
