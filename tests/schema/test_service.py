from datetime import timedelta
from unittest.mock import AsyncMock

import pytest

from core.clock import now
from core.errors import ServiceUnavailableError
from core.messages import Heartbeat
from core.queue import Queue
from core.repository import windows
from tests.graphql_client import Client


async def test_the_models_say_what_may_be_asked_of_them(client: Client) -> None:
    data = await client.data("{ models { id license limits { maxSize maxSteps } defaults { steps } } }")
    demo = data["models"][0]
    assert demo["id"] == "darkroom-demo"
    assert demo["limits"]["maxSteps"] >= demo["defaults"]["steps"]


async def test_the_service_knows_its_workers_and_its_next_window(client: Client, queue: Queue) -> None:
    query = "{ service { version windowSchedule nextWindowAt workers { models slots imagesPerSecond } } }"
    empty = (await client.data(query))["service"]
    assert (empty["windowSchedule"], empty["nextWindowAt"], empty["workers"]) == (None, None, [])
    await windows.set_clock("0 */30 * * * *", next_at=now() + timedelta(minutes=3))
    await queue.put_heartbeat(
        Heartbeat(
            worker="w1", models=("darkroom-demo",), device="cpu", slots=4, started_at=now(), beat_at=now()
        )
    )
    full = (await client.data(query))["service"]
    assert full["windowSchedule"] == "0 */30 * * * *"
    assert full["nextWindowAt"] is not None
    assert full["workers"] == [{"models": ["darkroom-demo"], "slots": 4, "imagesPerSecond": 0.0}]


async def test_the_next_window_is_known_while_the_broker_is_away(
    client: Client, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        queue, "workers", AsyncMock(side_effect=ServiceUnavailableError("broker: not connected"))
    )
    await windows.set_clock("0 */30 * * * *", next_at=now() + timedelta(minutes=3))
    assert (await client.data("{ service { nextWindowAt } }"))["service"]["nextWindowAt"] is not None
    answer = await client.execute("{ service { nextWindowAt workers { slots } } }")
    assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"


async def test_a_misspelt_field_gets_no_suggestions(client: Client) -> None:
    answer = await client.execute("{ modelz { id } }")
    assert "Did you mean" not in answer["errors"][0]["message"]


async def test_an_unexpected_error_is_masked_behind_an_id(
    client: Client, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "workers", AsyncMock(side_effect=RuntimeError("a secret of ours")))
    answer = await client.execute("{ service { workers { slots } } }")
    error = answer["errors"][0]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "secret" not in str(answer)
