"""What each kind of letter says, read from the database when the letter is about to leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from batcher.letters.pictures import Album, Picture
from core.accounts.reminders import Reminders
from core.accounts.tokens import new_secret
from core.clock import now
from core.errors import NotFoundError
from core.lifecycle import GenerationState
from core.models import Account, Generation, Letter, LetterKind, TokenPurpose
from core.repository import accounts, generations, windows
from core.repository.database import in_transaction

VERIFICATION_LIFETIME: Final = timedelta(hours=24)
RESET_LIFETIME: Final = timedelta(hours=1)

_RESET_WELCOME = timedelta(days=1)
"""Whoever asked for a new password longer ago would wonder who did."""

_SUBJECTS: Final = {
    "address_taken": "You already have an account",
    "premium_started": "Your premium time has started",
    "premium_ends_soon": "Your premium time ends soon",
    "payment_failed": "Your payment did not arrive",
    "refund": "Your payment was refunded",
    "dispute": "Your payment was taken back",
    "operator": "Premium time was taken back",
    "account_deleted": "Your account was deleted",
}
"""Of letters that say nothing but what is in their rows: by kind, or by the reason where there is one."""

_PROMPT_SHOWN = 400
"""Characters of a prompt in a letter: mail readers cut letters whose text is too long."""

_PROMPTS_SHOWN = 8_000
"""Of all prompts together; each gets as much of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a letter says.

    ``subject`` is made of fixed words and numbers, never of anything that a customer wrote. ``values`` are
    for the template of the letter's kind. ``unsubscribe`` is where one asks for no more of its kind; letters
    that somebody's own doing has brought have none.
    """

    subject: str
    values: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    unsubscribe: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One generation as a letter shows it. ``reason`` says why there are no pictures."""

    prompt: str
    negative_prompt: str
    parameters: Sequence[tuple[str, str]]
    pictures: Sequence[Picture]
    reason: str | None


