"""Customers and operators of the running stack."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stack import PASSWORD, Customer, Stack


@pytest.fixture
async def premium(stack: Stack) -> Customer:
    """The ready-made premium account, signed in at the first api process."""
    return await Customer(stack.urls[0], "premium@darkroom.local").sign_in()


_numbers = itertools.count(1)


@pytest.fixture
async def normal(stack: Stack) -> Customer:
    """A customer who signed up and verified the address by its letter, as people do."""
    customer = Customer(stack.urls[0], f"customer{next(_numbers)}@example.org")
    document = """
    mutation ($email: String!, $password: String!) {
      signup(input: { email: $email, password: $password }) { __typename }
    }
    """
    answer = await customer.execute(document, email=customer.email, password=PASSWORD)
    assert answer["signup"]["__typename"] == "SignupAccepted"
    letter = await stack.letter(customer.email, "verify_email")
    body = letter.get_body(("plain",))
    assert body is not None
    token = body.get_content().split("/verify?token=")[1].split()[0]
    document = "mutation ($token: String!) { verifyEmail(token: $token) { __typename } }"
    assert (await customer.execute(document, token=token))["verifyEmail"]["__typename"] == "Account"
    return await customer.sign_in()


@pytest.fixture
def darkroom(stack: Stack) -> Callable[..., str]:
    """The ``darkroom`` command, as an operator of this stack runs it."""

    def run(*words: str) -> str:
        environment = {**os.environ, "DARKROOM_HOME": str(stack.home)}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("darkroom")), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    return run
