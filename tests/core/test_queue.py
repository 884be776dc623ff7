import asyncio
from uuid import uuid4

import pytest
from nats.js import api

from core.clock import now
from core.errors import ConfigurationError, ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Heartbeat, Job, Progress, Started
from core.queue import Lane, Queue
from core.queue.topology import CONSUMERS, MAX_DELIVER, PREMIUM_JOBS, PREMIUM_RESULTS, TICKS, WORKERS_STREAM
from core.settings import BrokerSettings
from tests.conftest import free_port
from tests.jobs import job


async def test_a_second_publish_is_refused_while_the_first_is_queued_or_in_flight(queue: Queue) -> None:
    sent = job()
    assert await queue.publish_job(Lane.PREMIUM, sent)
    assert not await queue.publish_job(Lane.PREMIUM, sent)
    consumer = queue.consumer(PREMIUM_JOBS)
    [delivery] = await consumer.fetch(5, wait=2)
    assert not await queue.publish_job(Lane.PREMIUM, sent)
    assert await queue.position_of(Lane.PREMIUM, sent.id)
    await delivery.ack()
    assert not await queue.position_of(Lane.PREMIUM, sent.id)
    assert await queue.publish_job(Lane.PREMIUM, sent)


async def test_a_purged_job_is_never_delivered(queue: Queue) -> None:
    kept, purged = job(), job()
    for one in (purged, kept):
        await queue.publish_job(Lane.PREMIUM, one)
    await queue.purge_job(Lane.PREMIUM, purged.id)
    found = await queue.consumer(PREMIUM_JOBS).fetch(5, wait=1)
    assert [Job.decode(delivery.data).id for delivery in found] == [kept.id]


async def test_a_job_handed_back_comes_again_with_its_attempt_counted(queue: Queue) -> None:
    await queue.publish_job(Lane.PREMIUM, job())
    consumer = queue.consumer(PREMIUM_JOBS)
    [first] = await consumer.fetch(1, wait=2)
    assert first.attempt == 1
    await first.nak(delay=0.05)
    [second] = await consumer.fetch(1, wait=2)
    assert second.attempt == 2


async def test_an_idle_fetch_comes_back_empty(queue: Queue) -> None:
    assert await queue.consumer(PREMIUM_JOBS).fetch(4, wait=0.05) == []


async def test_a_lost_consumer_is_declared_again(queue: Queue) -> None:
    consumer = queue.consumer(PREMIUM_JOBS)
    assert await consumer.fetch(1, wait=0.05) == []
    assert queue.healthy
    await queue._js.delete_consumer(PREMIUM_JOBS.stream, PREMIUM_JOBS.name)
    sent = job()
    await queue.publish_job(Lane.PREMIUM, sent)
    found = []
    for _ in range(4):
        found += await consumer.fetch(1, wait=1)
    assert [Job.decode(delivery.data).id for delivery in found] == [sent.id]
    assert queue.healthy


async def test_a_stream_that_differs_is_an_error_that_names_it_and_the_command(
    queue: Queue, broker_settings: BrokerSettings
) -> None:
    config = (await queue._js.stream_info("PROGRESS")).config
    await queue._js.update_stream(config.evolve(max_age=300))
    with pytest.raises(
        ConfigurationError, match=r"stream PROGRESS: max_age is 300.*darkroom streams --update"
    ):
        await queue.declare()
    await queue.declare(update=True)
    await queue.declare()


async def test_consumers_are_durable_pull_consumers_with_explicit_limits(queue: Queue) -> None:
    for spec in CONSUMERS:
        config = (await queue._js.consumer_info(spec.stream, spec.name)).config
        assert config.ack_policy == api.AckPolicy.EXPLICIT
        assert config.deliver_subject is None
        assert config.max_ack_pending == spec.max_ack_pending
        assert config.ack_wait == spec.ack_wait


