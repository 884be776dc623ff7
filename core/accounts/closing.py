"""The end of an account, as far as its owner sees it: at once, and for good."""

from uuid import UUID

import structlog

from core.accounts.sessions import Sessions, Viewer
from core.clock import now
from core.outbox import write_farewell
from core.repository import accounts
from core.repository.database import in_transaction

log = structlog.get_logger(__name__)


class Closing:
    """Leaving, by the password."""

    def __init__(self, *, sessions: Sessions) -> None:
        self._sessions = sessions

    async def close(self, viewer: Viewer, *, password: str, address: str) -> None:
        """Delete the viewer's account, as :func:`close_account` does.

        Raises:
            RateLimitedError: too many attempts for this account or from this network address.
            InvalidCredentialsError: ``password`` is not the account's.
        """
        await self._sessions.prove_password(viewer, password=password, address=address)
        await close_account(viewer.account.id)


async def close_account(account_id: UUID) -> None:
    """End an account's sessions, free its address, and have a batcher delete what it had.

    All of that is one transaction; one more letter goes to the address and says so. An account that is closed
    already stays as it is.
    """
    async with in_transaction():
        account = await accounts.lock(account_id)
        if not account.email:
            return
        await accounts.close(account, at=now())
        await write_farewell(account.email)
    log.info("account_closed", account=str(account_id))
