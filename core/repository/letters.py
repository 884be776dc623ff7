"""Letters: rows that are claimed, sent and marked."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tortoise import connections
from tortoise.expressions import Q

from core.models import Letter, LetterKind, LetterState

_ADD_FOR_KEY: Final = """
    INSERT INTO letter (id, account_id, kind, parameters, message_id, state, attempts, due_at, created_at)
    VALUES ($1, (SELECT id FROM account WHERE email_key = $2), $3, '{}', $4, 'PENDING', 0, $5, $5)
"""


async def add(
    *, letter_id: UUID, message_id: str, account_id: UUID, kind: LetterKind, parameters: dict[str, Any]
) -> None:
    """A letter to be sent as soon as the transaction around it commits."""
    await Letter.create(
        id=letter_id, message_id=message_id, account_id=account_id, kind=kind, parameters=parameters
    )


async def add_for_key(key: str, *, letter_id: UUID, message_id: str, kind: LetterKind, now: datetime) -> None:
    """A letter to whoever has the address with this key, or to nobody: one row either way."""
    await connections.get("default").execute_query(
        _ADD_FOR_KEY, [letter_id, key, kind.value, message_id, now]
    )


async def add_to_address(address: str, *, letter_id: UUID, message_id: str, kind: LetterKind) -> None:
    """A letter to an address that has no account any more."""
    await Letter.create(id=letter_id, message_id=message_id, recipient=address, kind=kind)


async def drop(letter_id: UUID) -> None:
    """Forget a letter that is for nobody."""
    await Letter.filter(id=letter_id).delete()


async def claim(*, now: datetime, lease: timedelta, limit: int) -> list[Letter]:
    """Letters that are due, for this process alone until the lease ends, with accounts. In a transaction.

    A letter whose claimer died is due again when its lease has ended.
    """
    due = Q(state=LetterState.PENDING, due_at__lte=now) | Q(state=LetterState.CLAIMED, claimed_until__lt=now)
    letters = await Letter.select_for_update(skip_locked=True).filter(due).order_by("due_at").limit(limit)
    for letter in letters:
        letter.state = LetterState.CLAIMED
        letter.claimed_until = now + lease
        letter.attempts += 1
        await letter.save(update_fields=["state", "claimed_until", "attempts"])
    await Letter.fetch_for_list(letters, "account")
    return letters


async def mark_sent(letter_id: UUID, *, at: datetime) -> None:
    """The mail server has taken it; an address that was kept for it alone is forgotten."""
    await Letter.filter(id=letter_id).update(
        state=LetterState.SENT, sent_at=at, claimed_until=None, error=None, recipient=None
    )


async def mark_retry(letter_id: UUID, *, due_at: datetime, error: str) -> None:
    """It was not taken this time."""
    await Letter.filter(id=letter_id).update(
        state=LetterState.PENDING, due_at=due_at, claimed_until=None, error=error
    )


async def mark_failed(letter_id: UUID, *, error: str) -> None:
    """It will never be taken."""
    await Letter.filter(id=letter_id).update(state=LetterState.FAILED, claimed_until=None, error=error)


async def retry(letter_id: UUID, *, now: datetime) -> bool:
    """Send a failed letter once more; false when there is no such failed letter."""
    changed = await Letter.filter(id=letter_id, state=LetterState.FAILED).update(
        state=LetterState.PENDING, due_at=now, attempts=0, error=None
    )
    return bool(changed)


async def recent(*, state: LetterState | None, limit: int) -> list[Letter]:
    """The newest letters with their accounts, of one state or of all."""
    query = Letter.all() if state is None else Letter.filter(state=state)
    return await query.select_related("account").order_by("-created_at").limit(limit)
