"""Rows that say nothing any more, table by table."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from tortoise import connections

# In each, $1 is the moment before which something is over, and $2 how many rows go at most.
_STATEMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "email_token": """DELETE FROM email_token WHERE hash IN (
                SELECT hash FROM email_token WHERE used_at IS NOT NULL OR expires_at < $1
                 LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        # A rotated one is kept until then, so that its reuse is noticed. The last ones go with their family.
        "refresh_token": """DELETE FROM refresh_token WHERE hash IN (
                SELECT hash FROM refresh_token AS over
                 WHERE expires_at < $1
                   AND EXISTS (SELECT FROM refresh_token
                                WHERE family_id = over.family_id AND expires_at >= $1)
                 LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        "session_family": """DELETE FROM session_family WHERE id IN (
                SELECT id FROM session_family
                 WHERE id IN (
                       SELECT id FROM session_family WHERE ended_at < $1
                       UNION ALL
                       SELECT family_id FROM refresh_token AS over
                        WHERE expires_at < $1
                          AND NOT EXISTS (SELECT FROM refresh_token
                                           WHERE family_id = over.family_id AND expires_at >= $1))
                 LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        "letter": """DELETE FROM letter WHERE id IN (
                SELECT id FROM letter WHERE state IN ('SENT', 'FAILED') AND due_at < $1 AND created_at < $1
                 LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        # One that has a link on its way, or is being deleted, is left alone.
        "account": """DELETE FROM account WHERE id IN (
                SELECT id FROM account AS unproven
                 WHERE email_verified_at IS NULL AND premium_until IS NULL AND created_at < $1
                   AND NOT EXISTS (SELECT FROM email_token WHERE account_id = unproven.id)
                   AND NOT EXISTS (SELECT FROM letter
                                    WHERE account_id = unproven.id AND state IN ('PENDING', 'CLAIMED'))
                   AND NOT EXISTS (SELECT FROM account_deletion WHERE account_id = unproven.id)
                 LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        "batch_window": """DELETE FROM batch_window WHERE id IN (
                SELECT id FROM batch_window AS done
                 WHERE state = 'FINISHED' AND finished_at < $1
                   AND NOT EXISTS (SELECT FROM generation WHERE window_id = done.id)
                 LIMIT $2 FOR UPDATE SKIP LOCKED)""",
    }
)

TABLES: Final = tuple(_STATEMENTS)


async def sweep(table: str, *, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` rows of one of ``TABLES`` that were over before a moment; returns how many."""
    deleted, _ = await connections.get("default").execute_query(_STATEMENTS[table], [before, limit])
    return int(deleted)
