"""How often the database is asked."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat, Speed, StoredImage
from core.models import Account, Generation
from core.repository.generations import store_images
from tests.graphql_client import Client

NewGeneration = Callable[..., Awaitable[Generation]]

PAGE = """
query ($first: Int!) {
  generations(first: $first) {
    edges { node { id state images { url seed } queuePosition estimatedFinishAt error { message } } }
  }
}
"""


def image(number: int) -> StoredImage:
    return StoredImage(
        key=f"generations/{number}/1/0.png",
        width=64,
        height=64,
        seed=number,
        content_type="image/png",
        byte_size=3,
        sha256="0" * 64,
    )


async def test_a_page_takes_as_many_statements_whether_it_has_5_generations_or_50(
    premium: Client,
    new_generation: NewGeneration,
    new_worker: Callable[..., Awaitable[Heartbeat]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=1, seconds_per_step=0.1)
    await new_worker(speeds=(speed,))
    account = await Account.get(email="premium@example.org")
    begun = now() - timedelta(minutes=1)
    # In turns, so that small pages have them all too.
    for number in range(50):
        if number % 2:
            await new_generation(account, tier=Tier.PREMIUM)
        else:
            made = await new_generation(
                account,
                tier=Tier.PREMIUM,
                state=GenerationState.SUCCEEDED,
                started_at=begun,
                finished_at=now(),
            )
            await store_images(made.id, [image(number), image(number + 1)])
    caplog.set_level(logging.DEBUG, "tortoise.db_client")

    statements = {}
    for first in (5, 50):
        caplog.clear()
        nodes = [edge["node"] for edge in (await premium.data(PAGE, first=first))["generations"]["edges"]]
        statements[first] = [
            record.message for record in caplog.records if record.name == "tortoise.db_client"
        ]
        assert len(nodes) == first
        assert {len(node["images"]) for node in nodes} == {0, 2}
        waiting = [node for node in nodes if node["state"] == "QUEUED"]
        assert all(node["queuePosition"] and node["estimatedFinishAt"] for node in waiting)

    assert len(statements[5]) == len(statements[50]), statements
    # Who asks, the page, the pictures and the queue.
    assert len(statements[50]) == 4, statements[50]
