"""SIGSTOP at hook points for longer than anybody waits: what was given up goes on in two places."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from core.failpoints import Failpoint
from tests.faults.conftest import NewTrial
from tests.faults.nodes import Node
from tests.faults.service import ACK_WAIT, Service

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

POINTS = {
    "gpu_worker": [
        Failpoint.PICTURE_BEFORE_UPLOAD,
        Failpoint.PICTURE_AFTER_UPLOAD,
        Failpoint.OUTCOME_BEFORE_PUBLISH,
        Failpoint.OUTCOME_AFTER_PUBLISH,
    ],
    "api": [Failpoint.JOB_BEFORE_PUBLISH, Failpoint.OUTCOME_BEFORE_RECORD, Failpoint.OUTCOME_AFTER_RECORD],
    "batcher": [
        Failpoint.OUTCOME_BEFORE_COMMIT,
        Failpoint.WINDOW_BEFORE_OPEN,
        Failpoint.WINDOW_AFTER_OPEN,
        Failpoint.WINDOW_MID_RELEASE,
        Failpoint.LETTER_AFTER_CLAIM,
        Failpoint.LETTER_AFTER_ACCEPT,
    ],
}


@pytest.mark.parametrize("process", POINTS)
async def test_a_process_that_slept_past_every_wait_does_no_harm(
    service: Service, new_trial: NewTrial, process: str
) -> None:
    node = service.replicas(process)[1]
    async with new_trial(service) as run:
        for point in POINTS[process]:
            node.charges.append(f"{point}=stop:2")
            # It may come to that point before it has said that it is ready.
            await node.next_life()
            assert await run.until(lambda: _stopped(node), seconds=60), point
            # Past the wait for a job, a result, a window's beat.
            await asyncio.sleep(2.5 * ACK_WAIT)
            node.send(signal.SIGCONT)
            await asyncio.sleep(1)
            run.numbers["pauses"] += 1


@pytest.mark.parametrize("point", [Failpoint.TICK_BEFORE_STEP, Failpoint.OUTCOME_BEFORE_PUBLISH])
async def test_a_worker_that_hangs_ends_itself_and_others_make_its_pictures(
    service: Service, new_trial: NewTrial, point: Failpoint
) -> None:
    """The first is on the engine's thread, and the heartbeats go on; the other is on the event loop."""
    node = service.replicas("gpu_worker")[1]
    before = node.env
    node.env = before | {"DARKROOM_WORKER_STALL_SECONDS": "5"}
    try:
        async with new_trial(service) as run:
            for _ in range(2):
                ends = _ends(node)
                node.charges.append(f"{point}=hang:2")
                await node.next_life()
                assert await run.until(partial(_ends_again, node, ends), seconds=90)
                await node.until_ready()
                run.numbers["workers that hung"] += 1
    finally:
        node.env = before
        await node.restart()


def _ends(node: Node) -> int:
    return len(node.lines("worker_stands_still"))


def _ends_again(node: Node, before: int) -> bool:
    return _ends(node) > before


def _stopped(node: Node) -> bool:
    try:
        return Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
