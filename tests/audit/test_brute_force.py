"""Guessing is counted per field, per account and per network address, and refused once its limit is spent."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from core.settings import LimitSettings
from tests.audit.report import Report
from tests.audit.target import Customer, Target, receive
from tests.graphql_client import PASSWORD

ATTEMPTS = LimitSettings().signin_attempts_per_minute
"""What an account and an address may try in a minute; it comes back evenly while a test runs."""


def assert_refused_after(told: Counter[str], tried: str, *, limit: int = ATTEMPTS, seconds: float) -> None:
    """As many as the limit were tried, and those that came back in the meantime; the others were refused."""
    came_back = int(seconds * limit / 60) + 1
    assert limit <= told[tried] <= limit + came_back, told
    assert set(told) == {tried, "RateLimited"}, told


def fields(mutation: str, count: int, *, first: int = 0) -> str:
    """A document that tries many times; ``#`` in the mutation is the number of the attempt."""
    aliased = " ".join(
        f"a{number}: {mutation.replace('#', str(number))}" for number in range(first, first + count)
    )
    return f"mutation {{ {aliased} }}"


SIGNIN = 'signin(input: { email: "nobody@example.org", password: "guess #" }) { __typename }'
OTHER_ACCOUNTS = 'signin(input: { email: "n#@example.org", password: "Password1" }) { __typename }'
VOUCHER = 'redeemVoucher(code: "guess #") { __typename }'
RESET = 'requestPasswordReset(email: "premium@example.org") { __typename }'
GUESSED_RESET = (
    'resetPassword(input: { token: "guess #", password: "long enough a password" }) { __typename }'
)
SIGNUP = 'signup(input: { email: "new#@example.org", password: "long enough a password" }) { __typename }'
CHANGE = 'changePassword(input: { currentPassword: "guess #", newPassword: "long enough" }) { __typename }'


async def guesses(
    target: Target,
    mutation: str,
    *,
    source: str,
    documents: int = 30,
    each: int = 1,
    customer: Customer | None = None,
) -> Counter[str]:
    """What many attempts were answered with, by name of the type or code of the error."""
    told: Counter[str] = Counter()
    headers = customer.headers if customer else {}
    async with target.http(source=source) as http:
        for number in range(documents):
            document = fields(mutation, each, first=number * each)
            answer = (await http.post("/graphql", json={"query": document}, headers=headers)).json()
            told += _kinds(answer)
    return told


def _kinds(answer: dict[str, Any]) -> Counter[str]:
    if answer.get("data"):
        return Counter(one["__typename"] for one in answer["data"].values())
    return Counter(error.get("extensions", {}).get("code") for error in answer["errors"])


async def test_signing_in_by_alias_within_one_document(target: Target, calm: None, report: Report) -> None:
    begun = time.monotonic()
    told = await guesses(target, SIGNIN, source="127.1.0.1", documents=3, each=10)
    assert_refused_after(told, "InvalidCredentials", seconds=time.monotonic() - begun)
    report.add(
        "brute force of signin, by alias",
        "HTTP",
        "RateLimited",
        verdict=f"after {told['InvalidCredentials']}",
    )


async def test_signing_in_by_more_aliases_than_a_document_may_have_tries_none(
    target: Target, calm: None, report: Report
) -> None:
    told = await guesses(target, SIGNIN, source="127.1.0.2", documents=1, each=100)
    assert not {"InvalidCredentials", "Session"} & set(told)
    report.add("brute force of signin, 100 aliases", "HTTP", 400, verdict="refused whole")


async def test_signing_in_across_documents(target: Target, calm: None, report: Report) -> None:
    mine = SIGNIN.replace("nobody", "somebody")
    begun = time.monotonic()
    told = await guesses(target, mine, source="127.1.0.3")
    assert_refused_after(told, "InvalidCredentials", seconds=time.monotonic() - begun)
    report.add("brute force of signin, by document", "HTTP", "RateLimited", verdict=f"after {ATTEMPTS}")


async def test_signing_in_to_one_account_from_many_addresses(
    target: Target, calm: None, report: Report
) -> None:
    told: Counter[str] = Counter()
    begun = time.monotonic()
    mine = SIGNIN.replace("nobody", "botnet-victim")
    for number in range(30):
        told += await guesses(target, mine, source=f"127.2.0.{number + 1}", documents=1)
    assert_refused_after(told, "InvalidCredentials", seconds=time.monotonic() - begun)
    report.add(
        "brute force of one account, many addresses", "HTTP", "RateLimited", verdict=f"after {ATTEMPTS}"
    )


