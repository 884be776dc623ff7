"""Work that keeps the event loop from everybody else."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from core import telemetry
from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat, Speed
from core.models import Account, Generation
from core.repository.generations import store_images
from core.telemetry import EVENT_LOOP_LAG_SECONDS
from tests.graphql_client import PASSWORD, SIGNIN, Client
from tests.schema.test_statements import PAGE, image

LONGEST_SECONDS = 0.010
TIMES = 7
"""Each operation is done so often, and the least of its longest pieces of work counts: what it has to take,
with warm caches, without garbage being collected, and no other program in the way."""

GENERATE = "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"
ONE = """
query ($id: ID!) { generation(id: $id) { id state prompt images { url } queuePosition estimatedFinishAt } }
"""


class Watch:
    """The processor time of every callback that the event loop runs."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.what = ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs."""
        self.longest, run = 0.0, asyncio.events.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            what = repr(handle)
            began = time.thread_time()
            run(handle)
            if (took := time.thread_time() - began) > self.longest:
                self.longest, self.what = took, what

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.events.Handle, "_run", timed)
            yield


async def longest_piece(operation: Callable[[], Awaitable[Any]]) -> tuple[float, str]:
    """The shortest of the longest callbacks of ``operation``, and which it was."""
    await operation()
    watch, found = Watch(), []
    for _ in range(TIMES):
        with watch.watching():
            await operation()
        found.append((watch.longest, watch.what))
    return min(found)


async def test_the_watch_sees_work_that_keeps_the_event_loop() -> None:
    async def spin() -> None:
        await asyncio.sleep(0)
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    longest, what = await longest_piece(lambda: asyncio.create_task(spin()))
    assert longest > LONGEST_SECONDS
    assert "Task" in what


async def test_no_usual_operation_keeps_the_event_loop_for_more_than_10_ms(
    premium: Client,
    new_generation: Callable[..., Awaitable[Generation]],
    new_worker: Callable[..., Awaitable[Heartbeat]],
) -> None:
    speed = Speed(model="darkroom-demo", megapixel_steps_per_second=1, seconds_per_step=0.1)
    await new_worker(speeds=(speed,))
    account = await Account.get(email="premium@example.org")
    for number in range(100):
        made = await new_generation(
            account,
            tier=Tier.PREMIUM,
            state=GenerationState.SUCCEEDED,
            started_at=now() - timedelta(minutes=1),
            finished_at=now(),
            prompt="p" * 500,
        )
        await store_images(made.id, [image(number)])
    generation_id = (await premium.data(GENERATE, input={"prompt": "a house"}))["generate"]["id"]
    anonymous = Client(http=premium.http, port=premium.port)
    found = {
        name: await longest_piece(operation)
        for name, operation in {
            "sign in": lambda: anonymous.data(
                SIGNIN, input={"email": "premium@example.org", "password": PASSWORD}
            ),
            "generate": lambda: premium.data(GENERATE, input={"prompt": "a house " * 50}),
            "one generation": lambda: premium.data(ONE, id=generation_id),
            "a page of the usual size": lambda: premium.data(PAGE, first=20),
            "the largest page": lambda: premium.data(PAGE, first=100),
            "health": lambda: premium.http.get("/health/ready"),
            "a page for people": lambda: premium.http.get("/verify?token=x"),
        }.items()
    }
    assert {name: one for name, one in found.items() if one[0] > LONGEST_SECONDS} == {}


async def test_the_lag_of_the_event_loop_is_measured() -> None:
    def observed() -> tuple[float, float]:
        samples = {
            one.name: one.value
            for one in next(iter(EVENT_LOOP_LAG_SECONDS.collect())).samples
            if "le" not in one.labels
        }
        return samples["darkroom_event_loop_lag_seconds_count"], samples[
            "darkroom_event_loop_lag_seconds_sum"
        ]

    before = observed()
    async with telemetry.event_loop_measured():
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # noqa: ASYNC251 - what is to be measured
        await asyncio.sleep(0.05)
    count, total = (after - earlier for after, earlier in zip(observed(), before, strict=True))
    assert count >= 1
    assert total >= 0.2
