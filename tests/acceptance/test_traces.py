"""What one request causes is one trace, through every process that has a part in it."""

import asyncio
import json
import time
from collections.abc import Sequence

import pytest
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from infra.observability.receiver import ReceivedSpan, Receiver
from schema.types.node import key_of
from tests.stack import Customer, Stack

pytestmark = pytest.mark.acceptance

PROMPT = "a harbour at dawn, seen by nobody's span"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 4}


async def trace_of(receiver: Receiver, generation_id: str, *, until: str) -> list[ReceivedSpan]:
    """The trace with a span of that generation, once the last span that is waited for is there."""
    key = str(key_of(generation_id, "Generation"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for span in receiver.spans:
            if span.attributes.get("darkroom.generation") == key:
                trace = receiver.trace(span.trace_id)
                if any(one.name == until for one in trace):
                    # Another process may send its part a little later.
                    await asyncio.sleep(1)
                    return receiver.trace(span.trace_id)
        await asyncio.sleep(0.2)
    raise AssertionError(f"no trace of {key} with a span {until!r} in 60 s")


def roots(trace: Sequence[ReceivedSpan]) -> list[str]:
    known = {span.span_id for span in trace}
    return [span.name for span in trace if span.parent_id not in known]


async def test_a_premium_job_is_one_trace_through_every_process_from_the_mutation_to_its_letter(
    stack: Stack, premium: Customer
) -> None:
    generation_id = await premium.generate(**SMALL, delivery="EMAIL")
    trace = await trace_of(stack.traces, generation_id, until="send letter")
    names = {(span.process, span.name) for span in trace}
    assert names >= {
        ("api", "GraphQL mutation generate"),
        ("api", "admit"),
        ("api", "publish PREMIUM"),
        ("gpu_worker", "make PREMIUM pictures"),
        ("gpu_worker", "wait in queue"),
        ("gpu_worker", "embed prompts"),
        ("gpu_worker", "denoise"),
        ("gpu_worker", "decode"),
        ("gpu_worker", "upload picture"),
        ("gpu_worker", "publish outcome"),
        ("api", "record outcome"),
        ("api", "finish"),
        ("batcher", "letter"),
        ("batcher", "write letter"),
        ("batcher", "send letter"),
    }
    assert roots(trace) == ["GraphQL mutation generate"]
    assert not any(span.failed for span in trace)
    [denoise] = [span for span in trace if span.name == "denoise"]
    assert denoise.attributes["darkroom.steps"] == "4"
    order = [
        next(span.began for span in trace if span.name == name)
        for name in (
            "admit",
            "publish PREMIUM",
            "embed prompts",
            "denoise",
            "decode",
            "record outcome",
            "letter",
        )
    ]
    assert order == sorted(order)


async def test_a_normal_job_is_one_trace_over_its_window_to_its_letter(
    stack: Stack, normal: Customer
) -> None:
    generation_id = await normal.generate(**SMALL)
    trace = await trace_of(stack.traces, generation_id, until="send letter")
    names = {(span.process, span.name) for span in trace}
    assert names >= {
        ("api", "publish NORMAL"),
        ("batcher", "publish BATCH"),
        ("gpu_worker", "make NORMAL pictures"),
        ("batcher", "record outcome"),
        ("batcher", "letter"),
        ("batcher", "write letter"),
        ("batcher", "send letter"),
    }
    assert roots(trace) == ["GraphQL mutation generate"]
    [published] = [span for span in trace if span.name == "publish BATCH"]
    window = stack.traces.trace(published.links[0])
    assert {"window tick", "open window", "release window"} <= {span.name for span in window}


async def test_an_operation_over_a_websocket_begins_a_trace_too(stack: Stack, premium: Customer) -> None:
    document = gql(
        "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"
    )
    document.variable_values = {"input": SMALL}
    transport = WebsocketsTransport(
        url=f"{premium.url.replace('http', 'ws', 1)}/graphql",
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        init_payload={"authorization": f"Bearer {premium.token}"},
    )
    async with Client(transport=transport) as session:
        answer = await session.execute(document)
    trace = await trace_of(stack.traces, answer["generate"]["id"], until="record outcome")
    assert roots(trace) == ["GraphQL mutation generate"]
    assert trace[0].attributes["network.protocol.name"] == "websocket"


async def test_log_lines_name_the_trace_that_they_belong_to(stack: Stack, premium: Customer) -> None:
    generation_id = await premium.generate(**SMALL)
    trace = await trace_of(stack.traces, generation_id, until="record outcome")
    for process, event in (("gpu_worker", "job_done"), ("api", "outcome_recorded")):
        lines = [
            json.loads(line)
            for log in (stack.home / "logs").glob(f"{process}*.log")
            for line in log.read_text().splitlines()
            if f'"{event}"' in line
        ]
        assert trace[0].trace_id in {line.get("trace_id") for line in lines}


async def test_no_span_holds_what_a_customer_wrote_or_is_known_by(
    stack: Stack, premium: Customer, normal: Customer
) -> None:
    await premium.watch_to_end(await premium.generate(**SMALL))
    await trace_of(stack.traces, await normal.generate(**SMALL), until="send letter")
    told = json.dumps([[span.name, dict(span.attributes)] for span in stack.traces.spans])
    for secret in (PROMPT, "@", premium.token, normal.token, "Bearer", "correct horse"):
        assert secret
        assert secret not in told
