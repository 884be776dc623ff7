"""Access tokens are verified once, and looked at each time."""

from datetime import timedelta
from uuid import uuid4

import jwt
import pytest
from pydantic import SecretStr

from core import clock
from core.accounts import tokens as module
from core.accounts.tokens import AccessTokens
from core.errors import UnauthenticatedError
from core.settings import TokenSettings


@pytest.fixture
def tokens() -> AccessTokens:
    return AccessTokens(TokenSettings(jwt_secret=SecretStr("j" * 40), password_pepper=SecretStr("p" * 20)))


def issued(tokens: AccessTokens) -> str:
    return tokens.issue(account_id=uuid4(), session_id=uuid4(), now=clock.now())[0]


def test_a_token_that_is_known_is_not_verified_again(
    tokens: AccessTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issued(tokens)
    claims = tokens.read(token)
    monkeypatch.setattr(jwt, "decode", None)
    assert tokens.read(token) == claims


def test_a_token_that_is_known_expires_all_the_same(
    tokens: AccessTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issued(tokens)
    expires_at = tokens.read(token).expires_at
    monkeypatch.setattr(clock, "now", lambda: expires_at - timedelta(milliseconds=1))
    assert tokens.read(token)
    monkeypatch.setattr(clock, "now", lambda: expires_at)
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens.read(token)


def test_what_is_like_a_known_token_is_not_genuine(tokens: AccessTokens) -> None:
    token = issued(tokens)
    tokens.read(token)
    body, signature = token.rsplit(".", 1)
    other = issued(tokens).rsplit(".", 1)[0]
    for forged in (f"{body}.{signature[::-1]}", f"{other}.{signature}", f"{body}."):
        for _ in range(2):
            with pytest.raises(UnauthenticatedError):
                tokens.read(forged)


def test_as_many_are_known_as_is_said(tokens: AccessTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    few = AccessTokens(TokenSettings(jwt_secret=SecretStr("j" * 40), password_pepper=SecretStr("p" * 20)))
    for _ in range(5):
        few.read(issued(few))
    assert few._verified.cache_info().currsize == 3
