"""Access tokens (JWT) and secrets that are stored only as hashes."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

import jwt

from core import clock
from core.accounts.keys import Keyring
from core.errors import UnauthenticatedError
from core.settings import TokenSettings

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "darkroom"
_REQUIRED: Final = ("exp", "iat", "iss", "sub", "sid")
_EXPIRED: Final = "The access token has expired; refresh the session."
_KEPT: Final = 10_000
"""Tokens whose signature is not verified anew with every request: about 7 MB."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says: whose it is, of which sign-in, and until when it is good."""

    account_id: UUID
    session_id: UUID
    expires_at: datetime


class AccessTokens:
    """Issues and reads access tokens; each names the key that signed it (``kid``)."""

    def __init__(self, settings: TokenSettings) -> None:
        self._keys = Keyring(settings.jwt_secret, settings.jwt_other_secrets)
        self._lifetime = timedelta(minutes=settings.access_token_minutes)
        # What is not genuine raises, and is not kept.
        self._verified = lru_cache(maxsize=_KEPT)(self._verify)

    def issue(self, *, account_id: UUID, session_id: UUID, now: datetime) -> tuple[str, datetime]:
        """A token, and when it expires."""
        expires_at = (now + self._lifetime).replace(microsecond=0)
        claims = {
            "iss": _ISSUER,
            "sub": str(account_id),
            "sid": str(session_id),
            "iat": now,
            "exp": expires_at,
        }
        key = self._keys.current
        token = jwt.encode(claims, key.secret, algorithm=_ALGORITHM, headers={"kid": key.id})
        return token, expires_at

    def read(self, token: str) -> AccessClaims:
        """What a genuine token says.

        Raises:
            UnauthenticatedError: forged, expired, incomplete, or signed with a key that was removed.
        """
        claims = self._verified(token)
        if claims.expires_at <= clock.now():
            raise UnauthenticatedError(_EXPIRED)
        return claims

    def _verify(self, token: str) -> AccessClaims:
        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise UnauthenticatedError("The access token is not valid.")
            claims = jwt.decode(
                token,
                key.secret,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": list(_REQUIRED)},
            )
            return AccessClaims(
                account_id=UUID(claims["sub"]),
                session_id=UUID(claims["sid"]),
                expires_at=datetime.fromtimestamp(claims["exp"], tz=UTC),
            )
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError(_EXPIRED) from error
        except (jwt.InvalidTokenError, ValueError) as error:
            raise UnauthenticatedError("The access token is not valid.") from error


def new_secret() -> tuple[str, str]:
    """A fresh secret of 256 bits for a link, a refresh token or a voucher, and the hash to store for it."""
    secret = secrets.token_urlsafe(32)
    return secret, hash_secret(secret)


def hash_secret(secret: str) -> str:
    """SHA-256 in hex. The secrets have full entropy, so nothing slower is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()
