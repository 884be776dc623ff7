"""Signing up, proving an e-mail address, and choosing a new password."""

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from core.accounts.limits import Action, RateLimiter
from core.accounts.password_rules import check_password, require_password
from core.accounts.passwords import PasswordHasher
from core.accounts.tokens import hash_secret
from core.clock import now
from core.errors import FieldProblem, InvalidInputError, InvalidTokenError
from core.models import Account, LetterKind, TokenPurpose
from core.outbox import write_letter, write_letter_if_known
from core.repository import accounts
from core.repository.database import in_transaction

# Addresses such as someone@darkroom.local are good on a private network; this list is the library's switch.
if "local" in SPECIAL_USE_DOMAIN_NAMES:
    SPECIAL_USE_DOMAIN_NAMES.remove("local")


class Registration:
    """How an account comes into being. None of it tells a stranger whether an address is known.

    Whatever an address turns out to be, the same statements run in the same order, each writes as many rows,
    and as many passwords are hashed.
    """

    def __init__(self, *, passwords: PasswordHasher, limiter: RateLimiter) -> None:
        self._passwords = passwords
        self._limiter = limiter

    async def signup(self, *, email: str, password: str, address: str) -> None:
        """Ask for an account. Whether the address was free is told only to its owner, by letter.

        Raises:
            InvalidInputError: the address is malformed or the password breaks a rule.
            RateLimitedError: too many attempts for this account or from this network address.
        """
        problems = [*_check_email(email), *check_password(password, field="password", email=email)]
        if problems:
            raise InvalidInputError(problems)
        await self._limiter.spend(Action.SIGNUP, address=address, account=accounts.email_key(email))
        password_hash = await self._passwords.hash(password)
        async with in_transaction():
            account_id, verified = await accounts.sign_up(email=email, password_hash=password_hash, at=now())
            # A link from before would prove the address for a password that came after it.
            await accounts.drop_email_tokens(account_id, purpose=TokenPurpose.VERIFY_EMAIL)
            await write_letter(account_id, LetterKind.ADDRESS_TAKEN if verified else LetterKind.VERIFY_EMAIL)

    async def verify_email(self, token: str) -> Account:
        """Use up a mailed verification token.

        Raises:
            InvalidTokenError: unknown, used or expired.
        """
        moment = now()
        async with in_transaction():
            account = await accounts.use_email_token(
                hash_secret(token), purpose=TokenPurpose.VERIFY_EMAIL, now=moment
            )
            if account is None:
                raise InvalidTokenError(
                    "The link is not valid any more: it was used, a later letter replaced it, or its time"
                    " is over. If your address is verified, sign in; otherwise sign up again to get another."
                )
            account.email_verified_at = account.email_verified_at or moment
            await account.save(update_fields=["email_verified_at"])
        return account

    async def request_password_reset(self, *, email: str, address: str) -> None:
        """Send a reset letter if there is such an account; the caller cannot tell.

        Raises:
            RateLimitedError: too many requests for this account or from this network address.
        """
        await self._limiter.spend(Action.RESET, address=address, account=accounts.email_key(email))
        await write_letter_if_known(email, LetterKind.RESET_PASSWORD)

    async def reset_password(self, *, token: str, password: str, address: str) -> Account:
        """Use up a mailed reset token, set the password and end every session.

        Raises:
            InvalidInputError: the new password breaks a rule; the token stays good.
            RateLimitedError: too many guesses of passwords and tokens from this network address.
            InvalidTokenError: unknown, used or expired.
        """
        require_password(password, field="password")
        # Nobody guesses 256 bits, but each guess makes a hash, which is what others wait for.
        await self._limiter.spend(Action.SIGNIN, address=address)
        password_hash = await self._passwords.hash(password)
        moment = now()
        async with in_transaction():
            account = await accounts.use_email_token(
                hash_secret(token), purpose=TokenPurpose.RESET_PASSWORD, now=moment
            )
            if account is None:
                raise InvalidTokenError(
                    "The link is not valid any more. Ask for a new one where you sign in."
                )
            require_password(password, field="password", email=account.email)
            account.password_hash = password_hash
            # Whoever read the letter owns the address.
            account.email_verified_at = account.email_verified_at or moment
            await account.save(update_fields=["password_hash", "email_verified_at"])
            await accounts.drop_email_tokens(account.id, purpose=TokenPurpose.RESET_PASSWORD)
            await accounts.end_sessions(account.id, at=moment)
        return account

    async def ensure_account(self, *, email: str, password: str) -> Account:
        """A verified account with this password, made or changed: for operators.

        Raises:
            InvalidInputError: the address is malformed or the password breaks a rule.
        """
        problems = [*_check_email(email), *check_password(password, field="password", email=email)]
        if problems:
            raise InvalidInputError(problems)
        password_hash = await self._passwords.hash(password)
        account, _ = await Account.update_or_create(
            email_key=accounts.email_key(email),
            defaults={"email": email, "password_hash": password_hash, "email_verified_at": now()},
        )
        return account


def _check_email(email: str) -> list[FieldProblem]:
    # Whether letters arrive is what verification shows, so the domain's reach is not looked at.
    try:
        validated = validate_email(email.strip(), check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        return [FieldProblem("email", str(error))]
    if "." not in validated.domain:
        return [FieldProblem("email", "the part after the @-sign must be a full domain name")]
    return []
