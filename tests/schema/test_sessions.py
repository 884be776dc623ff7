"""What somebody who is signed in does about passwords and sessions."""

from typing import Any

import pytest

from core.models import Account
from core.settings import LimitSettings
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
