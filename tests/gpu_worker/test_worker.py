import asyncio
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import torch
from PIL import Image

from core.catalogue import ModelEntry
from core.clock import now
from core.errors import ServiceUnavailableError
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.messages import Control, Job, Outcome, Parameters, Progress, Started, decode_result
from core.queue import Delivery as Message
from core.queue import Lane, Queue
from core.queue.topology import NORMAL_RESULTS, PREMIUM_JOBS, PREMIUM_RESULTS, ConsumerSpec
from core.storage import Storage
from core.telemetry import UNSTORED_PICTURES
from gpu_worker.assignment import Assignment
from gpu_worker.engine import Engine, Policy
from gpu_worker.engine.model import Model
from gpu_worker.engine.slots import Demand, Slot
from gpu_worker.images import read_parameters
from gpu_worker.pipeline import Placement
from gpu_worker.settings import WorkerSettings
from gpu_worker.worker import Worker


def job(*, tier: Tier = Tier.PREMIUM, **changes: object) -> Job:
    parameters = Parameters(
        prompt="a red house",
        model="darkroom-demo",
        width=64,
        height=64,
        steps=3,
        guidance_scale=4.0,
        seed=1,
        scheduler=Scheduler.DDIM,
    )
    return Job(
        id=uuid4(),
        tier=tier,
        delivery=Delivery.EMAIL,
        parameters=parameters.model_copy(update=changes),
        accepted_at=now(),
        request_id="r1",
    )


@pytest.fixture
async def worker(queue: Queue, storage: Storage, engine: Engine) -> AsyncIterator[Worker]:
    """A running worker with two slots."""
    stop = asyncio.Event()
    settings = WorkerSettings(worker_name="w1", worker_slots=2)
    worker = Worker(settings=settings, queue=queue, storage=storage, engine=engine, device="cpu")
    running = asyncio.create_task(worker.run(stop=stop))
    yield worker
    stop.set()
    await asyncio.wait_for(running, 30)


async def results(queue: Queue, spec: ConsumerSpec, count: int) -> list[Started | Outcome]:
    consumer = queue.consumer(spec)
    found: list[Started | Outcome] = []
    for _ in range(30):
        for delivery in await consumer.fetch(10, wait=1):
            found.append(decode_result(delivery.data))
            await delivery.ack()
        if len(found) >= count:
            return found
    raise AssertionError(f"{len(found)} of {count} results: {found}")


async def held_by(worker: Worker, sent: Job) -> Assignment:
    async with asyncio.timeout(20):
        while True:
            for one in worker._held.values():
                if one.id == sent.id and any(one._steps):
                    return one
            await asyncio.sleep(0.02)


async def gone(queue: Queue, sent: Job) -> None:
    async with asyncio.timeout(20):
        while await queue.position_of(Lane.PREMIUM, sent.id):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.05)


async def delivered_again(worker: Worker, one: Assignment) -> None:
    """As it is when the worker's signs of life have been late, without their wait."""
    before = one.delivery
    await before.nak(delay=0)
    async with asyncio.timeout(20):
        while one.delivery is before and len(worker._held) == 1:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)


async def test_a_job_becomes_stored_pictures_and_a_report(
    worker: Worker, queue: Queue, storage: Storage
) -> None:
    sent = job(count=2, format=ImageFormat.WEBP)
    await queue.publish_job(Lane.PREMIUM, sent)
    started, outcome = await results(queue, PREMIUM_RESULTS, 2)
    assert isinstance(started, Started)
    assert isinstance(outcome, Outcome)
    assert (started.id, started.worker, started.attempt, started.request_id) == (sent.id, "w1", 1, "r1")
    assert outcome.state is GenerationState.SUCCEEDED
    assert [image.seed for image in outcome.images] == [1, 2]
    for image in outcome.images:
        data = await storage.get(image.key)
        assert len(data) == image.byte_size
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (64, 64)
        assert read_parameters(data)["prompt"] == "a red house"
    assert not await queue.position_of(Lane.PREMIUM, sent.id)


