"""Password hashing: bcrypt over a peppered HMAC, so that long passphrases count whole."""

import asyncio
import base64
import hashlib
import hmac
import unicodedata
from typing import Final

import bcrypt
import structlog

from core.accounts.keys import Keyring
from core.settings import TokenSettings

_PARALLEL = 2
"""Hashes at a time: each takes a core for about 0.2 s at cost 12, and other work needs cores too."""

_SEPARATOR: Final = ":"
"""Between the id of the pepper and bcrypt's own text in what is stored."""

_EMPTY_DIGEST: Final = "." * 31
"""What bcrypt's text ends with in the decoy: no password hashes to it."""

log = structlog.get_logger(__name__)


class PasswordHasher:
    """Hashes and checks passwords on worker threads, so that the event loop never waits.

    What is stored is ``<id of the pepper>:<bcrypt's text>``, so that a pepper can be followed by another.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._peppers = Keyring(settings.password_pepper, settings.password_other_peppers)
        self._rounds = settings.bcrypt_rounds
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._decoy = self._stored(bcrypt.gensalt(self._rounds).decode() + _EMPTY_DIGEST)

    async def hash(self, password: str) -> str:
        """The hash to store for a password."""
        async with self._slots:
            return await asyncio.to_thread(self._hash, password)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether a password belongs to a stored hash.

        Does the same work without a hash as with one, so that time does not tell whether an account exists.
        """
        async with self._slots:
            return await asyncio.to_thread(self._verify, password, stored or self._decoy)

    def outdated(self, stored: str) -> bool:
        """Whether a new hash of the same password would be better: another pepper, or more rounds."""
        key_id, _, text = stored.rpartition(_SEPARATOR)
        return key_id != self._peppers.current.id or int(text.split("$")[2]) < self._rounds

    def _hash(self, password: str) -> str:
        digest = _digest(password, self._peppers.current.secret)
        return self._stored(bcrypt.hashpw(digest, bcrypt.gensalt(self._rounds)).decode())

    def _verify(self, password: str, stored: str) -> bool:
        key_id, _, text = stored.rpartition(_SEPARATOR)
        # A hash without an id was made when there was only one pepper: the oldest.
        pepper = self._peppers.get(key_id) if key_id else self._peppers.oldest
        if pepper is None:
            log.error("pepper_unknown", pepper=key_id)
        known = pepper or self._peppers.current
        return bcrypt.checkpw(_digest(password, known.secret), text.encode()) and pepper is not None

    def _stored(self, text: str) -> str:
        return f"{self._peppers.current.id}{_SEPARATOR}{text}"


def normalized(password: str) -> str:
    """The form in which passwords are measured and hashed: NFKC, whatever keyboard they were typed on."""
    return unicodedata.normalize("NFKC", password)


def _digest(password: str, pepper: bytes) -> bytes:
    # Half a surrogate pair, which no new password may have, is a wrong password rather than an error.
    data = normalized(password).encode(errors="surrogatepass")
    # 48 bytes are 64 in base64: below bcrypt's 72, and free of the zero byte at which it would stop.
    return base64.b64encode(hmac.digest(pepper, data, hashlib.sha384))
