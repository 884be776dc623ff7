"""Signing in, staying signed in, and knowing who asks."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from core.accounts.limits import Action, RateLimiter
from core.accounts.password_rules import require_password
from core.accounts.passwords import PasswordHasher
from core.accounts.tokens import AccessClaims, AccessTokens, hash_secret, new_secret
from core.clock import now
from core.errors import (
    EmailNotVerifiedError,
    InvalidCredentialsError,
    InvalidTokenError,
    UnauthenticatedError,
)
from core.lifecycle import Tier
from core.models import Account, RefreshToken, TokenPurpose
from core.repository import accounts
from core.repository.database import in_transaction
from core.settings import TokenSettings

REUSE_GRACE: Final = timedelta(seconds=10)
"""How long a rotated token still works, for a client that lost the answer to its rotation."""


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """What a client needs to stay signed in; ``expires_at`` is the access token's."""

    account: Account
    access_token: str
    refresh_token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks, of which sign-in, and until when the token is good."""

    account: Account
    session_id: UUID
    expires_at: datetime


def tier_of(account: Account, *, at: datetime) -> Tier:
    """The tier that an account has at a moment."""
    return Tier.PREMIUM if account.premium_until and account.premium_until > at else Tier.NORMAL


class Sessions:
    """Sign-ins as families of rotated refresh tokens with short-lived access tokens."""

    def __init__(
        self,
        *,
        settings: TokenSettings,
        passwords: PasswordHasher,
        tokens: AccessTokens,
        limiter: RateLimiter,
    ) -> None:
        self._refresh_lifetime = timedelta(days=settings.refresh_token_days)
        self._passwords = passwords
        self._tokens = tokens
        self._limiter = limiter

    async def signin(self, *, email: str, password: str, address: str) -> SessionTokens:
        """Open a session.

        Raises:
            RateLimitedError: too many attempts for this account or from this network address.
            InvalidCredentialsError: no such account, or not its password: the two are not told apart.
            EmailNotVerifiedError: the password is right, but the address is not verified yet.
        """
        await self._limiter.spend(Action.SIGNIN, address=address, account=accounts.email_key(email))
        account = await accounts.find_by_email(email)
        genuine = await self._passwords.verify(password, account.password_hash if account else None)
        if account is None or not genuine:
            raise InvalidCredentialsError("E-mail address and password do not belong together.")
        if account.email_verified_at is None:
            raise EmailNotVerifiedError(
                "Verify your e-mail address first: follow the link in the letter,"
                " or sign up again to get another."
            )
        if self._passwords.outdated(account.password_hash):
            await accounts.replace_hash(account, password_hash=await self._passwords.hash(password))
        moment = now()
        refresh, refresh_hash = new_secret()
        async with in_transaction():
            family = await accounts.open_session(
                account, token_hash=refresh_hash, expires_at=moment + self._refresh_lifetime
            )
        return self._answer(account, family.id, refresh, moment)

    async def refresh(self, token: str) -> SessionTokens:
        """Rotate a refresh token. One that was rotated before ends its whole family.

        Raises:
            InvalidTokenError: unknown, expired, ended, or reused.
        """
        moment = now()
        async with in_transaction():
            stored = await accounts.lock_refresh_token(hash_secret(token))
            if stored is None or stored.family.ended_at is not None or stored.expires_at <= moment:
                raise InvalidTokenError("The refresh token is not valid; sign in again.")
            reused = stored.used_at is not None and moment - stored.used_at > REUSE_GRACE
            if reused:
                await accounts.end_session(stored.family_id, at=moment)
            else:
                refresh, refresh_hash = new_secret()
                await self._rotate(stored, refresh_hash, moment)
        if reused:
            raise InvalidTokenError("This refresh token was used before, so its session was ended.")
        return self._answer(stored.family.account, stored.family_id, refresh, moment)

    def claims(self, token: str) -> AccessClaims:
        """What an access token says, which is not whether its session still lives.

        Raises:
            UnauthenticatedError: the token is not good.
        """
        return self._tokens.read(token)

    async def authenticate(self, claims: AccessClaims) -> Viewer:
        """Who an access token speaks for, as the database has it now.

        Raises:
            UnauthenticatedError: its session was ended.
        """
        family = await accounts.live_session(claims.session_id)
        if family is None or family.account_id != claims.account_id:
            raise UnauthenticatedError("The session was ended; sign in again.")
        return Viewer(account=family.account, session_id=family.id, expires_at=claims.expires_at)

    async def signout(self, viewer: Viewer) -> None:
        """End the viewer's session, effective at once."""
        await accounts.end_session(viewer.session_id, at=now())

    async def signout_everywhere(self, viewer: Viewer) -> None:
        """End all sessions of the viewer's account, effective at once."""
        await accounts.end_sessions(viewer.account.id, at=now())

    async def prove_password(self, viewer: Viewer, *, password: str, address: str) -> None:
        """See that the viewer knows the password, which a stolen token does not tell.

        Raises:
            RateLimitedError: too many attempts for this account or from this network address.
            InvalidCredentialsError: ``password`` is not the account's.
        """
        account = viewer.account
        await self._limiter.spend(Action.SIGNIN, address=address, account=account.email_key)
        if not await self._passwords.verify(password, account.password_hash):
            raise InvalidCredentialsError("That is not your present password.")

    async def change_password(self, viewer: Viewer, *, current: str, new: str, address: str) -> Account:
        """Set another password and end every other session of the account.

        Raises:
            RateLimitedError: too many attempts for this account or from this network address.
            InvalidInputError: the new password breaks a rule.
            InvalidCredentialsError: ``current`` is not the account's password.
        """
        account = viewer.account
        require_password(new, field="newPassword", email=account.email)
        await self.prove_password(viewer, password=current, address=address)
        account.password_hash = await self._passwords.hash(new)
        async with in_transaction():
            await account.save(update_fields=["password_hash"])
            # Whoever had asked for a link must not undo this with it.
            await accounts.drop_email_tokens(account.id, purpose=TokenPurpose.RESET_PASSWORD)
            await accounts.end_sessions(account.id, at=now(), but=viewer.session_id)
        return account

    async def _rotate(self, stored: RefreshToken, refresh_hash: str, moment: datetime) -> None:
        stored.used_at = stored.used_at or moment
        await stored.save(update_fields=["used_at"])
        await RefreshToken.create(
            hash=refresh_hash, family_id=stored.family_id, expires_at=moment + self._refresh_lifetime
        )

    def _answer(self, account: Account, family_id: UUID, refresh: str, moment: datetime) -> SessionTokens:
        access, expires_at = self._tokens.issue(account_id=account.id, session_id=family_id, now=moment)
        return SessionTokens(
            account=account, access_token=access, refresh_token=refresh, expires_at=expires_at
        )
