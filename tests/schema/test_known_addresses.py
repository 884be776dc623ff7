"""Nobody can tell from outside whether an address has an account: both ways answer and do the same."""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import bcrypt
import pytest

from core.clock import now
from core.models import Account, EmailToken, Letter, TokenPurpose
from tests.graphql_client import PASSWORD, SIGNIN, Client

SIGNUP = """
mutation ($email: String!, $password: String!) {
  signup(input: { email: $email, password: $password }) { __typename ... on SignupAccepted { message } }
}
"""
RESET = """
mutation ($email: String!) {
  requestPasswordReset(email: $email) { __typename ... on PasswordResetRequested { message } }
}
"""
KNOWN, UNVERIFIED, UNKNOWN = "known@example.org", "unverified@example.org", "unknown@example.org"


@dataclass
class Work:
    """What the api did for one request."""

    answer: dict[str, Any]
    statements: list[str] = field(default_factory=list)
    hashes: int = 0
    letters: int = 0


Watch = Callable[[str, dict[str, Any]], Awaitable[Work]]


@pytest.fixture
async def people(new_account: Any, password_hash: str) -> None:
    await new_account(KNOWN, password_hash=password_hash)
    await new_account(UNVERIFIED, password_hash=password_hash, email_verified_at=None)


@pytest.fixture
def watch(client: Client, people: None, caplog: Any, monkeypatch: Any) -> Watch:
    """Sends an operation and notes the statements and hashes on the way, and the letters after it."""
    hashed = []
    for name in ("hashpw", "checkpw"):
        genuine = getattr(bcrypt, name)

        def counted(*arguments: bytes, genuine: Any = genuine) -> Any:
            hashed.append(genuine)
            return genuine(*arguments)

        monkeypatch.setattr(bcrypt, name, counted)

    async def run(document: str, variables: dict[str, Any]) -> Work:
        before = await Letter.all().count()
        hashed.clear()
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="tortoise.db_client"):
            answer = await client.execute(document, **variables)
        # Values apart, the statements as they went to the server.
        statements = [
            re.split(r";?: [\[(]|: None", record.getMessage())[0]
            for record in caplog.records
            if record.name == "tortoise.db_client"
        ]
        return Work(answer, statements, len(hashed), await Letter.all().count() - before)

    return run


def assert_alike(works: list[Work], *, hashes: int, letters: int) -> None:
    first = works[0]
    assert first.statements
    for work in works:
        assert work.answer == first.answer
        assert work.statements == first.statements
        assert (work.hashes, work.letters) == (hashes, letters)


async def test_signing_up_costs_one_hash_and_one_letter_whatever_the_address_is(watch: Watch) -> None:
    works = [
        await watch(SIGNUP, {"email": email, "password": "a good passphrase"})
        for email in (UNKNOWN, UNVERIFIED, KNOWN)
    ]
    assert_alike(works, hashes=1, letters=1)


async def test_asking_for_a_reset_costs_one_letter_whatever_the_address_is(watch: Watch) -> None:
    works = [await watch(RESET, {"email": email}) for email in (UNKNOWN, UNVERIFIED, KNOWN)]
    assert_alike(works, hashes=0, letters=1)


async def test_signing_in_costs_one_hash_whatever_the_address_is(watch: Watch) -> None:
    works = [
        await watch(SIGNIN, {"input": {"email": email, "password": "a wrong password"}})
        for email in (UNKNOWN, UNVERIFIED, KNOWN)
    ]
    assert_alike(works, hashes=1, letters=0)
    assert works[0].answer["data"]["signin"]["__typename"] == "InvalidCredentials"


async def test_an_unverified_address_is_told_only_to_who_knows_the_password(watch: Watch) -> None:
    right = await watch(SIGNIN, {"input": {"email": UNVERIFIED, "password": PASSWORD}})
    assert right.answer["data"]["signin"]["__typename"] == "EmailNotVerified"
    assert right.hashes == 1


@pytest.mark.parametrize("text", ["\x00", "a\x00@example.org", "x" * 300])
async def test_what_can_be_no_address_is_an_unknown_one(watch: Watch, text: str) -> None:
    signin = await watch(SIGNIN, {"input": {"email": text, "password": "\x00 whatever"}})
    assert signin.answer["data"]["signin"]["__typename"] == "InvalidCredentials"
    reset = await watch(RESET, {"email": text})
    assert reset.answer["data"]["requestPasswordReset"]["__typename"] == "PasswordResetRequested"


async def test_signing_up_again_ends_the_link_from_before(client: Client, people: None) -> None:
    account = await Account.get(email=UNVERIFIED)
    await EmailToken.create(hash="-", account=account, purpose=TokenPurpose.VERIFY_EMAIL, expires_at=now())
    await client.data(SIGNUP, email=UNVERIFIED, password="a good passphrase")
    assert not await EmailToken.all().exists()
