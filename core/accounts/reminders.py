"""The one letter that no customer's own doing brings: premium time ends soon. And how to be rid of it."""

import hashlib
import hmac
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import structlog

from core.clock import now
from core.errors import InvalidTokenError
from core.models import LetterKind
from core.outbox import write_letter
from core.repository import accounts, purchases
from core.repository.database import in_transaction
from core.settings import LinkSettings

BATCH: Final = 500
"""Reminders that one transaction writes at most."""

log = structlog.get_logger(__name__)


class Reminders:
    """Who is reminded, and by what link somebody without a session says that they do not want to be.

    A link's token is the account's id and a signature. It never expires: all that it can do is to turn
    reminders off and on, and a letter may be read late.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self._base = settings.public_url.rstrip("/")
        secrets = (settings.download_secret, *settings.download_other_secrets)
        self._secrets = [secret.get_secret_value().encode() for secret in secrets]

    def link(self, account_id: UUID) -> str:
        """Where an account's reminders are turned off."""
        token = f"{account_id.hex}{_signature(self._secrets[0], account_id)}"
        return f"{self._base}/unsubscribe?{urlencode({'token': token})}"

    def read(self, token: str) -> UUID:
        """The account that a genuine token is for.

        Raises:
            InvalidTokenError: it is forged or cut, or its secret was removed.
        """
        try:
            account_id = UUID(hex=token[:32])
        except ValueError:
            raise _not_valid() from None
        given = token[32:].encode()
        if not any(
            hmac.compare_digest(_signature(secret, account_id).encode(), given) for secret in self._secrets
        ):
            raise _not_valid()
        return account_id

    async def choose(self, account_id: UUID, *, wanted: bool) -> None:
        """Turn an account's reminders on or off; nothing happens to one that is gone."""
        await accounts.set_reminders_off(account_id, at=None if wanted else now())
        log.info("reminders_chosen", account=str(account_id), wanted=wanted)


async def write_reminders(*, lead: timedelta) -> int:
    """Write the letters about premium time that ends within ``lead``; returns how many, at most ``BATCH``."""
    async with in_transaction():
        ending = await purchases.mark_ending(now=now(), lead=lead, limit=BATCH)
        for account_id, ends_at in ending:
            await write_letter(account_id, LetterKind.PREMIUM_ENDS_SOON, {"ends_at": ends_at.isoformat()})
    return len(ending)


def _not_valid() -> InvalidTokenError:
    return InvalidTokenError("The link is not whole, or not ours. Sign in to choose what letters you get.")


def _signature(secret: bytes, account_id: UUID) -> str:
    return hmac.new(secret, f"reminders:{account_id}".encode(), hashlib.sha256).hexdigest()