async def test_one_password_for_many_accounts(target: Target, calm: None, report: Report) -> None:
    begun = time.monotonic()
    told = await guesses(target, OTHER_ACCOUNTS, source="127.1.0.4")
    assert_refused_after(told, "InvalidCredentials", seconds=time.monotonic() - begun)
    report.add("password spraying", "HTTP", "RateLimited", verdict=f"after {ATTEMPTS} from one address")


async def test_over_the_websocket_it_counts_as_well(target: Target, calm: None, report: Report) -> None:
    told: Counter[str] = Counter()
    begun = time.monotonic()
    mine = SIGNIN.replace("nobody", "socket-victim")
    async with target.socket(target.normal, source="127.1.0.5") as socket:
        for number in range(30):
            payload = {"query": fields(mine, 1, first=number)}
            await socket.send(json.dumps({"type": "subscribe", "id": str(number), "payload": payload}))
            told += _kinds((await receive(socket))["payload"])
            assert (await receive(socket))["type"] == "complete"
    told += await guesses(target, mine, source="127.1.0.6", documents=1)
    assert_refused_after(told, "InvalidCredentials", seconds=time.monotonic() - begun)
    report.add("brute force of signin", "WebSocket", "RateLimited", verdict=f"after {ATTEMPTS}")


async def test_the_right_password_is_refused_too_once_the_limit_is_spent(
    target: Target, calm: None, report: Report
) -> None:
    """Else the answer would tell that it is the right one."""
    await guesses(target, OTHER_ACCOUNTS, source="127.1.0.7", documents=ATTEMPTS)
    right = SIGNIN.replace("nobody", "normal").replace("guess #", PASSWORD)
    told = await guesses(target, right, source="127.1.0.7", documents=1)
    assert told == {"RateLimited": 1}
    report.add("the right password after too many wrong ones", "HTTP", "RateLimited", verdict="refused")


async def test_an_address_that_a_client_makes_up_does_not_help(
    target: Target, calm: None, report: Report
) -> None:
    """Only a proxy that the operator names may say for whom it asks."""
    told: Counter[str] = Counter()
    begun = time.monotonic()
    async with target.http(source="127.1.0.8") as http:
        for number in range(30):
            headers = {
                "X-Forwarded-For": f"10.0.0.{number}",
                "Forwarded": f"for=10.0.0.{number}",
                "X-Real-IP": "1.1.1.1",
            }
            document = {"query": fields(OTHER_ACCOUNTS, 1, first=number)}
            told += _kinds((await http.post("/graphql", json=document, headers=headers)).json())
    assert_refused_after(told, "InvalidCredentials", seconds=time.monotonic() - begun)
    report.add("addresses made up in headers", "HTTP", "RateLimited", verdict=f"after {ATTEMPTS}")


@pytest.mark.parametrize(
    ("name", "mutation", "wrong", "source"),
    [
        ("vouchers", VOUCHER, "InvalidVoucher", "127.1.0.9"),
        ("the present password", CHANGE, "InvalidCredentials", "127.1.0.10"),
        ("reset tokens", GUESSED_RESET, "InvalidToken", "127.1.0.11"),
    ],
)
async def test_guessing_something_else(
    target: Target, name: str, mutation: str, wrong: str, source: str, calm: None, report: Report
) -> None:
    # Signing in was an attempt on the account as well, which has to come back first.
    await asyncio.sleep(max(0.0, target.guessed.signed_in + 60 / ATTEMPTS - time.monotonic()))
    begun = time.monotonic()
    told = await guesses(target, mutation, source=source, documents=40, customer=target.guessed)
    assert_refused_after(told, wrong, seconds=time.monotonic() - begun)
    report.add(f"brute force of {name}", "HTTP", "RateLimited", verdict=f"after {told[wrong]}")


@pytest.mark.parametrize(
    ("name", "mutation", "accepted", "most"),
    [
        ("sign-ups", SIGNUP, "SignupAccepted", LimitSettings().signup_attempts_per_hour),
        ("reset letters", RESET, "PasswordResetRequested", LimitSettings().reset_requests_per_hour),
    ],
)
async def test_a_flood_of_letters(
    target: Target, name: str, mutation: str, accepted: str, most: int, calm: None, report: Report
) -> None:
    begun = time.monotonic()
    told = await guesses(target, mutation, source=f"127.1.1.{len(name)}", documents=most + 10)
    # In an hour, not in a minute.
    assert_refused_after(told, accepted, limit=most, seconds=(time.monotonic() - begun) / 60)
    report.add(f"flood of {name}", "HTTP", "RateLimited", verdict=f"after {most}")
