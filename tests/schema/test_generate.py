import asyncio
from typing import Any

import pytest

from core.lifecycle import GenerationState
from core.messages import MAX_SEED
from core.models import Generation
from core.queue import Lane, Queue
from tests.graphql_client import Client

GENERATE = """
mutation ($input: GenerateInput!) {
  generate(input: $input) {
    __typename
    ... on Generation {
      id prompt negativePrompt model width height steps guidanceScale seed count scheduler format
      tier delivery state queuePosition estimatedFinishAt images { url }
    }
    ... on InvalidInput { fields { field message } }
    ... on QuotaExceeded { limit }
    ... on UserError { message }
  }
}
"""
CANCEL = """
mutation ($id: ID!) {
  cancelGeneration(id: $id) { __typename ... on Generation { id state } ... on UserError { message } }
}
"""


async def generate(client: Client, **fields: Any) -> dict[str, Any]:
    data = await client.data(GENERATE, input={"prompt": "a red house", **fields})
    result: dict[str, Any] = data["generate"]
    return result


async def test_a_premium_request_takes_the_defaults_and_is_queued_for_the_workers(
    premium: Client, queue: Queue
) -> None:
    made = await generate(premium)
    assert made["__typename"] == "Generation"
    assert (made["state"], made["tier"], made["delivery"]) == ("QUEUED", "PREMIUM", "DOWNLOAD")
    assert (made["width"], made["height"], made["steps"], made["model"]) == (128, 128, 20, "darkroom-demo")
    assert made["queuePosition"] == 1
    assert 0 <= made["seed"] <= MAX_SEED
    assert await queue.depth(Lane.PREMIUM) == 1
    assert await queue.depth(Lane.NORMAL) == 0
    async with asyncio.timeout(5):
        while (await Generation.get()).published_at is None:  # noqa: ASYNC110 - the row tells nobody
            await asyncio.sleep(0.05)


async def test_a_normal_request_waits_for_its_window_and_goes_by_email(normal: Client, queue: Queue) -> None:
    made = await generate(normal)
    assert (made["tier"], made["delivery"]) == ("NORMAL", "EMAIL")
    assert await queue.depth(Lane.NORMAL) == 1


async def test_download_on_the_normal_tier_needs_premium_and_writes_nothing(normal: Client) -> None:
    refused = await generate(normal, delivery="DOWNLOAD")
    assert refused["__typename"] == "PremiumRequired"
    assert await Generation.all().count() == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "   "}, "prompt"),
        ({"prompt": "x" * 1001}, "prompt"),
        ({"prompt": "a\u0000b"}, "prompt"),
        ({"negativePrompt": "x" * 1001}, "negativePrompt"),
        ({"width": 100}, "width"),
        ({"width": 56}, "width"),
        ({"height": 264}, "height"),
        ({"steps": 0}, "steps"),
        ({"steps": 51}, "steps"),
        ({"guidanceScale": -0.1}, "guidanceScale"),
        ({"guidanceScale": 20.5}, "guidanceScale"),
        ({"seed": -1}, "seed"),
        ({"count": 0}, "count"),
        ({"count": 5}, "count"),
        ({"model": "no-such-model"}, "model"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotencyKey": "k" * 129}, "idempotencyKey"),
    ],
)
async def test_a_field_outside_its_limits_is_named_with_its_limit(
    premium: Client, queue: Queue, fields: dict[str, Any], field: str
) -> None:
    refused = await generate(premium, **fields)
    assert refused["__typename"] == "InvalidInput"
    assert [problem["field"] for problem in refused["fields"]] == [field]
    assert refused["fields"][0]["message"]
    assert await Generation.all().count() == 0
    assert await queue.depth(Lane.PREMIUM) == 0


async def test_every_refused_field_is_named_at_once(premium: Client) -> None:
    refused = await generate(premium, prompt="", width=7, steps=1000)
    assert [problem["field"] for problem in refused["fields"]] == ["prompt", "width", "width", "steps"]


async def test_the_same_idempotency_key_gives_the_same_generation_and_one_job(
    premium: Client, queue: Queue
) -> None:
    first = await generate(premium, idempotencyKey="once")
    second = await generate(premium, idempotencyKey="once")
    assert first["id"] == second["id"]
    assert await Generation.all().count() == 1
    assert await queue.depth(Lane.PREMIUM) == 1


async def test_an_idempotency_key_with_other_parameters_is_an_error(premium: Client) -> None:
    await generate(premium, idempotencyKey="once")
    refused = await generate(premium, idempotencyKey="once", steps=10)
    assert [problem["field"] for problem in refused["fields"]] == ["idempotencyKey"]
    assert await Generation.all().count() == 1


async def test_two_accounts_may_use_the_same_idempotency_key(premium: Client, normal: Client) -> None:
    first = await generate(premium, idempotencyKey="once")
    second = await generate(normal, idempotencyKey="once")
    assert first["id"] != second["id"]


async def test_without_a_token_generate_is_unauthenticated(client: Client) -> None:
    answer = await client.execute(GENERATE, input={"prompt": "a red house"})
    assert answer["data"] is None
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_canceled_generation_leaves_the_queue_for_good(premium: Client, queue: Queue) -> None:
    made = await generate(premium)
    canceled = (await premium.data(CANCEL, id=made["id"]))["cancelGeneration"]
    assert canceled == {"__typename": "Generation", "id": made["id"], "state": "CANCELED"}
    assert await queue.depth(Lane.PREMIUM) == 0
    again = (await premium.data(CANCEL, id=made["id"]))["cancelGeneration"]
    assert again["__typename"] == "AlreadyFinished"
    assert (await Generation.get()).state is GenerationState.CANCELED


async def test_another_accounts_generation_answers_as_an_unknown_one(premium: Client, normal: Client) -> None:
    made = await generate(premium)
    unknown = "R2VuZXJhdGlvbjowMDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDAwMDA"
    query = "query ($id: ID!) { generation(id: $id) { id } node(id: $id) { id } }"
    for generation_id in (made["id"], unknown, "nonsense", "", "Ü"):
        assert await normal.data(query, id=generation_id) == {"generation": None, "node": None}
        canceled = await normal.data(CANCEL, id=generation_id)
        assert canceled["cancelGeneration"]["__typename"] == "NotFound"
    assert (await premium.data(query, id=made["id"]))["node"] == {"id": made["id"]}


async def test_the_quota_counts_what_is_open(premium: Client) -> None:
    for _ in range(100):
        assert (await generate(premium))["__typename"] == "Generation"
    refused = await generate(premium)
    assert (refused["__typename"], refused["limit"]) == ("QuotaExceeded", 100)
