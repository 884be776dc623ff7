"""What a new password must be: the one rule of sign-up, change, reset and the operators' command."""

import string
from functools import cache
from typing import Final

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from core.accounts.passwords import normalized
from core.errors import FieldProblem, InvalidInputError

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 128

_SERVICE: Final = "darkroom"
_DECORATION: Final = string.digits + string.punctuation + string.whitespace


def check_password(password: str, *, field: str, email: str | None = None) -> list[FieldProblem]:
    """What is wrong with a new password, or nothing.

    Args:
        password: as it was typed.
        field: its name in the input.
        email: of the account, which the password must not repeat; none where that is not known yet.
    """
    text = normalized(password)
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        reason = f"must have {MIN_LENGTH} to {MAX_LENGTH} characters, this has {len(text)}"
    elif any("\ud800" <= character <= "\udfff" for character in text):
        reason = "must not contain half a surrogate pair"
    elif text.casefold() in _common():
        reason = "is one of the most used passwords, which are tried first; choose another"
    elif text.casefold().strip(_DECORATION) in _context(email):
        reason = "must be more than the e-mail address or the name of this service; choose another"
    else:
        return []
    return [FieldProblem(field, reason)]


def require_password(password: str, *, field: str, email: str | None = None) -> None:
    """Refuse a new password that breaks a rule; arguments as for :func:`check_password`.

    Raises:
        InvalidInputError: names the field, the reason and the limit.
    """
    if problems := check_password(password, field=field, email=email):
        raise InvalidInputError(problems)


@cache
def _common() -> frozenset[str]:
    """Of the 30,000 passwords seen most often in leaks those that are long enough to be chosen here."""
    return frozenset(text for text in FREQUENCY_LISTS["passwords"] if len(text) >= MIN_LENGTH)


def _context(email: str | None) -> set[str]:
    address = (email or "").strip().casefold()
    local = address.partition("@")[0]
    return {text.strip(_DECORATION) for text in (_SERVICE, address, local)} - {""}
