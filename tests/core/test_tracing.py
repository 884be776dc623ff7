"""Traces: nothing where nobody asked for any, and one trace over messages, rows and processes."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from core import tracing
from core.clock import now
from core.lifecycle import Tier
from core.models import Generation, Letter, LetterKind
from core.otlp import OtlpTracer
from core.outbox import JobOutbox, write_letter
from core.queue import Lane, Queue
from core.queue.topology import NORMAL_JOBS, PREMIUM_JOBS
from core.repository.database import in_transaction
from infra.observability.receiver import ReceivedSpan, Receiver
from tests.conftest import NewAccount, NewGeneration

THEIRS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


@pytest.fixture
def traced(receiver: Receiver) -> Iterator[Receiver]:
    """Traces of this test process are on."""
    tracing.start(OtlpTracer(url=receiver.url, share=1.0, process="test"))
    yield receiver
    tracing.stop()


def sent(receiver: Receiver) -> dict[str, ReceivedSpan]:
    """What has been sent once traces are off again, by name."""
    tracing.stop()
    return {span.name: span for span in receiver.spans}


def test_without_an_address_nothing_is_made_and_nothing_imported() -> None:
    program = """
import sys
from core import telemetry, tracing
from core.settings import TelemetrySettings
telemetry.configure(TelemetrySettings(), process="test")
with tracing.span("work", generation="1") as span:
    span.note(more=1)
    assert tracing.span("other") is span
    assert tracing.place() is None
    assert tracing.headers() == {}
tracing.stop()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_spans_within_one_another_are_one_trace(traced: Receiver) -> None:
    with tracing.span("outer", kind=tracing.Kind.SERVER, darkroom__pictures=2):
        with tracing.span("inner") as inner:
            inner.note(darkroom__steps=20)
            inner.rename("named later")
        tracing.record("over", began=100.0, ended=101.5)
    spans = sent(traced)
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["named later"].parent_id == spans["over"].parent_id == spans["outer"].span_id
    assert spans["outer"].kind == "SERVER"
    assert spans["outer"].attributes == {"darkroom.pictures": "2"}
    assert spans["named later"].attributes == {"darkroom.steps": "20"}
    assert (spans["over"].began, spans["over"].ended) == (100.0, 101.5)


def test_a_place_from_elsewhere_is_gone_on_from_and_another_one_is_linked(traced: Receiver) -> None:
    with tracing.span("theirs", parent=THEIRS):
        pass
    with tracing.span("ours", links=[THEIRS, "nonsense"]):
        pass
    spans = sent(traced)
    theirs = THEIRS.split("-")
    assert (spans["theirs"].trace_id, spans["theirs"].parent_id) == (theirs[1], theirs[2])
    assert spans["ours"].trace_id != theirs[1]
    assert spans["ours"].links == (theirs[1],)


def test_of_an_error_its_class_is_told_and_not_what_it_says(traced: Receiver) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("failing"):
        raise ValueError("a secret prompt")
    with pytest.raises(asyncio.CancelledError), tracing.span("left"):
        raise asyncio.CancelledError
    spans = sent(traced)
    assert spans["failing"].failed
    assert spans["failing"].attributes == {"error.type": "ValueError"}
    assert not spans["left"].failed


def test_what_is_not_sampled_where_it_begins_is_not_sampled_anywhere(receiver: Receiver) -> None:
    tracing.start(OtlpTracer(url=receiver.url, share=0.0, process="test"))
    with tracing.span("begins"):
        place = tracing.place()
    tracing.stop()
    assert place is not None
    assert int(place[-2:], 16) & 1 == 0
    tracing.start(OtlpTracer(url=receiver.url, share=1.0, process="another"))
    with tracing.span("goes on", parent=place):
        pass
    assert sent(receiver) == {}


def test_a_process_whose_collector_is_away_works_and_ends_soon() -> None:
    tracing.start(OtlpTracer(url="http://127.0.0.1:9/v1/traces", share=1.0, process="test"))
    with tracing.span("work"):
        pass
    began = time.monotonic()
    tracing.stop()
    assert time.monotonic() - began < 8


async def test_a_job_carries_the_trace_in_which_it_was_asked_for_also_when_a_relay_publishes_it(
    traced: Receiver, queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    with tracing.span("asked"):
        place = tracing.place()
        at_once = await new_generation(account, tier=Tier.PREMIUM, traceparent=place)
        left = await new_generation(account, traceparent=place)
    outbox = JobOutbox(queue=queue)
    await outbox.publish(at_once)
    await outbox.mark()
    await Generation.filter(id=left.id).update(created_at=now() - timedelta(minutes=1))
    assert await outbox.relay() == 1
    for spec in (PREMIUM_JOBS, NORMAL_JOBS):
        [delivery] = await queue.consumer(spec).fetch(1)
        assert delivery.traceparent is not None
        assert delivery.traceparent.split("-")[1] == str(place).split("-")[1]
    spans = sent(traced)
    assert spans["publish PREMIUM"].parent_id == spans["publish NORMAL"].parent_id == spans["asked"].span_id
    assert spans["publish PREMIUM"].attributes["darkroom.generation"] == str(at_once.id)


async def test_a_letter_is_a_part_of_the_trace_in_which_it_was_written(
    traced: Receiver, new_account: NewAccount
) -> None:
    account = await new_account()
    with tracing.span("the reason"):
        place = tracing.place()
        async with in_transaction():
            await write_letter(account.id, LetterKind.ACCOUNT_DELETED)
    letter = await Letter.get(account_id=account.id)
    assert letter.traceparent == place


async def test_what_is_published_in_no_trace_has_no_header(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    outbox = JobOutbox(queue=queue)
    await outbox.publish(generation)
    await outbox.mark()
    [delivery] = await queue.consumer(NORMAL_JOBS).fetch(1)
    assert delivery.headers == {}
    assert await queue.position_of(Lane.NORMAL, generation.id)