async def test_batch_jobs_report_to_the_recorder_of_their_tier(worker: Worker, queue: Queue) -> None:
    sent = job(tier=Tier.NORMAL)
    await queue.publish_job(Lane.BATCH, sent)
    outcome = (await results(queue, NORMAL_RESULTS, 2))[-1]
    assert isinstance(outcome, Outcome)
    assert (outcome.id, outcome.state) == (sent.id, GenerationState.SUCCEEDED)


async def test_a_worker_of_the_batch_tier_leaves_premium_to_others_and_says_so(
    queue: Queue, storage: Storage, engine: Engine
) -> None:
    premium, normal = job(), job(tier=Tier.NORMAL)
    await queue.publish_job(Lane.PREMIUM, premium)
    await queue.publish_job(Lane.BATCH, normal)
    stop = asyncio.Event()
    settings = WorkerSettings(worker_name="w1", worker_slots=2, worker_tiers=(Tier.NORMAL,))
    worker = Worker(settings=settings, queue=queue, storage=storage, engine=engine, device="cpu")
    running = asyncio.create_task(worker.run(stop=stop))
    outcome = (await results(queue, NORMAL_RESULTS, 2))[-1]
    [beat] = await queue.workers()
    stop.set()
    await asyncio.wait_for(running, 30)
    assert (outcome.id, beat.tiers) == (normal.id, (Tier.NORMAL,))
    assert await queue.position_of(Lane.PREMIUM, premium.id)


@pytest.mark.parametrize(
    ("tier", "lane", "held"), [(Tier.PREMIUM, Lane.PREMIUM, 1), (Tier.NORMAL, Lane.BATCH, 2)]
)
async def test_a_worker_takes_no_more_pictures_than_it_has_room_for_but_for_those_of_its_last_job(
    worker: Worker, queue: Queue, tier: Tier, lane: Lane, held: int
) -> None:
    jobs = [job(tier=tier, steps=900, count=2) for _ in range(5)]
    for one in jobs:
        await queue.publish_job(lane, one)
    await held_by(worker, jobs[0])
    # A fetch takes no longer than this.
    await asyncio.sleep(1)
    assert len(worker._held) == held
    for one in jobs:
        await queue.purge_job(lane, one.id)
        await queue.publish_control(Control(id=one.id, action="cancel"))


async def test_a_worker_takes_no_more_jobs_while_the_store_is_far_behind_and_goes_on_when_it_is_not(
    worker: Worker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, put = asyncio.Event(), Storage.put

    async def put_late(storage: Storage, key: str, data: bytes, *, content_type: str) -> None:
        await answers.wait()
        await put(storage, key, data, content_type=content_type)

    monkeypatch.setattr(Storage, "put", put_late)
    jobs = [job() for _ in range(20)]
    for one in jobs:
        await queue.publish_job(Lane.PREMIUM, one)
    unstored = UNSTORED_PICTURES.labels(tier=Tier.PREMIUM.value)._value.get
    async with asyncio.timeout(20):
        while unstored() < 8:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.02)
    # A job takes no longer than this.
    await asyncio.sleep(1)
    # Those are made that were under way when there were eight.
    assert 8 <= len(worker._held) <= 8 + 2 + 2
    answers.set()
    reports = await results(queue, PREMIUM_RESULTS, 2 * len(jobs))
    ends = {one.id: one.state for one in reports if isinstance(one, Outcome)}
    assert ends == dict.fromkeys([one.id for one in jobs], GenerationState.SUCCEEDED)
    await gone(queue, jobs[-1])
    assert unstored() < 8


async def test_steps_are_published_while_it_works(worker: Worker, queue: Queue) -> None:
    sent = job(steps=50, count=2)
    heard: list[Progress] = []
    stop = await queue.subscribe_progress(sent.id, heard.append)
    await queue.publish_job(Lane.PREMIUM, sent)
    await results(queue, PREMIUM_RESULTS, 2)
    await stop()
    steps = [progress.step for progress in heard]
    assert steps == sorted(steps)
    assert all(0 < progress.step <= progress.total_steps == 50 for progress in heard)


