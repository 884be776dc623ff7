"""Letters: rows that are claimed, sent and marked."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tortoise import connections
from tortoise.queryset import QuerySet

from core import tracing
from core.models import Letter, LetterKind, LetterState

_ADD_FOR_KEY: Final = """
    INSERT INTO letter (
        id, account_id, kind, parameters, message_id, state, attempts, due_at, created_at, traceparent
    )
    VALUES ($1, (SELECT id FROM account WHERE email_key = $2), $3, '{}', $4, 'PENDING', 0, $5, $5, $6)
"""

_DUE: Final = """
    SELECT letter.id, letter.due_at FROM letter LEFT JOIN account ON account.id = letter.account_id
     WHERE {condition}
       AND split_part(coalesce(account.email_key, lower(letter.recipient), ''), '@', -1) <> ALL ($2::text[])
     ORDER BY letter.due_at LIMIT $3 FOR UPDATE OF letter SKIP LOCKED
"""

# Each half goes along the index on state and due_at, and stops at the first: with both in one condition all
# that wait would be read and sorted for each letter, which takes longest just when most of them wait.
_WAITING_DUE: Final = _DUE.format(condition="letter.state = 'PENDING' AND letter.due_at <= $1")
_ABANDONED: Final = _DUE.format(condition="letter.state = 'CLAIMED' AND letter.claimed_until < $1")
_CLAIM: Final = f"""
    WITH waiting AS MATERIALIZED ({_WAITING_DUE}),
    abandoned AS MATERIALIZED ({_ABANDONED}),
    due AS MATERIALIZED (
        SELECT id FROM (TABLE waiting UNION ALL TABLE abandoned) AS found ORDER BY due_at LIMIT $3
    )
    UPDATE letter SET state = 'CLAIMED', claimed_until = $4, attempts = attempts + 1
      FROM due WHERE letter.id = due.id
    RETURNING letter.id
"""  # noqa: S608 - all parts stand here

_WAITING: Final = """
    SELECT count(*) AS letters, min(created_at) AS oldest FROM letter WHERE state IN ('PENDING', 'CLAIMED')
"""


async def add(
    *, letter_id: UUID, message_id: str, account_id: UUID, kind: LetterKind, parameters: dict[str, Any]
) -> None:
    """A letter to be sent as soon as the transaction around it commits."""
    await Letter.create(
        id=letter_id,
        message_id=message_id,
        account_id=account_id,
        kind=kind,
        parameters=parameters,
        traceparent=tracing.place(),
    )


async def add_for_key(key: str, *, letter_id: UUID, message_id: str, kind: LetterKind, now: datetime) -> None:
    """A letter to whoever has the address with this key, or to nobody: one row either way."""
    await connections.get("default").execute_query(
        _ADD_FOR_KEY, [letter_id, key, kind.value, message_id, now, tracing.place()]
    )


async def add_to_address(address: str, *, letter_id: UUID, message_id: str, kind: LetterKind) -> None:
    """A letter to an address that has no account any more."""
    await Letter.create(
        id=letter_id, message_id=message_id, recipient=address, kind=kind, traceparent=tracing.place()
    )


async def drop(letter_id: UUID) -> None:
    """Forget a letter that is for nobody."""
    await Letter.filter(id=letter_id).delete()


async def claim(
    *, now: datetime, lease: timedelta, limit: int, but_not_to: Collection[str] = ()
) -> list[Letter]:
    """Letters that are due, for this process alone until the lease ends, with accounts.

    A letter whose claimer died is due again when its lease has ended. ``but_not_to`` are domains in lower
    case to which none is claimed.
    """
    rows = await connections.get("default").execute_query_dict(
        _CLAIM, [now, list(but_not_to), limit, now + lease]
    )
    if not rows:
        return []
    ids = [row["id"] for row in rows]
    return await Letter.filter(id__in=ids).select_related("account").order_by("due_at")


async def keep(letter: Letter, *, until: datetime) -> None:
    """Prolong a claim, unless it was lost."""
    if await _claimed(letter).update(claimed_until=until):
        letter.claimed_until = until


async def mark_sent(letter: Letter, *, at: datetime) -> None:
    """The mail server has taken it; an address that was kept for it alone is forgotten.

    That holds whoever has claimed it meanwhile: nobody is to send it again.
    """
    await Letter.filter(id=letter.id).update(
        state=LetterState.SENT, sent_at=at, claimed_until=None, error=None, recipient=None
    )


async def mark_retry(letter: Letter, *, due_at: datetime, error: str) -> None:
    """It was not taken this time."""
    await _claimed(letter).update(state=LetterState.PENDING, due_at=due_at, claimed_until=None, error=error)


async def hand_back(letter: Letter, *, due_at: datetime, error: str) -> None:
    """It could not be tried at all, so this was no attempt."""
    await _claimed(letter).update(
        state=LetterState.PENDING,
        due_at=due_at,
        claimed_until=None,
        error=error,
        attempts=letter.attempts - 1,
    )


async def mark_failed(letter: Letter, *, error: str) -> None:
    """It will never be taken."""
    await _claimed(letter).update(state=LetterState.FAILED, claimed_until=None, error=error)


async def retry(letter_id: UUID, *, now: datetime) -> bool:
    """Send a failed letter once more; false when there is no such failed letter."""
    return bool(await _retry(Letter.filter(id=letter_id), now=now))


async def retry_all(*, kind: LetterKind | None, account_id: UUID | None, now: datetime) -> int:
    """Send every failed letter once more, of one kind or account or of all; returns how many those are."""
    return await _retry(_matching(kind=kind, account_id=account_id), now=now)


async def recent(
    *,
    state: LetterState | None = None,
    kind: LetterKind | None = None,
    account_id: UUID | None = None,
    limit: int,
) -> list[Letter]:
    """The newest letters with their accounts: of one state, kind or account, or of all."""
    query = _matching(kind=kind, account_id=account_id)
    if state is not None:
        query = query.filter(state=state)
    return await query.select_related("account").order_by("-created_at").limit(limit)


async def waiting() -> tuple[int, datetime | None]:
    """How many letters have neither left nor failed, and when the oldest of them was written."""
    [row] = await connections.get("default").execute_query_dict(_WAITING)
    return row["letters"], row["oldest"]


def _claimed(letter: Letter) -> QuerySet[Letter]:
    """The letter, if its claim was not lost: each claim counts an attempt."""
    return Letter.filter(id=letter.id, state=LetterState.CLAIMED, attempts=letter.attempts)


def _matching(*, kind: LetterKind | None, account_id: UUID | None) -> QuerySet[Letter]:
    wanted = {"kind": kind, "account_id": account_id}
    return Letter.filter(**{name: value for name, value in wanted.items() if value is not None})


async def _retry(letters: QuerySet[Letter], *, now: datetime) -> int:
    return await letters.filter(state=LetterState.FAILED).update(
        state=LetterState.PENDING, due_at=now, attempts=0, error=None
    )
