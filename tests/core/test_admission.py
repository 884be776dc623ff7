"""Requests of several customers, admitted in one statement."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from tortoise import connections

from core.accounts.limits import pictures_key
from core.clock import now
from core.generations import GenerationRequest
from core.lifecycle import Delivery, ImageFormat, Scheduler, Tier
from core.models import Account, Generation, SessionFamily
from core.repository.admission import Admissions, Bounds, Request
from core.repository.rate_limits import forget_restored
from core.settings import DatabaseSettings

NewAccount = Callable[..., Awaitable[Account]]


@asynccontextmanager
async def another_transaction(database: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """On a connection of its own."""
    connection = await asyncpg.connect(database.database_url.get_secret_value())
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


def columns_of(generation: Generation) -> dict[str, object]:
    return {name: getattr(generation, name) for name in Generation._meta.db_fields}


async def request_of(account: Account, *, key: str | None = None, most_open: int = 10) -> Request:
    asked = GenerationRequest(prompt=f"of {account.email}", idempotency_key=key)
    session = await SessionFamily.create(account=account)
    columns: dict[str, Any] = {
        **asked.model_dump(include={"prompt", "negative_prompt", "count", "idempotency_key"}),
        "model": "darkroom-demo",
        "width": 64,
        "height": 64,
        "steps": 1,
        "guidance_scale": 1.0,
        "seed": 1,
        "scheduler": Scheduler.DDIM,
        "format": ImageFormat.PNG,
        "request_fingerprint": asked.fingerprint(),
        "request_id": "",
        "traceparent": None,
    }
    return Request(
        session_id=session.id,
        account_id=account.id,
        delivery=None,
        bounds=Bounds(
            most_open=dict.fromkeys(Tier, most_open),
            cost=dict.fromkeys(Tier, timedelta(minutes=1)),
            pictures_key=pictures_key(account.id),
        ),
        columns=columns,
    )


async def test_each_gets_what_its_own_account_may(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    premium = await new_account("premium@example.org", premium_until=now() + timedelta(days=1))
    normal = await new_account("normal@example.org")
    full = await new_account("full@example.org")
    unproven = await new_account("unproven@example.org", email_verified_at=None)
    signed_out = await request_of(normal)
    await SessionFamily.filter(id=signed_out.session_id).update(ended_at=now())
    stranger = await request_of(await new_account("stranger@example.org"))
    await SessionFamily.filter(id=stranger.session_id).update(account_id=premium.id)
    requests = [
        await request_of(premium),
        await request_of(normal),
        await request_of(full, most_open=0),
        await request_of(unproven),
        stranger,
    ]
    admissions = Admissions()
    one, two, refused, unknown, foreign = await asyncio.gather(*map(admissions.admit, requests))
    assert await admissions.admit(signed_out) is None
    assert foreign is None
    assert one is not None
    assert two is not None
    assert (one.tier, one.delivery) == (Tier.PREMIUM, Delivery.DOWNLOAD)
    assert (two.tier, two.delivery) == (Tier.NORMAL, Delivery.EMAIL)
    assert refused is not None
    assert refused.generation is None
    assert unknown is not None
    assert (unknown.verified, unknown.generation) == (False, None)
    made = [admission.generation for admission in (one, two) if admission.generation is not None]
    rows = await Generation.all()
    assert {row.id: columns_of(row) for row in made} == {row.id: columns_of(row) for row in rows}
    assert {row.account_id for row in made} == {premium.id, normal.id}


async def test_an_account_that_is_locked_keeps_no_other_waiting(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    busy, free = await new_account("busy@example.org"), await new_account("free@example.org")
    requests, admissions = [await request_of(busy), await request_of(free)], Admissions()
    async with another_transaction(database) as other_process:
        await other_process.execute("SELECT FROM account WHERE id = $1 FOR UPDATE", busy.id)
        waiting, other = (asyncio.create_task(admissions.admit(one)) for one in requests)
        admitted = await asyncio.wait_for(other, 10)
        assert admitted is not None
        assert admitted.generation is not None
        assert not waiting.done()
    admitted = await asyncio.wait_for(waiting, 10)
    assert admitted is not None
    assert admitted.generation is not None


async def test_a_key_that_two_processes_use_at_the_same_moment_spoils_nobody_elses_request(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    accounts = [await new_account(f"{number}@example.org") for number in range(6)]
    processes = [Admissions() for _ in range(3)]
    for turn in range(5):
        requests = [await request_of(account, key=f"turn {turn}", most_open=100) for account in accounts]
        found = await asyncio.gather(
            *(process.admit(request) for request in requests for process in processes), return_exceptions=True
        )
        for account in accounts:
            assert await Generation.filter(account=account, idempotency_key=f"turn {turn}").count() == 1
        accepted = [one for one in found if getattr(one, "generation", None)]
        assert len(accepted) == len(accounts)


async def test_forgetting_does_not_wait_for_what_is_being_spent(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    spend = "INSERT INTO rate_limit (key, restored_at) VALUES ($1, now() - interval '1 hour')"
    for key in ("held", "over"):
        await connections.get("default").execute_query(spend, [key])
    async with another_transaction(database) as other_process:
        await other_process.execute("UPDATE rate_limit SET restored_at = now() WHERE key = 'held'")
        assert await asyncio.wait_for(forget_restored(), 10) == 1