async def test_a_job_past_its_deadline_is_refused_with_a_reason(worker: Worker, queue: Queue) -> None:
    late = job(tier=Tier.NORMAL).model_copy(update={"deadline": now() - timedelta(seconds=1)})
    await queue.publish_job(Lane.BATCH, late)
    [outcome] = await results(queue, NORMAL_RESULTS, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.state is GenerationState.FAILED
    assert "window" in (outcome.reason or "")


async def test_a_broken_job_does_not_take_its_batch_down(
    worker: Worker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = job(seed=1), job(seed=666)
    slot = Model.slot

    def fail_for_one(model: Model, demand: Demand) -> Slot:
        if demand.picture.seed == 666:
            raise RuntimeError("out of luck")
        return slot(model, demand)

    monkeypatch.setattr(Model, "slot", fail_for_one)
    monkeypatch.setattr("gpu_worker.worker._RETRY_SECONDS", 0.05)
    for one in (bad, good):
        await queue.publish_job(Lane.PREMIUM, one)
    ends: dict[object, Outcome] = {}
    consumer = queue.consumer(PREMIUM_RESULTS)
    for _ in range(30):
        for delivery in await consumer.fetch(10, wait=1):
            result = decode_result(delivery.data)
            await delivery.ack()
            if isinstance(result, Outcome):
                ends[result.id] = result
        if len(ends) == 2:
            break
    assert ends[good.id].state is GenerationState.SUCCEEDED
    assert ends[bad.id].state is GenerationState.FAILED
    assert "out of luck" not in (ends[bad.id].reason or "")
    assert ends[bad.id].cause == "RuntimeError('out of luck')"
    assert ends[good.id].cause is None
    assert not await queue.position_of(Lane.PREMIUM, bad.id)


async def test_a_job_that_cannot_be_read_ends_in_a_stated_failure(worker: Worker, queue: Queue) -> None:
    unreadable = uuid4()
    await queue._js.publish(f"jobs.premium.{unreadable}", b"{}")
    [outcome] = await results(queue, PREMIUM_RESULTS, 1)
    assert isinstance(outcome, Outcome)
    assert (outcome.id, outcome.state) == (unreadable, GenerationState.FAILED)
    assert outcome.cause == "the job's message cannot be read"
    assert not await queue.position_of(Lane.PREMIUM, unreadable)


async def test_a_job_of_nobody_is_thrown_away_and_the_worker_goes_on(worker: Worker, queue: Queue) -> None:
    await queue._js.publish("jobs.premium.x", b"{}")
    sent = job()
    await queue.publish_job(Lane.PREMIUM, sent)
    reports = await results(queue, PREMIUM_RESULTS, 2)
    assert {report.id for report in reports} == {sent.id}
    assert await queue.depth(Lane.PREMIUM) == 0


async def test_a_job_that_is_watched_sends_previews_and_one_that_is_not_sends_none(
    worker: Worker, queue: Queue
) -> None:
    watched, other = job(steps=200), job(steps=200, seed=2)
    heard: dict[UUID, list[Progress]] = {watched.id: [], other.id: []}
    stops = [await queue.subscribe_progress(one, heard[one].append) for one in heard]
    # Before the job: whoever subscribes to a queued generation asks then.
    await queue.publish_control(Control(id=watched.id, action="preview"))
    for one in (watched, other):
        await queue.publish_job(Lane.PREMIUM, one)
    reports = await results(queue, PREMIUM_RESULTS, 4)
    assert all(report.state is GenerationState.SUCCEEDED for report in reports if isinstance(report, Outcome))
    for stop in stops:
        await stop()
    previews = [one.preview for one in heard[watched.id] if one.preview is not None]
    assert previews
    assert all(one.startswith("data:image/jpeg;base64,") and len(one) < 20_000 for one in previews)
    assert not any(one.preview for one in heard[other.id])


async def test_a_worker_is_known_while_it_is_there(queue: Queue, storage: Storage, engine: Engine) -> None:
    stop = asyncio.Event()
    worker = Worker(
        settings=WorkerSettings(worker_name="w2", worker_slots=3),
        queue=queue,
        storage=storage,
        engine=engine,
        device="cpu",
    )
    running = asyncio.create_task(worker.run(stop=stop))
    for _ in range(100):
        if known := await queue.workers():
            break
        await asyncio.sleep(0.05)
    assert (known[0].worker, known[0].slots, known[0].models) == ("w2", 3, ("darkroom-demo",))
    stop.set()
    await asyncio.wait_for(running, 30)
    assert await queue.workers() == []


@pytest.mark.parametrize("sign", ["in_progress", "put_heartbeat"])
async def test_a_worker_whose_signs_of_life_break_ends_and_says_why(
    queue: Queue, storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError(sign)

    monkeypatch.setattr(queue, "ack_wait", lambda _: 0.3)
    monkeypatch.setattr(queue if sign == "put_heartbeat" else Message, sign, broken)
    settings = WorkerSettings(worker_name="w5", worker_slots=2, worker_drain_seconds=0)
    worker = Worker(settings=settings, queue=queue, storage=storage, engine=engine, device="cpu")
    await queue.publish_job(Lane.PREMIUM, job(steps=500))
    with pytest.raises(RuntimeError, match=sign):
        await asyncio.wait_for(worker.run(stop=asyncio.Event()), 30)


async def test_a_worker_names_the_jobs_that_it_holds(worker: Worker, queue: Queue) -> None:
    sent = job(steps=500)
    await queue.publish_job(Lane.PREMIUM, sent)
    async with asyncio.timeout(20):
        while not any(sent.id in beat.jobs for beat in await queue.workers()):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.1)
    await queue.publish_control(Control(id=sent.id, action="cancel"))


async def test_a_worker_that_is_hurried_hands_its_job_back_before_its_time_is_up(
    queue: Queue, storage: Storage, engine: Engine
) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    settings = WorkerSettings(worker_name="w4", worker_slots=2, worker_drain_seconds=600)
    worker = Worker(settings=settings, queue=queue, storage=storage, engine=engine, device="cpu")
    running = asyncio.create_task(worker.run(stop=stop, hurry=hurry))
    sent = job(steps=900)
    heard = asyncio.Event()
    silence = await queue.subscribe_progress(sent.id, lambda _: heard.set())
    await queue.publish_job(Lane.PREMIUM, sent)
    await asyncio.wait_for(heard.wait(), 20)
    stop.set()
    assert await asyncio.wait({running}, timeout=1.5) == (set(), {running})
    hurry.set()
    await asyncio.wait_for(running, 10)
    await silence()
    [again] = await queue.consumer(PREMIUM_JOBS).fetch(1, wait=5)
    assert again.attempt == 2


async def test_a_worker_whose_engine_breaks_hands_its_job_back_and_says_why(
    queue: Queue,
    storage: Storage,
    demo_entry: ModelEntry,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placement = Placement(torch.device("cpu"), torch.float32)
    engine = Engine(placement=placement, policy=Policy(capacity=2, fill=0, patience=100))
    engine.offer(demo_entry, model_folder)
    settings = WorkerSettings(worker_name="w7", worker_slots=2, worker_drain_seconds=600)
    worker = Worker(settings=settings, queue=queue, storage=storage, engine=engine, device="cpu")
    running = asyncio.create_task(worker.run(stop=asyncio.Event()))
    sent = job(steps=900)
    await queue.publish_job(Lane.PREMIUM, sent)
    await held_by(worker, sent)

    def break_down(_: Engine) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Engine, "_take_tick", break_down)
    with pytest.raises(RuntimeError, match="the device is gone"):
        await asyncio.wait_for(running, 20)
    [again] = await queue.consumer(PREMIUM_JOBS).fetch(1, wait=5)
    assert again.attempt == 2


async def test_a_worker_that_must_leave_hands_its_job_back(
    queue: Queue, storage: Storage, engine: Engine
) -> None:
    stop = asyncio.Event()
    worker = Worker(
        settings=WorkerSettings(worker_name="w3", worker_slots=2, worker_drain_seconds=0),
        queue=queue,
        storage=storage,
        engine=engine,
        device="cpu",
    )
    running = asyncio.create_task(worker.run(stop=stop))
    sent = job(steps=500, count=2)
    heard = asyncio.Event()
    silence = await queue.subscribe_progress(sent.id, lambda _: heard.set())
    await queue.publish_job(Lane.PREMIUM, sent)
    await asyncio.wait_for(heard.wait(), 20)
    stop.set()
    await asyncio.wait_for(running, 30)
    await silence()
    assert await queue.position_of(Lane.PREMIUM, sent.id)


async def test_a_job_whose_beginning_cannot_be_told_leaves_its_slots_and_comes_again(
    worker: Worker, queue: Queue, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, refused = queue.publish_result, asyncio.Event()

    async def publish_later(tier: Tier, report: Started | Outcome) -> None:
        if not refused.is_set():
            refused.set()
            raise ServiceUnavailableError("The broker does not answer.")
        await publish(tier, report)

    monkeypatch.setattr(queue, "publish_result", publish_later)
    sent = job(steps=300)
    await queue.publish_job(Lane.PREMIUM, sent)
    await asyncio.wait_for(refused.wait(), 20)
    await asyncio.sleep(0.2)
    assert engine.progress is None
    started, outcome = await results(queue, PREMIUM_RESULTS, 2)
    assert isinstance(outcome, Outcome)
    assert (started.id, started.attempt) == (sent.id, 2)
    assert (outcome.state, outcome.attempt) == (GenerationState.SUCCEEDED, 2)


async def test_a_canceled_job_frees_its_slot_and_is_reported_by_nobody(
    worker: Worker, queue: Queue, engine: Engine
) -> None:
    gone = job(steps=500)
    heard = asyncio.Event()
    silence = await queue.subscribe_progress(gone.id, lambda _: heard.set())
    await queue.publish_job(Lane.PREMIUM, gone)
    await asyncio.wait_for(heard.wait(), 20)
    await queue.publish_control(Control(id=gone.id, action="cancel"))
    for _ in range(100):
        if not await queue.position_of(Lane.PREMIUM, gone.id) and not engine._slots:
            break
        await asyncio.sleep(0.05)
    await silence()
    assert not engine._slots
    assert not await queue.position_of(Lane.PREMIUM, gone.id)
    sent = job()
    await queue.publish_job(Lane.PREMIUM, sent)
    reports = await results(queue, PREMIUM_RESULTS, 3)
    assert [report.id for report in reports] == [gone.id, sent.id, sent.id]
    assert isinstance(reports[0], Started)


async def test_a_job_that_comes_again_while_it_is_held_is_made_once(worker: Worker, queue: Queue) -> None:
    sent = job(steps=200)
    await queue.publish_job(Lane.PREMIUM, sent)
    await delivered_again(worker, await held_by(worker, sent))
    assert len(worker._held) == 1
    started, outcome = await results(queue, PREMIUM_RESULTS, 2)
    assert isinstance(outcome, Outcome)
    assert (started.attempt, outcome.attempt, outcome.state) == (1, 2, GenerationState.SUCCEEDED)
    await gone(queue, sent)


async def test_a_job_that_came_again_is_canceled_as_any_other(worker: Worker, queue: Queue) -> None:
    sent = job(steps=900)
    await queue.publish_job(Lane.PREMIUM, sent)
    await delivered_again(worker, await held_by(worker, sent))
    await queue.publish_control(Control(id=sent.id, action="cancel"))
    await gone(queue, sent)
    assert [report.kind for report in await results(queue, PREMIUM_RESULTS, 1)] == ["started"]


async def test_a_premium_job_overtakes_a_batch_job_under_way(worker: Worker, queue: Queue) -> None:
    slow, quick = job(tier=Tier.NORMAL, steps=400, count=2), job(steps=3)
    heard = asyncio.Event()
    silence = await queue.subscribe_progress(slow.id, lambda _: heard.set())
    await queue.publish_job(Lane.BATCH, slow)
    await asyncio.wait_for(heard.wait(), 20)
    await queue.publish_job(Lane.PREMIUM, quick)
    done = (await results(queue, PREMIUM_RESULTS, 2))[-1]
    await silence()
    assert isinstance(done, Outcome)
    assert done.state is GenerationState.SUCCEEDED
    assert await queue.position_of(Lane.BATCH, slow.id)
