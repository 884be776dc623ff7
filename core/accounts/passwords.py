"""Password hashing: bcrypt over a peppered HMAC, so that long passphrases count whole."""

import asyncio
import base64
import hashlib
import hmac
import secrets
from typing import Final

import bcrypt

from core.errors import FieldProblem, InvalidInputError
from core.settings import TokenSettings

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 128

_PARALLEL = 2
"""Hashes at a time: each takes a core for about 0.2 s at cost 12, and other work needs cores too."""


class PasswordHasher:
    """Hashes and checks passwords on worker threads, so that the event loop never waits."""

    def __init__(self, settings: TokenSettings) -> None:
        self._pepper = settings.password_pepper.get_secret_value().encode()
        self._rounds = settings.bcrypt_rounds
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to store for a password."""
        async with self._slots:
            return await asyncio.to_thread(self._hash, password)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether a password belongs to a stored hash.

        Takes as long without a hash as with one, so that time does not tell whether an account exists.
        """
        async with self._slots:
            if stored is None:
                if self._decoy is None:
                    self._decoy = await asyncio.to_thread(self._hash, secrets.token_hex())
                await asyncio.to_thread(self._verify, password, self._decoy)
                return False
            return await asyncio.to_thread(self._verify, password, stored)

    def _hash(self, password: str) -> str:
        return bcrypt.hashpw(self._digest(password), bcrypt.gensalt(self._rounds)).decode()

    def _verify(self, password: str, stored: str) -> bool:
        return bcrypt.checkpw(self._digest(password), stored.encode())

    def _digest(self, password: str) -> bytes:
        # 48 bytes are 64 in base64: below bcrypt's 72, and free of the zero byte at which it would stop.
        return base64.b64encode(hmac.digest(self._pepper, password.encode(), hashlib.sha384))


def check_password(password: str, *, field: str) -> list[FieldProblem]:
    """What is wrong with a new password, or nothing."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        return [
            FieldProblem(
                field, f"must have {MIN_LENGTH} to {MAX_LENGTH} characters, this has {len(password)}"
            )
        ]
    return []


def require_password(password: str, *, field: str) -> None:
    """Refuse a new password that breaks a rule.

    Raises:
        InvalidInputError: names the field, the reason and the limit.
    """
    if problems := check_password(password, field=field):
        raise InvalidInputError(problems)
