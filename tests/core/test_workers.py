"""The workers as an api process remembers them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from core.messages import Heartbeat
from core.queue import Queue, Workers
from core.queue.topology import WORKERS_BUCKET

NewWorker = Callable[..., Awaitable[Heartbeat]]


async def test_what_was_read_is_remembered_for_a_while(queue: Queue, new_worker: NewWorker) -> None:
    remembering, fresh = Workers(queue=queue, remembered=600), Workers(queue=queue, remembered=0)
    first = await new_worker("w1")
    assert list(await remembering.recent()) == [first]
    second = await new_worker("w2")
    assert list(await remembering.recent()) == [first]
    assert list(await fresh.recent()) == [first, second]


async def test_many_who_ask_at_once_are_answered_by_one_reading(
    queue: Queue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = 0
    read = queue.workers

    async def counted() -> list[Heartbeat]:
        nonlocal readings
        readings += 1
        return await read()

    monkeypatch.setattr(queue, "workers", counted)
    await new_worker()
    workers = Workers(queue=queue, remembered=600)
    answers = await asyncio.gather(*(workers.recent() for _ in range(50)))
    assert {len(answer) for answer in answers} == {1}
    assert readings == 1


async def test_a_heartbeat_of_another_version_is_passed_over(queue: Queue, new_worker: NewWorker) -> None:
    beat, understood = await new_worker("w1"), await new_worker("w2")
    bucket = await queue._js.key_value(WORKERS_BUCKET)
    await bucket.put(beat.worker, beat.encode().replace(b'"version":1', b'"version":2'))
    assert list(await Workers(queue=queue).recent()) == [understood]


async def test_without_a_broker_no_workers_are_known(queue: Queue, new_worker: NewWorker) -> None:
    await new_worker()
    await queue.close()
    assert list(await Workers(queue=queue).recent()) == []
