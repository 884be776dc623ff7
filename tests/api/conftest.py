"""These tests speak to a served api."""

from tests.served_api import (
    api_settings,
    client,
    listener,
    normal,
    parts,
    password_hash,
    payment_settings,
    premium,
)

__all__ = [
    "api_settings",
    "client",
    "listener",
    "normal",
    "parts",
    "password_hash",
    "payment_settings",
    "premium",
]
