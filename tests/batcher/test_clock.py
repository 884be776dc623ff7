"""Beats that nobody was there for, and beats that never came: one window at recovery, whoever runs."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from batcher import clock as clock_module
from batcher.clock import Clock
from batcher.release import Releaser
from batcher.window import next_tick
from core.clock import now
from core.models import Account, Generation, Window, WindowState
from core.outbox import JobOutbox
from core.queue import Lane, Queue, topology
from core.repository import windows
from core.settings import BrokerSettings, WindowSettings
from infra.local import nats
from tests.batcher.releasing import running
from tests.conftest import free_port, wait_for_port

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

NEVER = WindowSettings(window="@yearly")
LONG_AGO = timedelta(minutes=1)
A_MOMENT = timedelta(milliseconds=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat counts as missed after a second."""
    monkeypatch.setattr(clock_module, "_GRACE", timedelta(seconds=1))
    monkeypatch.setattr(clock_module, "_LOOK_SECONDS", 0.1)


class Broker:
    """A nats-server of the test's own, that can be killed and started again with what it has on its disk."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self._config = folder / "nats.json"
        self._port = port
        account = nats.NatsAccount(name="test", user="test", password="for the tests only")
        nats.write_config(self._config, port=port, store_dir=folder / "jetstream", accounts=[account])
        self.settings = BrokerSettings(
            nats_url=nats.url(port), nats_user=account.user, nats_password=SecretStr(account.password)
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run, and return when it listens."""
        self._process = subprocess.Popen(
            nats.command(self._config).argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self._port, self._process)

    def kill(self) -> None:
        """End at once, unless it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
async def replicas(broker_settings: BrokerSettings, queue: Queue) -> AsyncIterator[list[Queue]]:
    """The connections of two batchers."""
    second = await Queue.connect(broker_settings, name="second replica")
    yield [queue, second]
    await second.close()


@pytest.fixture
def accept(
    new_account: NewAccount, new_generation: NewGeneration
) -> Callable[[Queue, int], Awaitable[list[Generation]]]:
    """Accepts so many generations of a customer and publishes their jobs."""

    async def make(queue: Queue, count: int) -> list[Generation]:
        account = await new_account()
        made = [await new_generation(account) for _ in range(count)]
        for generation in made:
            await JobOutbox(queue=queue).publish(generation)
        return made

    return make


Accept = Callable[[Queue, int], Awaitable[list[Generation]]]


async def eventually(condition: Callable[[], Awaitable[bool]], *, seconds: float = 45) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.02)


async def last_beat(queue: Queue) -> datetime:
    beaten_at = await queue.last_beat_at()
    assert beaten_at is not None
    return beaten_at


async def all_released() -> bool:
    waiting = await Generation.filter(released_at=None).count()
    return not waiting and not await Window.exclude(state=WindowState.RUNNING).exists()


async def test_beats_that_passed_without_a_batcher_become_one_window(
    replicas: list[Queue], accept: Accept
) -> None:
    queue = replicas[0]
    await accept(queue, 5)
    await queue.schedule_window("@every 1s")
    beats: set[datetime | None] = set()

    async def three_beats() -> bool:
        beats.add(await queue.last_beat_at())
        return len(beats - {None}) == 3

    await eventually(three_beats)
    # The broker is left with what it has: none comes any more.
    await queue.schedule_window(NEVER.window)

    async with running(*(Releaser(queue=each, settings=NEVER) for each in replicas)):
        await eventually(all_released)

    [window] = await Window.all()
    assert window.jobs == 5
    assert abs(window.tick_at - await last_beat(queue)) < A_MOMENT


@pytest.mark.parametrize("batcher_is_down_too", [True, False])
async def test_a_beat_that_was_due_while_the_broker_was_down_runs_once_at_recovery(
    tmp_path: Path, accept: Accept, batcher_is_down_too: bool
) -> None:
    broker = Broker(tmp_path)
    broker.start()
    queue = await Queue.connect(broker.settings, name="tests")
    try:
        await queue.declare()
        await accept(queue, 5)
        due = now() + timedelta(seconds=3)
        # Once a day, so that whatever comes soon after was made up for.
        daily = WindowSettings(window=f"{due.second} {due.minute} {due.hour} * * *")
        due = due.replace(microsecond=0)
        async with running(Releaser(queue=queue, settings=daily)):
            await eventually(_noted(due))
            if not batcher_is_down_too:
                broker.kill()
                await asyncio.sleep((due - now()).total_seconds() + 0.5)
                assert await Window.all().count() == 0
                broker.start()
                await eventually(all_released)
        if batcher_is_down_too:
            broker.kill()
            await asyncio.sleep((due - now()).total_seconds() + 0.5)
            broker.start()
            async with running(Releaser(queue=queue, settings=daily)):
                await eventually(all_released)

        [window] = await Window.all()
        assert window.jobs == 5
        assert window.tick_at > due
        clock = await windows.clock()
        assert clock is not None
        assert clock.next_at == due + timedelta(days=1)
    finally:
        await queue.close()
        broker.kill()


def _noted(moment: datetime) -> Callable[[], Awaitable[bool]]:
    async def noted() -> bool:
        clock = await windows.clock()
        return clock is not None and clock.next_at == moment

    return noted


async def test_replicas_that_miss_a_beat_together_make_up_for_it_with_one_window(
    replicas: list[Queue], accept: Accept
) -> None:
    await accept(replicas[0], 5)
    await windows.set_clock(NEVER.window, next_at=now() - LONG_AGO)

    async with running(*(Releaser(queue=each, settings=NEVER) for each in replicas)):
        await eventually(all_released)

    assert [window.jobs for window in await Window.all()] == [5]
    assert await replicas[0].depth(Lane.NORMAL) == 0


async def test_a_beat_that_came_is_not_made_up_for_whoever_has_it(queue: Queue, database: object) -> None:
    assert database
    await queue.beat()
    [held] = await queue.consumer(topology.TICKS).fetch(1, wait=5)
    await windows.set_clock(NEVER.window, next_at=now() - timedelta(seconds=1.2))

    await Clock(queue=queue, settings=NEVER).look()

    assert await last_beat(queue) - held.stored_at < A_MOMENT


async def test_a_schedule_that_the_broker_has_lost_is_set_again(queue: Queue, database: object) -> None:
    assert database
    clock = Clock(queue=queue, settings=NEVER)
    await clock.start(stop=asyncio.Event())
    since = (await queue.schedule_window(NEVER.window)).since
    await queue._js.delete_stream("CLOCK")
    await windows.set_clock(NEVER.window, next_at=now() - LONG_AGO)

    await clock.look()

    assert await queue.last_beat_at() is not None
    standing = await queue._js.get_last_msg("CLOCK", topology.SCHEDULE_SUBJECT)
    assert standing.time is not None
    assert standing.time > since


@pytest.mark.usefixtures("database")
async def test_the_schedule_of_the_replica_that_started_last_stands(replicas: list[Queue]) -> None:
    older, newer = replicas
    clock = Clock(queue=older, settings=NEVER)
    await clock.start(stop=asyncio.Event())
    set_last = WindowSettings(window="@hourly")
    await Clock(queue=newer, settings=set_last).start(stop=asyncio.Event())

    await older.restore()
    assert (await older.keep_schedule(NEVER.window)).expression == set_last.window
    await older.beat()
    [beat] = await older.consumer(topology.TICKS).fetch(1, wait=5)
    await windows.set_clock(NEVER.window, next_at=now() + timedelta(days=30))
    await clock.note(beat)
    noted = await windows.clock()
    assert noted is not None
    assert (noted.expression, noted.next_at) == (
        set_last.window,
        next_tick(set_last.window, since=beat.stored_at, now=now()),
    )

    # As does what it made of the clock, where the broker has lost it.
    await older._js.delete_stream("CLOCK")
    await older.restore()
    assert (await older.keep_schedule(NEVER.window)).expression == set_last.window


async def test_a_missed_beat_is_made_up_for_although_a_stream_differs(queue: Queue, database: object) -> None:
    assert database
    clock = Clock(queue=queue, settings=NEVER)
    await clock.start(stop=asyncio.Event())
    await windows.set_clock(NEVER.window, next_at=now() - LONG_AGO)
    config = (await queue._js.stream_info("PROGRESS")).config
    await queue._js.update_stream(config.evolve(max_age=300))
    try:
        await clock.look()

        assert await queue.last_beat_at() is not None
    finally:
        await queue.declare(update=True)


async def test_a_beat_beside_the_schedule_leaves_what_customers_are_told_as_it_was(
    queue: Queue, accept: Accept
) -> None:
    await accept(queue, 1)
    clock = Clock(queue=queue, settings=NEVER)
    await clock.start(stop=asyncio.Event())
    told = now() + timedelta(minutes=7)
    await windows.set_clock(NEVER.window, next_at=told)

    await queue.beat()
    [beat] = await queue.consumer(topology.TICKS).fetch(1, wait=5)
    await clock.note(beat)

    noted = await windows.clock()
    assert noted is not None
    assert noted.next_at == told


async def test_replicas_on_the_brokers_own_beats_put_every_job_into_one_window(
    replicas: list[Queue], accept: Accept
) -> None:
    settings = WindowSettings(window="@every 1s")
    accepted: list[Generation] = []

    async with running(*(Releaser(queue=each, settings=settings) for each in replicas)):
        for _ in range(8):
            accepted += await accept(replicas[0], 3)
            await asyncio.sleep(0.3)
        await eventually(all_released)

    found = await Window.all()
    assert len(found) >= 2
    assert sum(window.jobs for window in found) == len(accepted)
    assert await replicas[0].depth(Lane.BATCH) == len(accepted)
    assert await replicas[0].depth(Lane.NORMAL) == 0
