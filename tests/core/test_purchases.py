"""Where premium time begins and ends when it is bought, used up and taken back."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from core.accounts.premium import grant_premium, revoke_purchase
from core.clock import now
from core.errors import NotFoundError
from core.models import Account, Letter, LetterKind, Purchase
from core.repository.purchases import purchases_of

NewAccount = Callable[..., Awaitable[Account]]
DAY = timedelta(days=1)


async def bought(account: Account, *days: int) -> list[Purchase]:
    for each in days:
        await grant_premium(account.id, days=each)
    return list(await purchases_of(account.id))


async def pass_time(days: float) -> None:
    """As if everything had been bought so much earlier."""
    for account in await Account.all():
        assert account.premium_until is not None
        account.premium_until -= days * DAY
        await account.save()
    for purchase in await Purchase.all():
        purchase.starts_at -= days * DAY
        purchase.ends_at -= days * DAY
        await purchase.save()


async def spans(account: Account) -> list[tuple[float, float]]:
    """Begin and end of every purchase, in days from now."""
    found = await purchases_of(account.id)
    return [
        (round((each.starts_at - now()) / DAY, 3), round((each.ends_at - now()) / DAY, 3)) for each in found
    ]


async def days_left(account: Account) -> float:
    await account.refresh_from_db()
    assert account.premium_until is not None
    return round((account.premium_until - now()) / DAY, 3)


async def test_purchases_follow_one_another(new_account: NewAccount) -> None:
    account = await new_account()
    await bought(account, 30, 7)
    assert await spans(account) == [(0, 30), (30, 37)]
    assert await days_left(account) == 37


async def test_time_that_has_ended_is_not_extended_from_its_end(new_account: NewAccount) -> None:
    account = await new_account()
    await bought(account, 7)
    await pass_time(10)
    await bought(account, 30)
    assert await spans(account) == [(-10, -3), (0, 30)]
    assert await days_left(account) == 30


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (0, [(-10, 0), (0, 7), (7, 12)]),
        (1, [(-10, 20), (20, 20), (20, 25)]),
        (2, [(-10, 20), (20, 27), (27, 27)]),
    ],
)
async def test_taking_back_ends_what_is_left_and_moves_what_follows_forward(
    new_account: NewAccount, which: int, expected: list[tuple[float, float]]
) -> None:
    account = await new_account()
    purchases = await bought(account, 30, 7, 5)
    await pass_time(10)
    await revoke_purchase(purchases[which].id)
    assert await spans(account) == expected
    assert await days_left(account) == expected[-1][1]


async def test_time_that_was_used_up_stays_used(new_account: NewAccount) -> None:
    account = await new_account()
    first, _ = await bought(account, 7, 30)
    await pass_time(10)
    await revoke_purchase(first.id)
    assert await spans(account) == [(-10, -3), (-3, 27)]
    assert await days_left(account) == 27


async def test_all_purchases_can_be_taken_back_at_once_in_any_order(new_account: NewAccount) -> None:
    account = await new_account()
    purchases = await bought(account, 30, 7, 5)
    await asyncio.gather(*(revoke_purchase(each.id) for each in purchases))
    assert await days_left(account) == 0
    assert await Letter.filter(kind=LetterKind.PREMIUM_REVOKED).count() == 3


async def test_time_bought_after_some_was_taken_back_begins_where_the_rest_ends(
    new_account: NewAccount,
) -> None:
    account = await new_account()
    first, _ = await bought(account, 30, 7)
    await revoke_purchase(first.id)
    await bought(account, 5)
    assert await days_left(account) == 12


async def test_a_purchase_is_taken_back_once_and_only_its_own_account_changes(
    new_account: NewAccount,
) -> None:
    account, other = await new_account(), await new_account()
    [purchase] = await bought(account, 30)
    await bought(other, 30)
    results = await asyncio.gather(*(revoke_purchase(purchase.id) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, NotFoundError) for result in results) == 4
    assert (await days_left(account), await days_left(other)) == (0, 30)
    with pytest.raises(NotFoundError):
        await revoke_purchase(uuid4())
