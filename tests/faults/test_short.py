"""The short form, for every test run: one of each process dies in a bad place, then quiet."""

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.service import Service

pytestmark = [pytest.mark.acceptance, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_nothing_is_lost_or_doubled_when_one_of_each_process_dies(
    service: Service, new_trial: NewTrial
) -> None:
    charges = {
        "batcher": ["window.mid_release=kill"],
        "batcher-2": ["outcome.before_commit=kill"],
        "gpu_worker": ["outcome.after_publish=kill"],
        "api": ["job.before_publish=kill:3", "outcome.after_record=kill:2"],
    }
    # A letter that a batcher holds when it dies waits for its lease: here there are seldom any at that time.
    async with new_trial(service, mailed=0) as run:
        # Of an earlier window, on a slow machine: each of the two batchers may just have handed one over.
        run.repetitions = 2
        await run.spend({service.nodes[name]: armed for name, armed in charges.items()}, seconds=90)
