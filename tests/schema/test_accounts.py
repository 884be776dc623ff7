import asyncio
from datetime import timedelta
from typing import Any

import pytest

from core.accounts.premium import create_voucher
from core.accounts.sessions import REUSE_GRACE
from core.clock import now
from core.models import Account, EmailToken, Letter, LetterKind, RefreshToken, TokenPurpose
from tests.graphql_client import Client
from tests.served_api import mailed_token

SIGNUP = """
mutation ($email: String!, $password: String!) {
  signup(input: { email: $email, password: $password }) {
    __typename
    ... on SignupAccepted { message }
    ... on InvalidInput { fields { field message } }
    ... on UserError { message }
  }
}
"""
SIGNIN = """
mutation ($email: String!, $password: String!) {
  signin(input: { email: $email, password: $password }) {
    __typename
    ... on Session { accessToken refreshToken expiresAt account { email emailVerified tier premiumUntil } }
    ... on RateLimited { retryAfter }
    ... on UserError { message }
  }
}
"""
REFRESH = """
mutation ($token: String!) {
  refreshSession(refreshToken: $token) {
    __typename ... on Session { accessToken refreshToken } ... on UserError { message }
  }
}
"""
VERIFY = """
mutation ($token: String!) {
  verifyEmail(token: $token) { __typename ... on Account { emailVerified } ... on UserError { message } }
}
"""
REDEEM = """
mutation ($code: String!) {
  redeemVoucher(code: $code) {
    __typename ... on Account { tier premiumUntil } ... on UserError { message }
  }
}
"""
RESET = """
mutation ($token: String!, $password: String!) {
  resetPassword(input: { token: $token, password: $password }) { __typename }
}
"""
ME = "{ me { email tier emailVerified usage { openGenerations maxOpenGenerations } } }"
PASSWORD = "correct horse battery staple"


async def test_signing_up_verifying_and_signing_in(client: Client) -> None:
    accepted = await client.data(SIGNUP, email="New.One@Example.org", password=PASSWORD)
    assert accepted["signup"]["__typename"] == "SignupAccepted"
    account = await Account.get()
    assert account.email == "New.One@Example.org"
    assert [letter.kind for letter in await Letter.all()] == [LetterKind.VERIFY_EMAIL]

    early = await client.data(SIGNIN, email="new.one@example.org", password=PASSWORD)
    assert early["signin"]["__typename"] == "EmailNotVerified"
    assert "sign up again to get another" in early["signin"]["message"], "for whom the letter was lost"

    token = await mailed_token(account, TokenPurpose.VERIFY_EMAIL)
    verified = await client.data(VERIFY, token=token)
    assert verified["verifyEmail"] == {"__typename": "Account", "emailVerified": True}
    again = await client.data(VERIFY, token=token)
    assert again["verifyEmail"]["__typename"] == "InvalidToken"

    session = (await client.data(SIGNIN, email="new.one@example.org", password=PASSWORD))["signin"]
    assert session["account"] == {
        "email": "New.One@Example.org",
        "emailVerified": True,
        "tier": "NORMAL",
        "premiumUntil": None,
    }
    client.token = session["accessToken"]
    me = (await client.data(ME))["me"]
    assert me["usage"] == {"openGenerations": 0, "maxOpenGenerations": 50}


async def test_signing_up_with_a_taken_address_answers_the_same_and_writes_to_its_owner(
    client: Client, normal: Client
) -> None:
    answers = [
        await client.data(SIGNUP, email=email, password="another password")
        for email in ("normal@example.org", "free@example.org")
    ]
    assert answers[0] == answers[1]
    kinds = {letter.account_id: letter.kind for letter in await Letter.all()}
    taken = await Account.get(email_key="normal@example.org")
    assert kinds[taken.id] is LetterKind.ADDRESS_TAKEN
    assert sorted(kind.value for kind in kinds.values()) == ["address_taken", "verify_email"]


@pytest.mark.parametrize(
    ("email", "password", "fields"),
    [
        ("nobody", PASSWORD, ["email"]),
        ("a@localhost", PASSWORD, ["email"]),
        ("a@example.org", "short", ["password"]),
        ("a@example.org", "x" * 129, ["password"]),
        ("a b@example.org", "short", ["email", "password"]),
        ("a@example.org", "password123", ["password"]),
        ("somebody@example.org", "somebody2026", ["password"]),
    ],
)
async def test_a_bad_address_or_password_is_refused_and_nothing_is_written(
    client: Client, email: str, password: str, fields: list[str]
) -> None:
    refused = (await client.data(SIGNUP, email=email, password=password))["signup"]
    assert refused["__typename"] == "InvalidInput"
    assert [problem["field"] for problem in refused["fields"]] == fields
    assert await Account.all().count() == 0


async def test_a_wrong_password_and_an_unknown_address_answer_the_same(
    client: Client, normal: Client
) -> None:
    wrong = await client.data(SIGNIN, email="normal@example.org", password="not this one")
    unknown = await client.data(SIGNIN, email="nobody@example.org", password="not this one")
    assert wrong == unknown
    assert wrong["signin"]["__typename"] == "InvalidCredentials"


async def test_passwords_that_differ_after_72_bytes_are_different(client: Client) -> None:
    long = "0123456789" * 10
    await client.data(SIGNUP, email="a@example.org", password=long)
    await Account.all().update(email_verified_at=now())
    good = await client.data(SIGNIN, email="a@example.org", password=long)
    assert good["signin"]["__typename"] == "Session"
    bad = await client.data(SIGNIN, email="a@example.org", password=long[:-1] + "x")
    assert bad["signin"]["__typename"] == "InvalidCredentials"


