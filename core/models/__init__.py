"""The tables. PostgreSQL is the truth: the broker's streams are an index that can be rebuilt from here."""

from typing import Any

from core.models.accounts import (
    Account,
    AccountDeletion,
    EmailToken,
    RefreshToken,
    SessionFamily,
    TokenPurpose,
)
from core.models.configuration import database_config
from core.models.generations import Erasure, Generation, Image
from core.models.letters import Letter, LetterKind, LetterState
from core.models.limits import RateLimit, Subscription
from core.models.premium import Checkout, Purchase, Voucher
from core.models.windows import Window, WindowAccount, WindowClock, WindowState
from core.settings import DatabaseSettings, read

__all__ = [
    "Account",
    "AccountDeletion",
    "Checkout",
    "EmailToken",
    "Erasure",
    "Generation",
    "Image",
    "Letter",
    "LetterKind",
    "LetterState",
    "Purchase",
    "RateLimit",
    "RefreshToken",
    "SessionFamily",
    "Subscription",
    "TokenPurpose",
    "Voucher",
    "Window",
    "WindowAccount",
    "WindowClock",
    "WindowState",
    "database_config",
]


def __getattr__(name: str) -> dict[str, Any]:
    """``MIGRATIONS_CONFIG``, which Tortoise's command line reads, is made only when asked for."""
    if name == "MIGRATIONS_CONFIG":
        return database_config(read(DatabaseSettings))
    raise AttributeError(name)
