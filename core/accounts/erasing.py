"""Takes closed accounts apart: their jobs, their rows, and in the end their pictures."""

from datetime import timedelta
from typing import Final

import structlog

from core.clock import now
from core.lifecycle import GenerationState
from core.models import AccountDeletion
from core.outbox import JobOutbox
from core.recording import Recorder
from core.repository import accounts, erasures, generations
from core.repository.database import in_transaction
from core.telemetry import ACCOUNTS_DELETED

CLAIMED_AT_ONCE: Final = 10

_LEASE: Final = timedelta(minutes=1)
"""After which a deletion that somebody has begun with and not finished is tried again."""

_GENERATIONS: Final = 500

log = structlog.get_logger(__name__)


class AccountEraser:
    """Finishes deletions, each in steps that may be repeated; any number of replicas may run."""

    def __init__(self, *, recorder: Recorder, outbox: JobOutbox) -> None:
        self._recorder = recorder
        self._outbox = outbox

    async def erase_closed(self) -> int:
        """Take up the deletions that are due; returns how many those were.

        Raises:
            ServiceUnavailableError: the broker does not answer; the rest is due again after the lease.
        """
        async with in_transaction():
            claimed = await accounts.claim_deletions(now=now(), lease=_LEASE, limit=CLAIMED_AT_ONCE)
        for deletion in claimed:
            if await self._erase(deletion):
                ACCOUNTS_DELETED.inc()
                log.info("account_deleted", account=str(deletion.account_id))
            else:
                log.warning("account_deletion_postponed", account=str(deletion.account_id))
        return len(claimed)

    async def _erase(self, deletion: AccountDeletion) -> bool:
        await self._cancel_generations(deletion)
        while await erasures.discard_of(deletion.account_id, now=now(), limit=_GENERATIONS):
            pass
        async with in_transaction():
            # A request that was under way when the account was closed has come before this lock, or fails.
            await accounts.lock(deletion.account_id)
            if await generations.any_of(deletion.account_id):
                return False
            await accounts.delete(deletion.account_id)
        return True

    async def _cancel_generations(self, deletion: AccountDeletion) -> None:
        # Those that an earlier try has canceled too: it may have ended before their jobs were called off.
        for generation in await generations.alive_since(deletion.account_id, deletion.requested_at):
            await self._recorder.finish(generation.id, GenerationState.CANCELED, at=now())
            await self._outbox.call_off(generation)
