"""What a batcher tells operators of the whole service."""

from datetime import timedelta

from prometheus_client import REGISTRY

from batcher.survey import Survey
from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.models import Window, WindowState
from core.outbox import JobOutbox
from core.queue import Queue
from core.queue.topology import PREMIUM_JOBS
from tests.conftest import NewAccount, NewGeneration, NewWorker


def told(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"darkroom_{name}", labels)


async def test_a_survey_tells_what_waits_where_and_who_is_there(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration, new_worker: NewWorker
) -> None:
    account = await new_account()
    outbox = JobOutbox(queue=queue)
    for _ in range(3):
        await outbox.publish(await new_generation(account, tier=Tier.PREMIUM))
    await outbox.mark()
    await queue.consumer(PREMIUM_JOBS).fetch(1)
    await new_generation(account)
    await new_generation(account, state=GenerationState.RUNNING, published_at=now())
    await new_worker("w1", busy=3, slots=4)
    await new_worker("w2", slots=8, tiers=(Tier.NORMAL,))
    opened = now() - timedelta(minutes=5)
    window = await Window.create(tick_at=opened, deadline=now(), state=WindowState.RUNNING, opened_at=opened)
    await Window.filter(id=window.id).update(opened_at=opened)
    began = now().timestamp()

    await Survey(queue=queue).look()

    assert told("stream_messages", stream="PREMIUM") == 3
    assert told("consumer_waiting", stream="PREMIUM", consumer="gpu_worker") == 2
    assert told("consumer_unanswered", stream="PREMIUM", consumer="gpu_worker") == 1
    assert told("workers", tier="PREMIUM") == 1
    assert told("workers", tier="NORMAL") == 2
    assert (told("worker_slots", state="busy"), told("worker_slots", state="free")) == (3, 9)
    assert told("generations_open", tier="PREMIUM", state="QUEUED") == 3
    assert told("generations_open", tier="NORMAL", state="QUEUED") == 1
    assert told("generations_open", tier="NORMAL", state="RUNNING") == 1
    assert told("jobs_unpublished") == 1
    assert 300 <= (told("window_open_seconds") or 0) < 330
    assert (told("surveyed_timestamp_seconds") or 0) >= began
    await window.delete()
    await Survey(queue=queue).look()
    assert told("window_open_seconds") == 0
