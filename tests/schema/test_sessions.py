"""What somebody who is signed in does about passwords and sessions."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from core.accounts.passwords import PasswordHasher
from core.accounts.sessions import REUSE_GRACE
from core.clock import now
from core.models import Account, EmailToken, RefreshToken, SessionFamily, TokenPurpose
from core.settings import LimitSettings, TokenSettings
from tests.graphql_client import PASSWORD, SIGNIN, Client

EMAIL = "normal@example.org"
NEW = "another correct horse"
CHANGE = """
mutation ($current: String!, $new: String!) {
  changePassword(input: { currentPassword: $current, newPassword: $new }) {
    __typename
    ... on Account { email }
    ... on InvalidInput { fields { field message } }
    ... on UserError { message }
  }
}
"""


REFRESH = """
mutation ($token: String!) {
  refreshSession(refreshToken: $token) { __typename ... on Session { accessToken refreshToken } }
}
"""


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(signin_attempts_per_minute=6)


async def is_signed_in(client: Client) -> bool:
    return (await client.data("{ me { email } }"))["me"] is not None


async def signin_kind(client: Client, password: str) -> str:
    data = await client.data(SIGNIN, input={"email": EMAIL, "password": password})
    kind: str = data["signin"]["__typename"]
    return kind


async def test_another_password_ends_every_other_session(normal: Client) -> None:
    other = await normal.signed_in(EMAIL)
    changed = await normal.data(CHANGE, current=PASSWORD, new=NEW)
    assert changed["changePassword"] == {"__typename": "Account", "email": EMAIL}
    assert (await is_signed_in(normal), await is_signed_in(other)) == (True, False)
    assert await signin_kind(normal, PASSWORD) == "InvalidCredentials"
    assert await signin_kind(normal, NEW) == "Session"


@pytest.mark.parametrize(
    ("passwords", "expected"),
    [
        (
            {"current": "not the present one", "new": NEW},
            {"__typename": "InvalidCredentials", "message": "That is not your present password."},
        ),
        (
            {"current": PASSWORD, "new": "short"},
            {
                "__typename": "InvalidInput",
                "fields": [{"field": "newPassword", "message": "must have 8 to 128 characters, this has 5"}],
            },
        ),
    ],
    ids=["wrong", "short"],
)
async def test_a_refused_change_changes_nothing(
    normal: Client, passwords: dict[str, str], expected: dict[str, Any]
) -> None:
    other = await normal.signed_in(EMAIL)
    before = (await Account.get(email=EMAIL)).password_hash
    refused = (await normal.data(CHANGE, **passwords))["changePassword"]
    assert {key: refused[key] for key in expected} == expected
    assert (await Account.get(email=EMAIL)).password_hash == before
    assert await is_signed_in(other)


async def test_guesses_at_the_present_password_are_counted_with_signins(normal: Client) -> None:
    kinds = [
        (await normal.data(CHANGE, current="a guess", new=NEW))["changePassword"]["__typename"]
        for _ in range(6)
    ]
    # The one that signed in counts too.
    assert kinds == ["InvalidCredentials"] * 5 + ["RateLimited"]


async def test_nobody_changes_a_password_without_being_signed_in(client: Client) -> None:
    answer = await client.execute(CHANGE, current=PASSWORD, new=NEW)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]


async def test_signing_out_everywhere_ends_all_sessions_at_once(normal: Client) -> None:
    other = await normal.signed_in(EMAIL)
    data = await normal.data("mutation { signoutEverywhere { message } }")
    assert data["signoutEverywhere"]["message"] == "You are signed out everywhere."
    assert (await is_signed_in(normal), await is_signed_in(other)) == (False, False)


async def test_whoever_changes_the_password_ends_the_links_of_reset_letters(normal: Client) -> None:
    account = await Account.get(email=EMAIL)
    for purpose in TokenPurpose:
        await EmailToken.create(
            hash=purpose.value, account=account, purpose=purpose, expires_at=now() + timedelta(hours=1)
        )
    await normal.data(CHANGE, current=PASSWORD, new=NEW)
    assert [token.purpose for token in await EmailToken.all()] == [TokenPurpose.VERIFY_EMAIL]


async def test_the_password_must_not_be_the_address(normal: Client) -> None:
    refused = (await normal.data(CHANGE, current=PASSWORD, new="normal2026!"))["changePassword"]
    assert refused["fields"][0]["field"] == "newPassword"
    assert "more than the e-mail address" in refused["fields"][0]["message"]


async def test_a_signin_renews_a_hash_of_fewer_rounds_or_another_pepper(
    client: Client, new_account: Any, token_settings: TokenSettings
) -> None:
    old = token_settings.model_copy(update={"password_pepper": SecretStr("a pepper of before")})
    stored = (await PasswordHasher(old).hash(PASSWORD)).partition(":")[2]
    now_known = (await PasswordHasher(token_settings).hash(PASSWORD)).partition(":")[0]
    await new_account(EMAIL, password_hash=stored)
    # The pepper of before is not there any more: nobody gets in, and the hash stays.
    assert await signin_kind(client, PASSWORD) == "InvalidCredentials"
    nameless = (await PasswordHasher(token_settings).hash(PASSWORD)).partition(":")[2]
    await Account.all().update(password_hash=nameless)
    assert await signin_kind(client, "a wrong password") == "InvalidCredentials"
    assert (await Account.get()).password_hash == nameless
    assert await signin_kind(client, PASSWORD) == "Session"
    renewed = (await Account.get()).password_hash
    assert renewed.startswith(f"{now_known}:")
    assert await signin_kind(client, PASSWORD) == "Session"
    assert (await Account.get()).password_hash == renewed


async def test_ten_refreshes_at_once_rotate_one_token_and_a_late_reuse_ends_them_all(normal: Client) -> None:
    session = (await normal.data(SIGNIN, input={"email": EMAIL, "password": PASSWORD}))["signin"]
    first = session["refreshToken"]
    answers = await asyncio.gather(*(normal.data(REFRESH, token=first) for _ in range(10)))
    # All of them lost nothing but an answer, as far as one can tell within the grace.
    assert {answer["refreshSession"]["__typename"] for answer in answers} == {"Session"}
    assert len({answer["refreshSession"]["refreshToken"] for answer in answers}) == 10
    assert await RefreshToken.exclude(used_at=None).count() == 1

    await RefreshToken.exclude(used_at=None).update(used_at=now() - REUSE_GRACE - timedelta(seconds=1))
    late = await asyncio.gather(*(normal.data(REFRESH, token=first) for _ in range(10)))
    assert {answer["refreshSession"]["__typename"] for answer in late} == {"InvalidToken"}
    # The other session, which ``normal`` is signed in with, goes on.
    assert await SessionFamily.filter(ended_at=None).count() == 1
    assert await is_signed_in(normal)
    for answer in answers:
        thief = Client(http=normal.http, port=normal.port, token=answer["refreshSession"]["accessToken"])
        assert not await is_signed_in(thief)
        again = await normal.data(REFRESH, token=answer["refreshSession"]["refreshToken"])
        assert again["refreshSession"]["__typename"] == "InvalidToken"