async def test_a_late_subscriber_gets_the_last_progress(queue: Queue) -> None:
    generation_id = uuid4()
    assert await queue.last_progress(generation_id) is None
    for step in (1, 2):
        await queue.publish_progress(
            Progress(id=generation_id, state=GenerationState.RUNNING, step=step, total_steps=2)
        )
    # The broker keeps a live status a moment after it has taken it: nobody acknowledges one.
    for _ in range(500):
        last = await queue.last_progress(generation_id)
        if last is not None and last.step == 2:
            break
        await asyncio.sleep(0.02)
    assert last is not None
    assert (last.state, last.step, last.total_steps) == (GenerationState.RUNNING, 2, 2)


async def test_live_status_that_the_broker_lost_is_no_error(queue: Queue) -> None:
    await queue._js.delete_stream("PROGRESS")
    assert await queue.last_progress(uuid4()) is None


async def test_results_reach_only_the_recorder_of_their_tier(queue: Queue) -> None:
    premium = Started(id=uuid4(), worker="w", attempt=1, started_at=now())
    normal = Started(id=uuid4(), worker="w", attempt=1, started_at=now())
    await queue.publish_result(Tier.PREMIUM, premium)
    await queue.publish_result(Tier.NORMAL, normal)
    found = await queue.consumer(PREMIUM_RESULTS).fetch(5, wait=1)
    assert [Started.decode(delivery.data) for delivery in found] == [premium]


async def test_workers_are_known_by_their_heartbeats(queue: Queue) -> None:
    assert await queue.workers() == []
    beat = Heartbeat(worker="w1", models=("m",), device="cpu", slots=4, started_at=now(), beat_at=now())
    await queue.put_heartbeat(beat)
    assert await queue.workers() == [beat]
    await queue.remove_heartbeat("w1")
    assert await queue.workers() == []
    # Asked every second by every api: the server must not keep anything of it.
    assert (await queue._js.stream_info(WORKERS_STREAM)).state.consumer_count == 0


async def test_the_broker_ticks_by_the_schedule_and_keeps_one_tick(queue: Queue) -> None:
    standing = await queue.schedule_window("@every 1s")
    assert await queue.schedule_window("@every 1s") == standing
    await asyncio.sleep(2.5)
    ticks = await queue.consumer(TICKS).fetch(1, wait=1)
    assert "Nats-Schedule-Next" in ticks[0].headers
    # The schedule itself, and the one tick that is kept.
    assert (await queue._js.stream_info("CLOCK")).state.messages == 2
    await ticks[0].ack()
    changed = await queue.schedule_window("@every 1h")
    assert changed.since > standing.since


async def test_an_exhausted_job_leaves_an_advisory(queue: Queue) -> None:
    await queue.publish_job(Lane.PREMIUM, job())
    consumer = queue.consumer(PREMIUM_JOBS)
    for _ in range(MAX_DELIVER):
        [delivery] = await consumer.fetch(1, wait=2)
        await delivery.nak(delay=0.01)
    assert await consumer.fetch(1, wait=0.5) == []
    assert (await queue._js.stream_info("ADVISORIES")).state.messages == 1


async def test_a_broker_that_is_not_there_is_said_within_seconds() -> None:
    with pytest.raises(ServiceUnavailableError, match=r"broker nats://127\.0\.0\.1:1"):
        await Queue.connect(BrokerSettings(nats_url="nats://127.0.0.1:1"), name="tests")


async def test_every_reader_is_waited_for_in_proportion_to_the_setting(
    broker_settings: BrokerSettings,
) -> None:
    queue = await Queue.connect(
        broker_settings.model_copy(update={"nats_ack_wait_seconds": 3}), name="impatient"
    )
    await queue.declare()
    for spec in CONSUMERS:
        config = (await queue._js.consumer_info(spec.stream, spec.name)).config
        assert config.ack_wait == pytest.approx(spec.ack_wait / 5)
        assert queue.ack_wait(spec) == pytest.approx(spec.ack_wait / 5)
    await queue.close()


async def test_one_of_several_brokers_is_enough_to_connect(broker_settings: BrokerSettings) -> None:
    addresses = f"nats://127.0.0.1:{free_port()}, {broker_settings.nats_url}"
    queue = await Queue.connect(broker_settings.model_copy(update={"nats_url": addresses}), name="tests")
    assert queue.healthy
    await queue.close()
