"""Customers and operators of the running stack."""

from collections.abc import Callable

import pytest

from tests.stack import Customer, Stack


@pytest.fixture
async def premium(stack: Stack) -> Customer:
    """The ready-made premium account, signed in at the first api process."""
    return await Customer(stack.urls[0], "premium@darkroom.local").sign_in()


@pytest.fixture
async def normal(stack: Stack) -> Customer:
    """A customer who signed up and verified the address by its letter, as people do."""
    return await stack.new_customer()


@pytest.fixture
def darkroom(stack: Stack) -> Callable[..., str]:
    """The ``darkroom`` command, as an operator of this stack runs it."""
    return stack.darkroom