async def test_a_refresh_token_is_rotated_and_its_reuse_ends_the_family(
    client: Client, normal: Client
) -> None:
    session = (await client.data(SIGNIN, email="normal@example.org", password=PASSWORD))["signin"]
    first = session["refreshToken"]
    renewed = (await client.data(REFRESH, token=first))["refreshSession"]
    assert renewed["__typename"] == "Session"

    # Within the grace for a lost answer the first one still works.
    assert (await client.data(REFRESH, token=first))["refreshSession"]["__typename"] == "Session"
    await RefreshToken.all().exclude(used_at=None).update(used_at=now() - REUSE_GRACE - timedelta(seconds=1))
    reused = (await client.data(REFRESH, token=first))["refreshSession"]
    assert reused["__typename"] == "InvalidToken"
    ended = (await client.data(REFRESH, token=renewed["refreshToken"]))["refreshSession"]
    assert ended["__typename"] == "InvalidToken"
    client.token = renewed["accessToken"]
    assert (await client.data(ME))["me"] is None


async def test_signing_out_ends_the_session_at_once(normal: Client) -> None:
    assert (await normal.data(ME))["me"]["email"] == "normal@example.org"
    await normal.data("mutation { signout { message } }")
    assert (await normal.data(ME))["me"] is None


async def test_a_voucher_works_once_and_its_time_is_added_at_the_end(normal: Client) -> None:
    first, second = await create_voucher(days=10), await create_voucher(days=5)
    redeemed = (await normal.data(REDEEM, code=f" {first} "))["redeemVoucher"]
    assert redeemed["tier"] == "PREMIUM"
    assert (await normal.data(REDEEM, code=first))["redeemVoucher"]["__typename"] == "InvalidVoucher"
    await normal.data(REDEEM, code=second)
    account = await Account.get()
    assert account.premium_until is not None
    assert abs(account.premium_until - now() - timedelta(days=15)) < timedelta(minutes=1)
    assert (await normal.data(REDEEM, code="made up"))["redeemVoucher"]["__typename"] == "InvalidVoucher"


async def test_a_password_reset_sets_the_password_and_ends_every_session(
    client: Client, normal: Client
) -> None:
    request = "mutation ($email: String!) { requestPasswordReset(email: $email) { __typename } }"
    for email in ("normal@example.org", "nobody@example.org"):
        assert await client.data(request, email=email) == {
            "requestPasswordReset": {"__typename": "PasswordResetRequested"}
        }
    account = await Account.get()
    addressed = await Letter.filter(kind=LetterKind.RESET_PASSWORD).order_by("created_at")
    assert [letter.account_id for letter in addressed] == [account.id, None]
    token = await mailed_token(account, TokenPurpose.RESET_PASSWORD)
    weak = await client.data(RESET, token=token, password="short")
    assert weak["resetPassword"]["__typename"] == "InvalidInput"
    done = await client.data(RESET, token=token, password="a brand new password")
    assert done["resetPassword"]["__typename"] == "Account"
    assert (await normal.data(ME))["me"] is None
    signed_in = await client.data(SIGNIN, email="normal@example.org", password="a brand new password")
    assert signed_in["signin"]["__typename"] == "Session"


async def test_a_reset_link_works_once_in_its_time_and_for_nothing_else(
    client: Client, new_account: Any
) -> None:
    account = await new_account("a@example.org", email_verified_at=None)

    async def outcome(token: str) -> str:
        answer = await client.data(RESET, token=token, password="a brand new password")
        kind: str = answer["resetPassword"]["__typename"]
        return kind

    expired = await mailed_token(account, TokenPurpose.RESET_PASSWORD, minutes=-1)
    assert await outcome(expired) == "InvalidToken"
    verifying = await mailed_token(account, TokenPurpose.VERIFY_EMAIL)
    assert await outcome(verifying) == "InvalidToken"
    first = await mailed_token(account, TokenPurpose.RESET_PASSWORD)
    assert (await client.data(VERIFY, token=first))["verifyEmail"]["__typename"] == "InvalidToken"
    second = await mailed_token(account, TokenPurpose.RESET_PASSWORD)
    assert await outcome(first) == "InvalidToken"
    stored = {token.hash for token in await EmailToken.all()}
    assert not stored & {expired, verifying, first, second}
    assert await outcome(second) == "Account"
    assert await outcome(second) == "InvalidToken"


async def test_a_password_that_is_the_address_is_refused_and_the_reset_link_stays_good(
    client: Client, new_account: Any
) -> None:
    account = await new_account("somebody@example.org")
    token = await mailed_token(account, TokenPurpose.RESET_PASSWORD)
    refused = await client.data(RESET, token=token, password="Somebody2026")
    assert refused["resetPassword"]["__typename"] == "InvalidInput"
    assert (await Account.get()).password_hash == "-"
    done = await client.data(RESET, token=token, password="a brand new password")
    assert done["resetPassword"]["__typename"] == "Account"


async def test_of_ten_who_follow_a_link_at_once_one_gets_in(client: Client, new_account: Any) -> None:
    token = await mailed_token(await new_account(email_verified_at=None), TokenPurpose.VERIFY_EMAIL)
    answers = await asyncio.gather(*(client.data(VERIFY, token=token) for _ in range(10)))
    kinds = sorted(answer["verifyEmail"]["__typename"] for answer in answers)
    assert kinds == ["Account"] + ["InvalidToken"] * 9


@pytest.mark.parametrize("token", ["x", "e30.e30.e30", "a b"])
async def test_a_forged_token_is_nobody(client: Client, token: str) -> None:
    client.token = token
    assert (await client.data(ME))["me"] is None
