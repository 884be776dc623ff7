"""A part of a worker that stands still ends the process, and nothing else does."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import prometheus_client
import pytest
import torch

from core.catalogue import ModelEntry
from core.clock import now
from core.lifecycle import Delivery, Scheduler, Tier
from core.messages import Job, Parameters
from core.queue import Consumer, Lane, Queue
from core.storage import Storage
from gpu_worker.engine import Engine, Policy
from gpu_worker.engine.model import Model
from gpu_worker.pipeline import Placement
from gpu_worker.settings import WorkerSettings
from gpu_worker.watchdog import STATUS, LoopProgress, Watchdog
from gpu_worker.worker import Worker

PATIENCE = 1.5
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ended() -> list[str]:
    """Parts for whose sake the process would have ended."""
    return []


def watchdog(ended: list[str], **parts: Callable[[], int | None]) -> Watchdog:
    return Watchdog(parts, patience=3, every=1, end=lambda part, _: ended.append(part))


def test_a_part_with_something_to_do_has_so_much_patience_and_no_more(ended: list[str]) -> None:
    dog = watchdog(ended, engine=lambda: 7, fetches=iter(range(100)).__next__)
    for _ in range(3):
        dog.look()
    still = prometheus_client.REGISTRY.get_sample_value("darkroom_worker_still_seconds", {"part": "engine"})
    assert (still, ended) == (2, [])
    dog.look()
    assert ended == ["engine"]


def test_a_part_without_anything_to_do_may_rest(ended: list[str]) -> None:
    dog = watchdog(ended, engine=lambda: None)
    for _ in range(10):
        dog.look()
    assert ended == []


def test_patience_begins_anew_with_all_that_is_done(ended: list[str]) -> None:
    did = iter([1, 1, 1, None, 1, 1, 1, 2, 2, 2])
    dog = watchdog(ended, engine=did.__next__)
    for _ in range(10):
        dog.look()
    assert ended == []


async def test_an_event_loop_that_hangs_is_found_by_the_thread_that_looks_on(ended: list[str]) -> None:
    dog = Watchdog({"loop": LoopProgress()}, patience=0.3, every=0.05, end=lambda part, _: ended.append(part))
    with dog.awake():
        await asyncio.sleep(0.6)
        assert ended == []
        time.sleep(0.6)  # noqa: ASYNC251 - what must not happen
        assert ended


async def test_without_patience_nobody_looks() -> None:
    with Watchdog({"engine": lambda: 7}, patience=0).awake():
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_the_end_is_a_status_of_its_own_and_says_where_every_thread_was() -> None:
    program = (
        "import threading\n"
        "def stuck():\n"
        "    threading.Event().wait()\n"
        "threading.Thread(target=stuck).start()\n"
        "from gpu_worker.watchdog import end_process\n"
        "end_process('engine', 300.0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == STATUS
    assert "worker_stands_still" in done.stdout + done.stderr
    assert "in stuck" in done.stderr


# A worker that hangs, and gives signs of life


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What hangs, hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def own_engine(demo_entry: ModelEntry, model_folder: Path) -> Engine:
    """An engine whose thread is nobody else's."""
    placement = Placement(torch.device("cpu"), torch.float32)
    engine = Engine(placement=placement, policy=Policy(capacity=2, fill=0, patience=100))
    engine.offer(demo_entry, model_folder)
    engine.warm_up()
    return engine


def hang_in_a_step(monkeypatch: pytest.MonkeyPatch, released: threading.Event) -> None:
    def advance(*_: object, **__: object) -> None:
        released.wait()
        raise RuntimeError("let go")

    monkeypatch.setattr(Model, "advance", advance)


def hang_in_an_upload(monkeypatch: pytest.MonkeyPatch, released: threading.Event) -> None:
    async def put(*_: object, **__: object) -> None:
        await asyncio.to_thread(released.wait)

    monkeypatch.setattr(Storage, "put", put)


def hang_in_fetches(monkeypatch: pytest.MonkeyPatch, released: threading.Event) -> None:
    async def fetch(*_: object, **__: object) -> list[object]:
        await asyncio.to_thread(released.wait)
        return []

    monkeypatch.setattr(Consumer, "fetch", fetch)


@pytest.mark.parametrize(
    ("hang", "part"),
    [
        (hang_in_a_step, "engine"),
        (hang_in_an_upload, "jobs"),
        (hang_in_fetches, "premium fetches"),
    ],
)
async def test_a_worker_that_beats_and_hangs_ends_for_the_part_that_does(
    queue: Queue,
    storage: Storage,
    own_engine: Engine,
    released: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    hang: Callable[[pytest.MonkeyPatch, threading.Event], None],
    part: str,
) -> None:
    # An empty fetch is to be over well within the patience.
    monkeypatch.setattr("gpu_worker.worker._FETCH_SECONDS", 0.1)
    ended: asyncio.Queue[str] = asyncio.Queue()
    loop, stop, hurry = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    worker = Worker(
        settings=WorkerSettings(worker_name="w1", worker_slots=2, worker_drain_seconds=0),
        queue=queue,
        storage=storage,
        engine=own_engine,
        device="cpu",
    )

    def end(which: str, _: float) -> None:
        loop.call_soon_threadsafe(ended.put_nowait, which)

    dog = Watchdog(worker.parts, patience=PATIENCE, every=PATIENCE / 10, end=end)
    with dog.awake():
        running = asyncio.create_task(worker.run(stop=stop, hurry=hurry))
        if part != "premium fetches":
            await asyncio.sleep(1.2 * PATIENCE)
        assert ended.empty()
        hang(monkeypatch, released)
        await queue.publish_job(Lane.PREMIUM, a_job())
        assert await asyncio.wait_for(ended.get(), 20) == part
    assert [beat.worker for beat in await queue.workers()] == ["w1"]
    released.set()
    stop.set()
    with suppress(RuntimeError):
        await asyncio.wait_for(running, 30)


def a_job() -> Job:
    parameters = Parameters(
        prompt="a red house",
        model="darkroom-demo",
        width=64,
        height=64,
        steps=1,
        guidance_scale=1.0,
        seed=1,
        scheduler=Scheduler.DDIM,
    )
    return Job(
        id=uuid4(), tier=Tier.PREMIUM, delivery=Delivery.EMAIL, parameters=parameters, accepted_at=now()
    )
