"""Leaving: what the one who leaves sees, and everybody else."""

from datetime import timedelta
from typing import Any

import pytest

from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.models import Account, Generation, Letter, LetterKind
from core.settings import LimitSettings
from tests.graphql_client import PASSWORD, SIGNIN, Client

EMAIL = "normal@example.org"
DELETE = """
mutation ($password: String!) {
  deleteAccount(input: { password: $password }) {
    __typename
    ... on AccountDeleted { message }
    ... on UserError { message }
  }
}
"""
SIGNUP = """
mutation ($email: String!, $password: String!) {
  signup(input: { email: $email, password: $password }) { __typename }
}
"""


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(signin_attempts_per_minute=6)


async def is_signed_in(client: Client) -> bool:
    return (await client.data("{ me { email } }"))["me"] is not None


async def test_an_account_ends_with_all_its_sessions_and_the_address_is_free_again(normal: Client) -> None:
    other = await normal.signed_in(EMAIL)
    closed = (await normal.data(DELETE, password=PASSWORD))["deleteAccount"]
    assert closed["__typename"] == "AccountDeleted"
    assert (await is_signed_in(normal), await is_signed_in(other)) == (False, False)
    signin = await normal.data(SIGNIN, input={"email": EMAIL, "password": PASSWORD})
    assert signin["signin"]["__typename"] == "InvalidCredentials"
    farewell = await Letter.get()
    assert (farewell.kind, farewell.recipient, farewell.account_id) == (
        LetterKind.ACCOUNT_DELETED,
        EMAIL,
        None,
    )

    again = await normal.data(SIGNUP, email=EMAIL, password="a new beginning")
    assert again["signup"]["__typename"] == "SignupAccepted"
    assert await Letter.filter(kind=LetterKind.VERIFY_EMAIL).exists()
    assert await Account.filter(email=EMAIL).count() == 1


async def test_without_the_password_nothing_happens(normal: Client) -> None:
    refused = (await normal.data(DELETE, password="a guess at it"))["deleteAccount"]
    assert refused == {"__typename": "InvalidCredentials", "message": "That is not your present password."}
    assert await is_signed_in(normal)
    assert not await Letter.all().exists()


async def test_guesses_are_counted_with_signins(normal: Client) -> None:
    kinds = [
        (await normal.data(DELETE, password="a guess at it"))["deleteAccount"]["__typename"] for _ in range(6)
    ]
    assert kinds == ["InvalidCredentials"] * 5 + ["RateLimited"]


async def test_nobody_deletes_an_account_without_being_signed_in(client: Client) -> None:
    answer = await client.execute(DELETE, password=PASSWORD)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]


@pytest.mark.parametrize("tier", Tier)
async def test_a_generation_says_when_it_is_deleted_once_it_has_ended(
    normal: Client, new_generation: Any, tier: Tier
) -> None:
    generation = await new_generation(await Account.get(), tier=tier)
    listing = "{ generations { edges { node { expiresAt } } } }"

    async def expires_at() -> str | None:
        [edge] = (await normal.data(listing))["generations"]["edges"]
        found: str | None = edge["node"]["expiresAt"]
        return found

    assert await expires_at() is None
    ended = now()
    await Generation.filter(id=generation.id).update(state=GenerationState.FAILED, finished_at=ended)
    assert await expires_at() == (ended + timedelta(days=30)).isoformat()
