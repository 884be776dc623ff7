"""Premium time that ends while something is under way: what was accepted as premium stays premium."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from api.app import Parts
from core.clock import now
from core.lifecycle import Tier
from core.messages import Job
from core.models import Account, Generation, Letter, LetterKind
from core.outbox import RELAY_AGE
from core.queue import Lane, Queue, topology
from schema.types.node import key_of
from tests.graphql_client import Client
from tests.served_api import succeed

GENERATE = """
mutation ($input: GenerateInput!) {
  generate(input: $input) { __typename ... on Generation { id tier delivery } ... on UserError { message } }
}
"""
GENERATION = "query ($id: ID!) { generation(id: $id) { tier delivery state images { url } } }"
ME = "{ me { tier } }"
CONTENT = b"not really a picture"


async def accept(customer: Client, **fields: Any) -> tuple[str, UUID]:
    """The ids, global and own, of a generation that was accepted."""
    accepted = (await customer.data(GENERATE, input={"prompt": "a fox", **fields}))["generate"]
    assert accepted["tier"] == "PREMIUM"
    key = key_of(accepted["id"], "Generation")
    assert key is not None
    return accepted["id"], key


async def expire(customer: Client) -> None:
    await Account.all().update(premium_until=now() - timedelta(seconds=1))
    assert (await customer.data(ME))["me"]["tier"] == "NORMAL"


async def test_its_job_stays_in_the_premium_lane(premium: Client, queue: Queue) -> None:
    _, key = await accept(premium)
    await expire(premium)
    [message] = await queue.consumer(topology.PREMIUM_JOBS).fetch(1)
    assert message.subject == Lane.PREMIUM.subject(key)
    # By this the worker decides where to report, and so who records.
    assert Job.decode(message.data).tier is Tier.PREMIUM
    assert not await queue.position_of(Lane.NORMAL, key)


async def test_its_job_goes_to_the_premium_lane_when_a_relay_publishes_it_afterwards(
    premium: Client, parts: Parts, queue: Queue
) -> None:
    _, key = await accept(premium)
    # As if the api had died between the commit and the broker.
    await parts.outbox.mark()
    await queue.purge_job(Lane.PREMIUM, key)
    created_at = now() - RELAY_AGE - timedelta(seconds=1)
    await Generation.all().update(published_at=None, created_at=created_at)
    await expire(premium)
    assert await parts.outbox.relay() == 1
    assert await queue.position_of(Lane.PREMIUM, key)
    assert not await queue.position_of(Lane.NORMAL, key)


@pytest.mark.parametrize("finished_first", [True, False])
async def test_its_pictures_are_downloaded(premium: Client, parts: Parts, *, finished_first: bool) -> None:
    global_id, key = await accept(premium)
    if finished_first:
        await succeed(parts, key, CONTENT)
    await expire(premium)
    if not finished_first:
        await succeed(parts, key, CONTENT)
    found = (await premium.data(GENERATION, id=global_id))["generation"]
    assert (found["tier"], found["delivery"], found["state"]) == ("PREMIUM", "DOWNLOAD", "SUCCEEDED")
    response = await premium.http.get(found["images"][0]["url"].removeprefix("http://127.0.0.1:8000"))
    assert (response.status_code, response.content) == (200, CONTENT)


async def test_its_letter_leaves_at_once(premium: Client, parts: Parts) -> None:
    _, key = await accept(premium, delivery="EMAIL")
    await expire(premium)
    await succeed(parts, key, CONTENT)
    assert [letter.kind for letter in await Letter.all()] == [LetterKind.GENERATION_FINISHED]


async def test_what_is_asked_for_afterwards_is_normal(premium: Client) -> None:
    await expire(premium)
    accepted = (await premium.data(GENERATE, input={"prompt": "a fox"}))["generate"]
    assert (accepted["tier"], accepted["delivery"]) == ("NORMAL", "EMAIL")
    refused = await premium.data(GENERATE, input={"prompt": "a fox", "delivery": "DOWNLOAD"})
    assert refused["generate"]["__typename"] == "PremiumRequired"
