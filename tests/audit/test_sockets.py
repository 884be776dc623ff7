"""Connections that hold on to something and give nothing for it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.audit.report import Report
from tests.audit.target import PROTOCOL, Backing, Target, receive, running
from tests.conftest import free_port

MANY = 200
MOST_GROWTH = 24 * 2**20
"""Bytes for as many connections: some 60 KiB each, and what an allocator rounds up."""


@pytest.fixture(scope="module")
def impatient(backing: Backing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A process that waits a second for ``connection_init``."""
    log = tmp_path_factory.mktemp("impatient") / "api.log"
    with running(
        backing, port=free_port(), metrics_port=free_port(), log=log, websocket_init_seconds="1"
    ) as started:
        yield started
        started.assert_calm()


async def served(target: Target) -> None:
    """Somebody else is served while all this goes on."""
    async with target.http() as http:
        assert (await http.get("/health/live", timeout=5)).status_code == 200
        answer = await http.post("/graphql", json={"query": "{ models { id } }"}, timeout=5)
        assert answer.json()["data"]["models"]


async def close_code(target: Target, *messages: str) -> int:
    """How a socket ends that sends a few messages and then waits."""
    async with connect(target.socket_url, subprotocols=[PROTOCOL]) as connection:
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 - it is closed at any of these
            for message in messages:
                await connection.send(message)
            async with asyncio.timeout(15):
                while True:
                    await connection.recv()
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


async def test_a_socket_without_an_init_is_4408(impatient: Target, report: Report) -> None:
    assert await close_code(impatient) == 4408
    report.add("no init", "WebSocket", 4408, verdict="closed after websocket_init_seconds")


async def test_pings_do_not_keep_a_socket_without_an_init(impatient: Target, report: Report) -> None:
    pings = [json.dumps({"type": "ping"})] * 50
    assert await close_code(impatient, *pings) == 4408
    report.add("pings and no init", "WebSocket", 4408, verdict="closed after websocket_init_seconds")


async def test_many_sockets_without_an_init_are_closed_and_others_are_served(
    impatient: Target, report: Report
) -> None:
    await close_code(impatient)
    before = impatient.memory()
    waiting = [asyncio.create_task(close_code(impatient)) for _ in range(MANY)]
    await asyncio.sleep(0.5)
    await served(impatient)
    codes = await asyncio.gather(*waiting)
    assert set(codes) == {4408}
    growth = impatient.memory() - before
    assert growth < MOST_GROWTH
    await served(impatient)
    report.add(
        f"{MANY} sockets without init", "WebSocket", 4408, verdict=f"closed, {growth / 2**20:+.1f} MiB"
    )


async def test_requests_that_never_end_keep_nobody_from_being_served(
    target: Target, calm: None, report: Report
) -> None:
    """Slow ones in headers, in a body, and in the handshake of a websocket."""
    beginnings = (
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Le",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        b"",
    )
    before = target.memory()
    async with contextlib.AsyncExitStack() as opened:
        for number in range(MANY):
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            opened.callback(writer.close)
            writer.write(beginnings[number % len(beginnings)])
        await asyncio.sleep(0.2)
        for _ in range(5):
            await served(target)
        growth = target.memory() - before
    assert growth < MOST_GROWTH
    report.add(f"{MANY} requests that never end", "HTTP", "", verdict="others are served")


async def test_frames_that_trickle_keep_nobody_from_being_served(
    target: Target, calm: None, report: Report
) -> None:
    """One message in a thousand frames, the last of which comes late."""

    async def pieces() -> AsyncIterator[str]:
        yield '{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename } #'
        for _ in range(1000):
            yield "x" * 10
        await served(target)
        yield '"}}'

    async with target.socket(target.normal) as connection:
        await connection.send(pieces())
        assert (await receive(connection))["type"] == "next"
    report.add("a message in a thousand frames", "WebSocket", "next", verdict="others are served meanwhile")
