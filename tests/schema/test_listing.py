import base64
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from core.clock import now
from core.lifecycle import GenerationState
from core.messages import Heartbeat, Speed
from core.models import Generation
from tests.graphql_client import Client

NewWorker = Callable[..., Awaitable[Heartbeat]]

GENERATE = "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"
LIST = """
query ($first: Int!, $after: String) {
  generations(first: $first, after: $after) {
    edges { cursor node { id prompt images { url } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


async def make(client: Client, count: int) -> None:
    for number in range(count):
        await client.data(GENERATE, input={"prompt": f"house {number}"})


def prompts(page: dict[str, Any]) -> list[str]:
    return [edge["node"]["prompt"] for edge in page["edges"]]


async def test_pages_follow_one_another_newest_first_and_stay_true_as_rows_come(premium: Client) -> None:
    await make(premium, 5)
    first = (await premium.data(LIST, first=2))["generations"]
    assert prompts(first) == ["house 4", "house 3"]
    assert first["pageInfo"]["hasNextPage"]
    await premium.data(GENERATE, input={"prompt": "a late one"})
    second = (await premium.data(LIST, first=2, after=first["pageInfo"]["endCursor"]))["generations"]
    assert prompts(second) == ["house 2", "house 1"]
    third = (await premium.data(LIST, first=2, after=second["pageInfo"]["endCursor"]))["generations"]
    assert prompts(third) == ["house 0"]
    assert third["pageInfo"]["hasNextPage"] is False


async def test_rows_of_the_same_moment_are_neither_lost_nor_repeated(premium: Client) -> None:
    await make(premium, 4)
    await Generation.all().update(created_at=(await Generation.first()).created_at)  # type: ignore[union-attr] # there are four
    seen: list[str] = []
    after = None
    for _ in range(4):
        page = (await premium.data(LIST, first=1, after=after))["generations"]
        seen += prompts(page)
        after = page["pageInfo"]["endCursor"]
    assert sorted(seen) == ["house 0", "house 1", "house 2", "house 3"]


async def test_the_queue_is_asked_once_for_a_page(
    premium: Client, new_worker: NewWorker, caplog: pytest.LogCaptureFixture
) -> None:
    await make(premium, 5)
    await Generation.filter(prompt="house 1").update(state=GenerationState.RUNNING, started_at=now())
    await Generation.filter(prompt="house 2").update(state=GenerationState.CANCELED)
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=0.001, seconds_per_step=1)
    await new_worker(speeds=(speed,))
    caplog.set_level(logging.DEBUG, "tortoise.db_client")

    page = await premium.data(
        "{ generations { edges { node { state queuePosition estimatedFinishAt } } } }",
    )

    nodes = [edge["node"] for edge in page["generations"]["edges"]]
    assert [(node["state"], node["queuePosition"]) for node in nodes] == [
        ("QUEUED", 3),
        ("QUEUED", 2),
        ("CANCELED", None),
        ("RUNNING", None),
        ("QUEUED", 1),
    ]
    assert [node["estimatedFinishAt"] is not None for node in nodes] == [True, True, False, True, True]
    assert sum("width_bucket" in message for message in caplog.messages) == 1


async def test_an_account_lists_only_its_own(premium: Client, normal: Client) -> None:
    await make(premium, 1)
    assert (await normal.data(LIST, first=10))["generations"]["edges"] == []


WRONG_MOMENTS = ("2026-01-01T00:00:00", "0001-01-01T00:00:00+23:00", "yesterday")
"""Of no time zone, before the first year in ours, and none at all."""


def cursor(moment: str) -> str:
    return base64.urlsafe_b64encode(f"{moment}|{UUID(int=7)}".encode()).decode()


async def test_a_page_size_or_cursor_that_is_wrong_is_a_clear_error(premium: Client) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [({"first": 0}, "first"), ({"first": 101}, "first")]
    wrong += [({"first": 1, "after": after}, "after") for after in ("x", *map(cursor, WRONG_MOMENTS))]
    for variables, field in wrong:
        answer = await premium.execute(LIST, **variables)
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
        assert field in answer["errors"][0]["message"]
