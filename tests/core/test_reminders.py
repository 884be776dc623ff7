"""Who is told that premium time ends soon: once for each time that ends, and nobody who does not want it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from pydantic import SecretStr

from core.accounts.premium import revoke_purchase
from core.accounts.reminders import Reminders, write_reminders
from core.clock import now
from core.errors import InvalidTokenError
from core.models import Account, Letter, LetterKind, Purchase
from core.repository import accounts
from core.repository.database import in_transaction
from core.settings import LinkSettings

NewAccount = Callable[..., Awaitable[Account]]

DAY = timedelta(days=1)
LEAD = 3 * DAY


async def premium(account: Account, *spans: tuple[float, float]) -> list[Purchase]:
    """Purchases of an account, from and to so many days from now, in place of those that it had."""
    moment = now()
    await Purchase.filter(account_id=account.id, reminded_at=None).delete()
    bought = [
        await Purchase.create(
            account=account,
            source="grant",
            reference=f"grant:{uuid4()}",
            days=round(end - start),
            starts_at=moment + start * DAY,
            ends_at=moment + end * DAY,
        )
        for start, end in spans
    ]
    await Account.filter(id=account.id).update(premium_until=bought[-1].ends_at)
    return bought


async def reminded() -> list[Letter]:
    return await Letter.filter(kind=LetterKind.PREMIUM_ENDS_SOON).order_by("created_at")


async def test_a_purchase_is_announced_once_before_its_end(new_account: NewAccount) -> None:
    account = await new_account()
    await premium(account, (-20, 10))
    assert await write_reminders(lead=LEAD) == 0
    [purchase] = await premium(account, (-28, 2))
    await premium(await new_account(), (-27, 3.01))

    assert await write_reminders(lead=LEAD) == 1
    assert await write_reminders(lead=LEAD) == 0

    [letter] = await reminded()
    assert letter.account_id == account.id
    assert letter.parameters == {"ends_at": purchase.ends_at.isoformat()}


async def test_any_number_of_replicas_write_one_letter_each_time(new_account: NewAccount) -> None:
    for _ in range(8):
        await premium(await new_account(), (-28, 2))

    written = await asyncio.gather(*(write_reminders(lead=LEAD) for _ in range(5)))

    assert sum(written) + await write_reminders(lead=LEAD) == 8
    assert len({letter.account_id for letter in await reminded()}) == len(await reminded()) == 8


async def test_time_that_is_short_is_announced_in_its_middle(new_account: NewAccount) -> None:
    account = await new_account()
    await premium(account, (-0.9, 1.1))
    assert await write_reminders(lead=LEAD) == 0
    await premium(account, (-1.1, 0.9))
    assert await write_reminders(lead=LEAD) == 1


async def test_time_that_goes_on_is_announced_when_the_last_of_it_ends(new_account: NewAccount) -> None:
    account = await new_account()
    await premium(account, (-28, 2), (2, 32))
    assert await write_reminders(lead=LEAD) == 0
    await premium(account, (-58, -28), (-28, 2))
    assert await write_reminders(lead=LEAD) == 1
    # Bought more after the reminder: that will end as well.
    await premium(account, (2, 32))
    assert await write_reminders(lead=LEAD) == 0
    await premium(account, (-28, 2))
    assert await write_reminders(lead=LEAD) == 1
    assert len(await reminded()) == 2


@pytest.mark.parametrize("why", ["unwanted", "over", "revoked", "unverified", "closed"])
async def test_nobody_is_reminded_who_does_not_want_it_or_has_nothing_to_lose(
    new_account: NewAccount, link_settings: LinkSettings, why: str
) -> None:
    account = await new_account()
    [purchase] = await premium(account, (-31, -1) if why == "over" else (-28, 2))
    match why:
        case "unwanted":
            await Reminders(link_settings).choose(account.id, wanted=False)
        case "revoked":
            await revoke_purchase(purchase.id)
        case "unverified":
            await Account.all().update(email_verified_at=None)
        case "closed":
            async with in_transaction():
                await accounts.close(await accounts.lock(account.id), at=now())

    assert await write_reminders(lead=LEAD) == 0

    if why == "unwanted":
        await Reminders(link_settings).choose(account.id, wanted=True)
        assert await write_reminders(lead=LEAD) == 1


async def test_a_purchase_that_a_refund_moves_is_not_announced_again(new_account: NewAccount) -> None:
    account = await new_account()
    refunded, announced = await premium(account, (-1, 1), (1, 2.9))
    await Purchase.filter(id=announced.id).update(starts_at=now() - 28 * DAY)
    assert await write_reminders(lead=LEAD) == 1

    await revoke_purchase(refunded.id)

    assert await write_reminders(lead=LEAD) == 0


def token_of(link: str) -> str:
    [token] = parse_qs(urlsplit(link).query)["token"]
    return token


def test_a_link_names_its_account_and_nobody_makes_one_without_the_secret(
    link_settings: LinkSettings,
) -> None:
    reminders, account_id = Reminders(link_settings), uuid4()
    link = reminders.link(account_id)
    assert link.startswith(f"{link_settings.public_url}/unsubscribe?token=")
    token = token_of(link)
    assert reminders.read(token) == account_id

    other = Reminders(
        link_settings.model_copy(update={"download_secret": SecretStr("another secret of ours")})
    )
    forged = [
        token[:-1],
        token + "0",
        uuid4().hex + token[32:],
        token_of(other.link(account_id)),
        "",
        "ü" * 96,
    ]
    for wrong in forged:
        with pytest.raises(InvalidTokenError):
            reminders.read(wrong)


def test_a_link_outlives_the_rotation_of_its_secret(link_settings: LinkSettings) -> None:
    account_id = uuid4()
    token = token_of(Reminders(link_settings).link(account_id))
    rotated = LinkSettings(
        download_secret=SecretStr("the next secret of ours"),
        download_other_secrets=(link_settings.download_secret,),
    )
    assert Reminders(rotated).read(token) == account_id
