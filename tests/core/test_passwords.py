"""What a password must be, how it is kept, and how peppers follow each other."""

import unicodedata
from typing import Any

import bcrypt
import pytest
from pydantic import SecretStr

from core.accounts.password_rules import check_password
from core.accounts.passwords import PasswordHasher
from core.settings import TokenSettings

PASSWORD = "correct horse battery staple"
OLD, NEW = SecretStr("the old pepper of 2025"), SecretStr("the new pepper of 2026")


def hasher(pepper: SecretStr, *others: SecretStr, rounds: int = 4) -> PasswordHasher:
    settings = TokenSettings(
        jwt_secret=SecretStr("j" * 40),
        password_pepper=pepper,
        password_other_peppers=others,
        bcrypt_rounds=rounds,
    )
    return PasswordHasher(settings)


@pytest.mark.parametrize(
    "password",
    [
        PASSWORD,
        "83520461",
        "aaaaaaab",
        "alice in wonderland",
        "the darkroom of my aunt",
        "пароль мой длинный",
        "🦊🦊🦊🦊🦊🦊🦊🦊",
        "x" * 128,
        " " * 7 + "x",
    ],
)
def test_any_composition_will_do(password: str) -> None:
    assert check_password(password, field="password", email="alice@example.org") == []


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("1234567", "must have 8 to 128 characters, this has 7"),
        ("🦊" * 7, "must have 8 to 128 characters, this has 7"),
        ("x" * 129, "must have 8 to 128 characters, this has 129"),
        # An e and its accent are one character, as they would be from another keyboard.
        (unicodedata.normalize("NFD", "é") * 7, "must have 8 to 128 characters, this has 7"),
        ("password", "is one of the most used passwords"),
        ("PassWord123", "is one of the most used passwords"),
        ("1q2w3e4r5t", "is one of the most used passwords"),
        ("Darkroom!", "must be more than the e-mail address or the name of this service"),
        ("2026 darkroom 2026", "must be more than"),
        ("alice.smith1999", "must be more than"),
        ("alice.smith@example.org", "must be more than"),
        ("a surrogate \ud800", "must not contain half a surrogate pair"),
    ],
)
def test_a_weak_password_is_refused_with_the_reason(password: str, reason: str) -> None:
    [problem] = check_password(password, field="newPassword", email="Alice.Smith@example.org")
    assert problem.field == "newPassword"
    assert problem.message.startswith(reason)


async def test_the_same_password_from_another_keyboard_is_the_same() -> None:
    typed = "crème brûlée"
    stored = await hasher(NEW).hash(unicodedata.normalize("NFC", typed))
    assert await hasher(NEW).verify(unicodedata.normalize("NFD", typed), stored)


async def test_a_hash_of_another_pepper_is_good_until_the_pepper_is_removed() -> None:
    stored = await hasher(OLD).hash(PASSWORD)
    both = hasher(NEW, OLD)
    assert await both.verify(PASSWORD, stored)
    assert not await both.verify("another password", stored)
    assert both.outdated(stored)
    assert not hasher(OLD, NEW).outdated(stored)
    assert not await hasher(NEW).verify(PASSWORD, stored)


async def test_a_hash_without_a_peppers_name_is_of_the_oldest() -> None:
    named = await hasher(OLD).hash(PASSWORD)
    nameless = named.partition(":")[2]
    assert await hasher(NEW, OLD).verify(PASSWORD, nameless)
    assert await hasher(OLD).verify(PASSWORD, nameless)
    assert hasher(OLD).outdated(nameless)


async def test_a_hash_with_fewer_rounds_is_outdated_and_one_with_more_is_not() -> None:
    stored = await hasher(NEW, rounds=5).hash(PASSWORD)
    assert hasher(NEW, rounds=6).outdated(stored)
    assert not hasher(NEW, rounds=4).outdated(stored)
    assert await hasher(NEW, rounds=6).verify(PASSWORD, stored)


async def test_without_a_stored_hash_the_same_work_is_done(monkeypatch: Any) -> None:
    costs = []
    genuine = bcrypt.checkpw

    def watched(password: bytes, stored: bytes) -> bool:
        costs.append(stored[:7])
        return genuine(password, stored)

    monkeypatch.setattr(bcrypt, "checkpw", watched)
    one = hasher(NEW, rounds=5)
    assert not await one.verify(PASSWORD, None)
    assert not await one.verify(PASSWORD, await one.hash("another password"))
    assert costs == [b"$2b$05$", b"$2b$05$"]