class Author:
    """Writes letters."""

    def __init__(self, *, album: Album, reminders: Reminders, public_url: str) -> None:
        self._album = album
        self._reminders = reminders
        self._public_url = public_url.rstrip("/")

    async def write(self, letter: Letter, *, attach: bool = True) -> Contents | None:
        """What a claimed letter says, or nothing when it would not be true or welcome any more.

        A letter with a link makes a new token each time; the one that it made before stops working.

        Args:
            letter: with its account.
            attach: whether pictures may be attached; otherwise all are links.

        Raises:
            NotFoundError: what the letter is about is not there any more.
            ServiceUnavailableError: the object store does not answer.
        """
        account = letter.account
        if account is None:
            return _notice(letter)
        match letter.kind:
            case LetterKind.VERIFY_EMAIL:
                return await self._link(
                    account, "Verify your e-mail address", TokenPurpose.VERIFY_EMAIL, VERIFICATION_LIFETIME
                )
            case LetterKind.RESET_PASSWORD:
                return await self._reset(letter, account)
            case LetterKind.GENERATION_FINISHED | LetterKind.WINDOW_FINISHED:
                return await self._pictures(await _told_of(letter, account), attach=attach)
            case LetterKind.PREMIUM_ENDS_SOON:
                return self._reminder(letter, account)
            case (
                LetterKind.ADDRESS_TAKEN
                | LetterKind.PREMIUM_STARTED
                | LetterKind.PREMIUM_REVOKED
                | LetterKind.PAYMENT_FAILED
                | LetterKind.ACCOUNT_DELETED
            ):
                return _notice(letter)

    async def _link(
        self, account: Account, subject: str, purpose: TokenPurpose, lifetime: timedelta
    ) -> Contents:
        token, token_hash = new_secret()
        expires_at = now() + lifetime
        async with in_transaction():
            await accounts.replace_email_token(
                account.id, purpose=purpose, token_hash=token_hash, expires_at=expires_at
            )
        page = {TokenPurpose.VERIFY_EMAIL: "verify", TokenPurpose.RESET_PASSWORD: "reset-password"}[purpose]
        link = f"{self._public_url}/{page}?{urlencode({'token': token})}"
        return Contents(subject=subject, values={"link": link, "expires_at": expires_at})

    async def _reset(self, letter: Letter, account: Account) -> Contents | None:
        if letter.created_at < now() - _RESET_WELCOME:
            return None
        return await self._link(account, "Choose a new password", TokenPurpose.RESET_PASSWORD, RESET_LIFETIME)

    def _reminder(self, letter: Letter, account: Account) -> Contents | None:
        ends_at = datetime.fromisoformat(letter.parameters["ends_at"])
        # Bought more, lost it, let the time pass or said no, since the row was written.
        if account.premium_until != ends_at or ends_at <= now() or account.reminders_off_at is not None:
            return None
        link = self._reminders.link(account.id)
        return Contents(
            subject=_SUBJECTS[letter.kind.value],
            values={"ends_at": ends_at, "unsubscribe": link},
            unsubscribe=link,
        )

    async def _pictures(self, found: Sequence[Generation], *, attach: bool) -> Contents:
        told = [generation for generation in found if generation.state is not GenerationState.CANCELED]
        if not told:
            raise NotFoundError("What this letter is about is gone.")
        at = now()
        album = await self._album.collect(told, at=at, attach=attach)
        shown = min(_PROMPT_SHOWN, _PROMPTS_SHOWN // len(told))
        entries = [_entry(generation, album[generation.id], shown=shown) for generation in told]
        pictures = [picture for entry in entries for picture in entry.pictures]
        failed = sum(entry.reason is not None for entry in entries)
        return Contents(
            subject=_subject(len(pictures), failed),
            values={
                "entries": entries,
                "pictures": len(pictures),
                # One alone gets the whole width, more stand side by side.
                "column": 534 if len(pictures) == 1 else 258,
                "linked": sum(picture.link is not None for picture in pictures),
                "failed": failed,
                "links_until": at + self._album.link_lifetime,
            },
            pictures=pictures,
        )


def _notice(letter: Letter) -> Contents:
    until = letter.account.premium_until if letter.account else None
    return Contents(
        subject=_SUBJECTS[letter.parameters.get("reason", letter.kind.value)],
        values={
            "premium_until": until,
            "is_premium": until is not None and until > now(),
            **letter.parameters,
        },
    )


async def _told_of(letter: Letter, account: Account) -> Sequence[Generation]:
    if letter.kind is LetterKind.GENERATION_FINISHED:
        generation = await generations.owned(account.id, UUID(letter.parameters["generation_id"]))
        return [generation] if generation else []
    window_id = UUID(letter.parameters["window_id"])
    return await windows.generations_of(window_id=window_id, account_id=account.id)


def _subject(pictures: int, failed: int) -> str:
    if not pictures:
        return "Your picture could not be made" if failed == 1 else "Your pictures could not be made"
    return "Your picture is ready" if pictures == 1 else f"Your {pictures} pictures are ready"


def _entry(generation: Generation, pictures: Sequence[Picture], *, shown: int) -> Entry:
    succeeded = generation.state is GenerationState.SUCCEEDED
    return Entry(
        prompt=_shortened(generation.prompt, shown),
        negative_prompt=_shortened(generation.negative_prompt, shown // 2),
        parameters=[
            ("Model", generation.model),
            ("Size", f"{generation.width} × {generation.height}"),  # noqa: RUF001 - the sign is meant
            ("Steps", str(generation.steps)),
            ("Guidance", f"{generation.guidance_scale:g}"),
            ("Scheduler", generation.scheduler.value),
        ],
        pictures=pictures,
        reason=None if succeeded else generation.error or "No reason was given.",
    )


def _shortened(text: str, shown: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= shown else f"{text[:shown].rstrip()}…"
