import json
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.clock import now
from core.errors import InvalidMessageError
from core.lifecycle import Delivery, GenerationState, Scheduler, Tier
from core.messages import MAX_SEED, Heartbeat, Job, Outcome, Parameters, Speed, Started, decode_result

PARAMETERS = Parameters(
    prompt="a red house",
    model="darkroom-demo",
    width=128,
    height=64,
    steps=20,
    guidance_scale=4.0,
    seed=MAX_SEED,
    count=3,
    scheduler=Scheduler.DDIM,
)


def job() -> Job:
    return Job(
        id=uuid4(), tier=Tier.PREMIUM, delivery=Delivery.DOWNLOAD, parameters=PARAMETERS, accepted_at=now()
    )


def test_a_message_comes_back_as_it_was_sent() -> None:
    sent = job()
    assert Job.decode(sent.encode()) == sent


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_prompt_survives_the_wire(prompt: str) -> None:
    sent = job().model_copy(update={"parameters": PARAMETERS.model_copy(update={"prompt": prompt})})
    assert Job.decode(sent.encode()).parameters.prompt == prompt


def test_a_newer_writer_may_add_fields() -> None:
    data = {**json.loads(job().encode()), "mood": "sunny"}
    assert Job.decode(json.dumps(data).encode()).parameters == PARAMETERS


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"version": 2}'])
def test_what_does_not_follow_the_schema_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        Job.decode(data)
    with pytest.raises(InvalidMessageError):
        decode_result(data)


def test_another_version_is_refused() -> None:
    data = {**json.loads(job().encode()), "version": 2}
    with pytest.raises(InvalidMessageError, match="version"):
        Job.decode(json.dumps(data).encode())


@pytest.mark.parametrize("field", [{"width": 100}, {"steps": 0}, {"seed": -1}, {"count": 0}])
def test_a_job_that_no_worker_could_make_cannot_be_written(field: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Parameters.model_validate({**PARAMETERS.model_dump(), **field})


def test_messages_are_frozen() -> None:
    with pytest.raises(ValidationError):
        PARAMETERS.steps = 3  # type: ignore[misc] # that is the point


def test_results_are_told_apart() -> None:
    generation_id = uuid4()
    started = Started(id=generation_id, worker="w", attempt=1, started_at=now())
    outcome = Outcome(
        id=generation_id, worker="w", attempt=1, state=GenerationState.FAILED, reason="x", finished_at=now()
    )
    assert decode_result(started.encode()) == started
    assert decode_result(outcome.encode()) == outcome


def test_seeds_of_several_pictures_wrap_at_the_end_of_the_range() -> None:
    assert [PARAMETERS.seed_of(index) for index in range(3)] == [MAX_SEED, 0, 1]


def test_a_refusal_names_the_field_and_never_quotes_the_prompt() -> None:
    data = json.loads(job().encode())
    data["parameters"]["width"] = 100
    with pytest.raises(InvalidMessageError, match=r"parameters\.width") as refused:
        Job.decode(json.dumps(data).encode())
    assert "a red house" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_heartbeat_without_speeds_is_one_of_a_worker_that_has_measured_nothing() -> None:
    beat = Heartbeat(worker="w1", models=("m",), device="cpu", slots=4, started_at=now(), beat_at=now())
    data = json.loads(beat.encode())
    del data["speeds"]
    assert Heartbeat.decode(json.dumps(data).encode()) == beat


@pytest.mark.parametrize("nothing", [0, -1, float("nan"), float("inf")])
def test_a_speed_is_a_number_above_zero(nothing: float) -> None:
    with pytest.raises(ValidationError):
        Speed(model="m", megapixel_steps_per_second=nothing, seconds_per_step=1)
    with pytest.raises(ValidationError):
        Speed(model="m", megapixel_steps_per_second=1, seconds_per_step=nothing)
