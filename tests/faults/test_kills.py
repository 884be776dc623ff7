"""SIGKILL at every hook point, at least five times each."""

import asyncio
import statistics
from datetime import datetime

import pytest

from core.failpoints import Failpoint
from tests.faults.conftest import NewTrial
from tests.faults.nodes import Node
from tests.faults.service import Service
from tests.faults.trial import Note, charges_of

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

EACH = 3
"""Kills at each point, of each of the two replicas."""

UNDER_WAY = 8
"""Letters that one process sends at the same time, at most."""

RECORDER = [
    Failpoint.OUTCOME_BEFORE_RECORD,
    Failpoint.OUTCOME_BEFORE_COMMIT,
    Failpoint.OUTCOME_AFTER_RECORD,
    Failpoint.OUTCOME_BEFORE_ACK,
]
POINTS = {
    "api": [Failpoint.JOB_BEFORE_PUBLISH, Failpoint.JOB_AFTER_PUBLISH, *RECORDER],
    "gpu_worker": [
        Failpoint.TICK_BEFORE_STEP,
        Failpoint.PICTURE_BEFORE_UPLOAD,
        Failpoint.PICTURE_AFTER_UPLOAD,
        Failpoint.OUTCOME_BEFORE_PUBLISH,
        Failpoint.OUTCOME_AFTER_PUBLISH,
        Failpoint.JOB_AFTER_ACK,
    ],
    "batcher": [
        *RECORDER,
        Failpoint.WINDOW_BEFORE_OPEN,
        Failpoint.WINDOW_AFTER_OPEN,
        Failpoint.WINDOW_MID_RELEASE,
        Failpoint.WINDOW_BEFORE_SETTLE,
    ],
}
LETTERS = [Failpoint.LETTER_AFTER_CLAIM, Failpoint.LETTER_AFTER_ACCEPT]


async def test_every_point_is_killed_at() -> None:
    named = {point for points in POINTS.values() for point in points}
    assert named | {*LETTERS, Failpoint.RELAY_BEFORE_MARK} == set(Failpoint)


@pytest.mark.parametrize("process", POINTS)
async def test_a_process_dies_at_every_point(service: Service, new_trial: NewTrial, process: str) -> None:
    nodes = service.replicas(process)
    async with new_trial(service) as run:
        charges = {node: charges_of(POINTS[process], times=EACH, rng=run.rng) for node in nodes}
        await run.spend(charges, seconds=400)
        if process == "batcher":
            # Letters under way in a process that dies at another point.
            run.repetitions = 2 * EACH * len(POINTS[process])


async def test_a_relay_dies_before_it_marks_what_it_published(service: Service, new_trial: NewTrial) -> None:
    """Each death of an api before it publishes leaves something to relay."""
    async with new_trial(service) as run:
        batchers, apis = service.replicas("batcher"), service.replicas("api")
        charges = {node: ["relay.before_mark=kill"] * EACH for node in batchers}
        stop = asyncio.Event()
        supplying = asyncio.create_task(_supply(apis, stop))
        try:
            await run.spend(charges, seconds=200)
        finally:
            stop.set()
            await supplying
        run.repetitions = 2 * EACH


async def _supply(apis: list[Node], stop: asyncio.Event) -> None:
    while not stop.is_set():
        for node in apis:
            if not node.charges:
                node.charges.append("job.before_publish=kill:2")
        await apis[0].restart()
        await asyncio.sleep(2)
    for node in apis:
        node.charges.clear()


async def test_a_postman_dies_around_the_sending(service: Service, new_trial: NewTrial) -> None:
    """Only a death between the mail server's 250 and the mark sends letters twice: those that are there."""
    async with new_trial(service, normal=6, premium=1) as run:
        charges = {node: charges_of(LETTERS, times=EACH, rng=run.rng) for node in service.replicas("batcher")}
        kills = await run.spend(charges, seconds=300)
        assert kills[Failpoint.LETTER_AFTER_ACCEPT] >= 2 * EACH
        run.repetitions = kills.total() * UNDER_WAY


async def test_a_job_of_a_killed_worker_runs_again_soon(
    service: Service, new_trial: NewTrial, note: Note
) -> None:
    nodes = service.replicas("gpu_worker")
    async with new_trial(service, normal=0, premium=4) as run:
        for _ in range(5):
            for node in nodes:
                await run.spend({node: ["outcome.before_publish=kill:2"]}, seconds=60)
                await node.until_ready()
    waits = _waits_of_lost_jobs(nodes)
    # A job may die with two workers.
    assert len(waits) >= 5
    note(
        f"a worker killed, its job done by another: median {statistics.median(waits):.2f} s,"
        f" longest {max(waits):.2f} s, of {len(waits)}",
        {},
    )


def _waits_of_lost_jobs(nodes: list[Node]) -> list[float]:
    """Seconds from a worker's death with a job at its end to the same job's end at whichever worker."""
    reached = [line for node in nodes for line in node.lines("failpoint_reached")]
    deaths = {
        line["generation"]: _moment(line) for line in reached if line["point"] == "outcome.before_publish"
    }
    done = [line for node in nodes for line in node.lines("job_done")]
    ends = {line["generation"]: _moment(line) for line in done if line["generation"] in deaths}
    return [ends[job] - deaths[job] for job in ends]


def _moment(line: dict[str, str]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()
