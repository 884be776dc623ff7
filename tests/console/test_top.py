"""`darkroom top` tells operators what is so."""

import io
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest
import typer
from rich.console import Console

from console import standing, top
from console.__main__ import CUSTOMERS, program
from console.standing import Standing
from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.messages import Job, Parameters
from core.models import Letter, LetterKind, LetterState
from core.queue import Lane, Queue
from core.settings import DatabaseSettings
from tests.conftest import NewAccount, NewGeneration, NewWorker
from tests.console.conftest import Darkroom
from tests.stack import Stack


def _shown(found: Standing) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(top.render(found))
    return console.export_text()


async def test_it_counts_queues_workers_letters_and_dead_jobs(
    database: DatabaseSettings,
    queue: Queue,
    new_account: NewAccount,
    new_generation: NewGeneration,
    new_worker: NewWorker,
) -> None:
    account = await new_account()
    began = now() - timedelta(seconds=90)
    waiting = await new_generation(account, tier=Tier.PREMIUM)
    job = Job(
        id=waiting.id,
        tier=waiting.tier,
        delivery=waiting.delivery,
        accepted_at=now(),
        parameters=Parameters(**{name: getattr(waiting, name) for name in Parameters.model_fields}),
    )
    await queue.publish_job(Lane.PREMIUM, job)
    await new_generation(account, tier=Tier.PREMIUM, state=GenerationState.RUNNING, started_at=now())
    await new_generation(account, state=GenerationState.FAILED, cause="exhausted", finished_at=now())
    await new_worker("gpu-1", busy=3, slots=8, images_per_second=2.5, device="cuda")
    for state in (LetterState.PENDING, LetterState.FAILED):
        await Letter.create(
            account=account, kind=LetterKind.VERIFY_EMAIL, message_id=f"<{state}@x>", state=state
        )
    await Letter.filter(state=LetterState.PENDING).update(created_at=began)

    found = await standing.ask(queue)
    assert found.trouble == ()
    told = top.as_object(found)
    assert json.loads(json.dumps(told)) == told
    assert told["queues"] == {"premium": 1, "normal": 0, "batch": 0}
    assert (told["generations"]["premium"]["waiting"], told["generations"]["premium"]["running"]) == (1, 1)
    assert told["premiumWaitSeconds"]["longest"] == pytest.approx(0, abs=5)
    assert told["workers"][0]["images_per_second"] == 2.5
    assert (told["letters"]["waiting"], told["letters"]["failed"], told["deadJobs"]) == (1, 1, 1)
    assert told["letters"]["oldestSeconds"] == pytest.approx(90, abs=20)
    shown = _shown(found)
    for text in ("gpu-1", "cuda", "3 of 8", "2.50", "dead jobs 1", "darkroom job list --dead"):
        assert text in shown


async def test_what_does_not_answer_is_said_and_the_rest_is_shown(
    database_away: Callable[[], AbstractAsyncContextManager[None]],
    database: DatabaseSettings,
    queue: Queue,
    new_worker: NewWorker,
) -> None:
    await new_worker("gpu-1")
    async with database_away():
        found = await standing.ask(queue)
    assert len(found.trouble) == 1
    assert found.letters is None
    shown = _shown(found)
    assert "gpu-1" in shown
    assert f"! {found.trouble[0]}"[:60] in shown


@pytest.mark.acceptance
def test_it_shows_the_running_stack_once_and_as_json(stack: Stack, darkroom: Darkroom) -> None:
    once = darkroom("top", "--once", DARKROOM_HOME=str(stack.home))
    assert once.returncode == 0, once.stderr
    for text in ("PREMIUM", "next window", "gpu_worker", "letters waiting"):
        assert text in once.stdout
    told = json.loads(darkroom("top", "--json", DARKROOM_HOME=str(stack.home)).stdout)
    assert told["workers"][0]["models"] == ["darkroom-demo"]
    assert told["trouble"] == []


def test_customers_and_operators_have_one_program_and_each_loads_only_what_it_needs() -> None:
    def commands(*words: str) -> set[str]:
        return set(typer.main.get_group(program([*words])).commands)

    assert commands() >= {*CUSTOMERS, "top", "migrate"}
    assert commands("generate") == set(CUSTOMERS)
    assert not commands("migrate") & set(CUSTOMERS)
