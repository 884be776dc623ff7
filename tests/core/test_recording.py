"""The one way into a terminal state, on a real database and a real broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from core.clock import now
from core.lifecycle import Delivery, GenerationState, Tier
from core.messages import Outcome, Progress, Started, StoredImage
from core.models import Account, Generation, Image, Letter, LetterKind
from core.queue import Queue, topology
from core.recording import Recorder
from core.repository import windows
from core.repository.database import in_transaction
from core.settings import BrokerSettings, DatabaseSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

SUCCEEDED, FAILED, CANCELED = GenerationState.SUCCEEDED, GenerationState.FAILED, GenerationState.CANCELED


def picture(generation: Generation, *, attempt: int = 1) -> StoredImage:
    return StoredImage(
        key=f"generations/{generation.id}/{attempt}/0.png",
        width=64,
        height=64,
        seed=generation.seed,
        content_type="image/png",
        byte_size=100,
        sha256="0" * 64,
    )


def outcome(generation: Generation, *, attempt: int = 1, state: GenerationState = SUCCEEDED) -> Outcome:
    return Outcome(
        id=generation.id,
        worker="w1",
        attempt=attempt,
        state=state,
        images=(picture(generation, attempt=attempt),) if state is SUCCEEDED else (),
        reason=None if state is SUCCEEDED else "Out of paint.",
        finished_at=now(),
    )


async def put_in_window(*generations: Generation) -> None:
    async with in_transaction():
        window = await windows.open_window(tick_at=now(), deadline=now() + timedelta(minutes=30))
        await windows.assign(window, [generation.id for generation in generations])


@asynccontextmanager
async def recording(
    queue: Queue, *, spec: topology.ConsumerSpec = topology.NORMAL_RESULTS
) -> AsyncIterator[None]:
    recorder = Recorder(queue=queue)
    stop = asyncio.Event()
    task = asyncio.create_task(recorder.run(queue.consumer(spec), stop=stop))
    try:
        yield
    finally:
        # Never cancelled: a fetch that is cancelled may swallow it, and go on for ever.
        stop.set()
        await task


async def until_ended(*generations: Generation, seconds: float = 8) -> None:
    ids = [generation.id for generation in generations]
    async with asyncio.timeout(seconds):
        while await Generation.filter(id__in=ids, finished_at=None).exists():  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)


async def test_the_first_terminal_result_stands(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    recorder = Recorder(queue=queue)

    first = await recorder.finish(generation.id, SUCCEEDED, at=now(), images=[picture(generation, attempt=1)])
    for late in (SUCCEEDED, FAILED, CANCELED):
        assert (
            await recorder.finish(generation.id, late, at=now(), images=[picture(generation, attempt=2)])
            is None
        )

    assert first is not None
    row = await Generation.get()
    assert (row.state, row.finished_at) == (SUCCEEDED, first.finished_at)
    assert [image.key for image in await Image.all()] == [f"generations/{generation.id}/1/0.png"]
    assert await Letter.all().count() == 1


async def test_results_at_the_same_moment_are_recorded_once(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    recorders = [Recorder(queue=queue) for _ in range(4)]

    recorded = await asyncio.gather(
        *(
            recorder.finish(generation.id, SUCCEEDED, at=now(), images=[picture(generation, attempt=number)])
            for number, recorder in enumerate(recorders)
        )
    )

    assert sum(each is not None for each in recorded) == 1
    assert await Image.all().count() == 1
    assert await Letter.all().count() == 1


async def test_a_customer_gets_one_letter_when_the_last_jobs_of_a_window_end_together(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    customers = [await new_account() for _ in range(3)]
    generations = [await new_generation(account) for account in customers for _ in range(4)]
    await put_in_window(*generations)
    recorders = [Recorder(queue=queue), Recorder(queue=queue)]

    await asyncio.gather(
        *(
            recorders[number % 2].finish(each.id, SUCCEEDED, at=now(), images=[picture(each)])
            for number, each in enumerate(generations)
        )
    )

    letters = await Letter.all()
    assert sorted(str(letter.account_id) for letter in letters) == sorted(str(each.id) for each in customers)
    assert {letter.kind for letter in letters} == {LetterKind.WINDOW_FINISHED}


async def test_no_letter_is_written_while_a_job_is_open(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    first, second = await new_generation(account), await new_generation(account)
    await put_in_window(first, second)
    recorder = Recorder(queue=queue)

    await recorder.finish(first.id, SUCCEEDED, at=now(), images=[picture(first)])
    assert await Letter.all().count() == 0
    # The other one is canceled: its end completes the letter all the same.
    await recorder.finish(second.id, CANCELED, at=now())
    assert await Letter.all().count() == 1


@pytest.mark.parametrize("put_off", [0, 3])
async def test_the_end_of_a_window_is_logged_and_brings_a_beat_if_jobs_were_put_off(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration, put_off: int
) -> None:
    generations = [await new_generation(await new_account()) for _ in range(3)]
    async with in_transaction():
        window = await windows.open_window(tick_at=now(), deadline=now() + timedelta(minutes=30))
        await windows.assign(window, [generation.id for generation in generations], put_off=put_off)
    await windows.mark_running(window.id, at=now())
    recorder = Recorder(queue=queue)

    with capture_logs() as logs:
        for generation, state in zip(generations, (SUCCEEDED, FAILED, FAILED), strict=True):
            assert await queue.last_beat_at() is None
            assert [line for line in logs if line["event"] == "window_finished"] == []
            error = "Out of paint." if state is FAILED else None
            await recorder.finish(generation.id, state, at=now(), error=error)

    [line] = [line for line in logs if line["event"] == "window_finished"]
    assert line["window"] == str(window.id)
    counted = [line[name] for name in ("jobs", "customers", "succeeded", "failed", "canceled", "put_off")]
    assert counted == [3, 3, 1, 2, 0, put_off]
    assert line["failures"] == {"Out of paint.": 2}
    assert 0 <= line["seconds"] < 60
    assert (await queue.last_beat_at() is not None) == bool(put_off)


async def test_a_window_of_which_a_customer_canceled_everything_brings_no_letter(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    generations = [await new_generation(account) for _ in range(3)]
    await put_in_window(*generations)

    await asyncio.gather(*(Recorder(queue=queue).finish(each.id, CANCELED, at=now()) for each in generations))

    assert await Letter.all().count() == 0
    assert await Generation.filter(state=CANCELED).count() == 3


@pytest.mark.parametrize(
    ("delivery", "state", "kinds"),
    [
        (Delivery.EMAIL, SUCCEEDED, [LetterKind.GENERATION_FINISHED]),
        (Delivery.EMAIL, FAILED, [LetterKind.GENERATION_FINISHED]),
        (Delivery.EMAIL, CANCELED, []),
        (Delivery.DOWNLOAD, SUCCEEDED, []),
        (Delivery.DOWNLOAD, FAILED, []),
    ],
)
async def test_a_premium_generation_brings_a_letter_only_where_it_is_delivered_by_mail(
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    delivery: Delivery,
    state: GenerationState,
    kinds: list[LetterKind],
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM, delivery=delivery)

    await Recorder(queue=queue).finish(generation.id, state, at=now())

    assert [letter.kind for letter in await Letter.all()] == kinds


async def test_what_workers_report_is_recorded_from_start_to_end(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    started = Started(id=generation.id, worker="w1", attempt=1, started_at=now())

    async with recording(queue):
        await queue.publish_result(Tier.NORMAL, started)
        await queue.publish_result(Tier.NORMAL, outcome(generation))
        await until_ended(generation)

    row = await Generation.get()
    assert (row.state, row.started_at) == (SUCCEEDED, started.started_at)
    assert (await Image.get()).generation_id == generation.id


async def test_a_start_that_arrives_after_the_end_changes_nothing(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    recorder = Recorder(queue=queue)
    await recorder.finish(generation.id, FAILED, at=now(), error="Out of paint.")

    await recorder.start(generation.id, at=now())

    row = await Generation.get()
    assert (row.state, row.error) == (FAILED, "Out of paint.")


async def test_whoever_hears_of_the_end_finds_the_pictures_there(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    heard: asyncio.Queue[Progress] = asyncio.Queue()
    stop_listening = await queue.subscribe_progress(generation.id, heard.put_nowait)

    async with recording(queue, spec=topology.PREMIUM_RESULTS):
        await queue.publish_result(Tier.PREMIUM, outcome(generation))
        async with asyncio.timeout(5):
            event = await heard.get()
        assert event.state is SUCCEEDED
        assert (await Generation.get()).state is SUCCEEDED
        assert await Image.all().count() == 1

    await stop_listening()


async def test_the_result_of_a_second_run_is_dropped(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    twice, after = [await new_generation(await new_account()) for _ in range(2)]

    async with recording(queue):
        for attempt in (1, 2):
            await queue.publish_result(Tier.NORMAL, outcome(twice, attempt=attempt))
        await queue.publish_result(Tier.NORMAL, outcome(after))
        await until_ended(twice, after)

    assert sorted(image.key for image in await Image.all()) == sorted(
        f"generations/{each.id}/1/0.png" for each in (twice, after)
    )


async def test_results_that_wait_longer_than_the_broker_does_are_not_delivered_again(
    broker_settings: BrokerSettings,
    database: DatabaseSettings,
    new_account: NewAccount,
    new_generation: NewGeneration,
) -> None:
    impatient = broker_settings.model_copy(update={"nats_ack_wait_seconds": 1})
    queue = await Queue.connect(impatient, name="impatient")
    await queue.declare()
    account = await new_account()
    generations = [await new_generation(account) for _ in range(3)]
    for generation in generations:
        await queue.publish_result(Tier.NORMAL, outcome(generation))

    holder = await asyncpg.connect(database.database_url.get_secret_value())
    locked = holder.transaction()
    await locked.start()
    await holder.execute("SELECT id FROM generation FOR UPDATE")
    async with recording(queue), recording(queue):
        # One of them holds results behind another that takes its time; the other one waits for more.
        await asyncio.sleep(3 * queue.ack_wait(topology.NORMAL_RESULTS))
        await locked.rollback()
        await until_ended(*generations)
    await holder.close()

    info = await queue._js.consumer_info("RESULTS", topology.NORMAL_RESULTS.name)
    assert info.delivered is not None
    assert info.delivered.consumer_seq == len(generations)
    await queue.close()


async def test_a_message_that_is_no_result_and_one_for_nobody_hold_nothing_up(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    unknown = outcome(generation).model_copy(update={"id": uuid4()})
    await queue._publish("results.normal", b"not a result", {})
    await queue.publish_result(Tier.NORMAL, unknown)
    await queue.publish_result(Tier.NORMAL, outcome(generation))

    async with recording(queue):
        await until_ended(generation)

    [advisory] = await queue.consumer(topology.EXHAUSTED).fetch(1)
    assert "MSG_TERMINATED.RESULTS" in advisory.subject


async def test_a_result_waits_for_a_database_that_is_away(
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    database_away: Callable[[], AbstractAsyncContextManager[None]],
) -> None:
    generation = await new_generation(await new_account())

    with capture_logs() as logs:
        async with recording(queue):
            async with database_away():
                await queue.publish_result(Tier.NORMAL, outcome(generation))
                await until_logged(logs, "result_postponed")
            await until_ended(generation)

    assert (await Generation.get()).state is SUCCEEDED


async def test_a_result_that_cannot_be_written_down_holds_up_nobody_and_is_given_up_in_the_end(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.recording._RETRY_SECONDS", 0.02)
    poisoned, other = [await new_generation(await new_account()) for _ in range(2)]
    impossible = outcome(poisoned).model_copy(update={"images": (), "reason": "no text of a database: \x00"})
    await queue.publish_result(Tier.NORMAL, impossible)
    await queue.publish_result(Tier.NORMAL, outcome(other))

    with capture_logs() as logs:
        async with recording(queue):
            await until_ended(other)
            [advisory] = await queue.consumer(topology.EXHAUSTED).fetch(1, wait=5)

    assert b"MSG_TERMINATED" in advisory.subject.encode()
    assert [entry["event"] for entry in logs].count("result_not_recorded") == 5
    assert (await Generation.get(id=poisoned.id)).state is GenerationState.QUEUED


async def until_logged(logs: Sequence[MutableMapping[str, Any]], event: str) -> None:
    async with asyncio.timeout(10):
        while not any(entry["event"] == event for entry in logs):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)


async def test_a_recorder_that_is_told_to_stop_does_so_between_results(
    queue: Queue, database: object
) -> None:
    assert database
    stop = asyncio.Event()
    consumer = queue.consumer(topology.NORMAL_RESULTS)
    recording_ = asyncio.create_task(Recorder(queue=queue).run(consumer, stop=stop))
    await asyncio.sleep(0.1)

    stop.set()

    await asyncio.wait_for(recording_, 2)
