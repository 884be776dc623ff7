"""Customers who watch generations, in a process of their own: websockets that note when a step is told."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final, cast

from benchmarks.processes import BenchmarkError
from infra.local.launch import end_with_parent

QUERY: Final = """
subscription ($id: ID!, $previews: Boolean!) {
  generationStatus(id: $id, previews: $previews) {
    state step totalSteps fraction queuePosition etaSeconds preview
    generation { id state estimatedFinishAt images { url } error { message } }
  }
}
"""

_AT_ONCE: Final = 64
_OPEN_SECONDS: Final = 180
_SMALL_WINDOW: Final = 4096
_HEADER: Final = 2
_MEDIUM, _LONG = 126, 127
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_STEP: Final = re.compile(rb'"step":\s*(\d+)')
_STATE: Final = re.compile(rb'"state":\s*"([A-Z]+)"')


@dataclass(frozen=True, slots=True)
class Watching:
    """Who watches what.

    Attributes:
        number: the subscriber's.
        generation: id of the generation, as clients have it.
        token: the access token.
        reads: whether it goes on reading after the first event; one that does not asks for previews.
    """

    number: int
    generation: str
    token: str
    reads: bool = True


@dataclass(slots=True)
class Heard:
    """What was heard, by subscriber, step and moment of the monotonic clock; three arrays of one length.

    ``closed`` is how many sockets have been closed by the other side.
    """

    numbers: "array[int]" = field(default_factory=lambda: array("l"))
    steps: "array[int]" = field(default_factory=lambda: array("l"))
    moments: "array[float]" = field(default_factory=lambda: array("d"))
    closed: int = 0

    def take(self) -> "Heard":
        """What was heard since the last time."""
        taken = Heard(self.numbers, self.steps, self.moments, self.closed)
        self.numbers, self.steps, self.moments, self.closed = array("l"), array("l"), array("d"), 0
        return taken


class _Subscriber(asyncio.Protocol):
    """One socket with one subscription. Masks with zeros, which leaves the bytes as they are."""

    def __init__(self, watching: Watching, port: int, heard: Heard) -> None:
        self._watching = watching
        self._port = port
        self._heard = heard
        self._received = bytearray()
        self._open = False
        self._leaving = False
        self._transport: asyncio.Transport
        self.first = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        moment = time.monotonic()
        self._received += data
        if not self._open:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._received.startswith(b"HTTP/1.1 101"):
                self._fail(f"no websocket: {bytes(self._received[:80])!r}")
                return
            del self._received[: end + 4]
            self._open = True
            payload = {"authorization": f"Bearer {self._watching.token}"}
            self._send({"type": "connection_init", "payload": payload})
        while (frame := self._frame()) is not None:
            self._take(*frame, moment)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's hook
        self._fail("closed before the first event")
        self._heard.closed += not self._leaving

    def leave(self) -> None:
        """Close as a client does that has seen enough."""
        self._leaving = True
        self._write(_CLOSE, b"\x03\xe8")
        self._transport.close()

    def _frame(self) -> tuple[int, bytes] | None:
        received = self._received
        if len(received) < _HEADER:
            return None
        length, begin = received[1], _HEADER
        if length in {_MEDIUM, _LONG}:
            begin = 4 if length == _MEDIUM else 10
            if len(received) < begin:
                return None
            length = int.from_bytes(received[2:begin], "big")
        if len(received) < begin + length:
            return None
        frame = received[0] & 0x0F, bytes(received[begin : begin + length])
        del received[: begin + length]
        return frame

    def _take(self, kind: int, payload: bytes, moment: float) -> None:
        if kind == _PING:
            self._write(_PONG, payload)
        elif kind == _TEXT and (step := _STEP.search(payload)):
            self._heard.numbers.append(self._watching.number)
            self._heard.steps.append(int(step[1]))
            self._heard.moments.append(moment)
            if not self.first.done():
                self.first.set_result(None)
                if not self._watching.reads:
                    self._transport.pause_reading()
        elif kind == _TEXT and b"connection_ack" in payload:
            variables = {"id": self._watching.generation, "previews": not self._watching.reads}
            query = {"query": QUERY, "variables": variables}
            self._send({"type": "subscribe", "id": "1", "payload": query})
        elif kind == _TEXT:
            self._fail(f"unexpected: {payload[:200]!r}")
        elif kind == _CLOSE:
            self._fail(f"closed with {int.from_bytes(payload[:2], 'big')}")

    def _fail(self, why: str) -> None:
        if not self.first.done():
            self.first.set_exception(BenchmarkError(f"subscriber {self._watching.number}: {why}"))

    def _send(self, message: dict[str, object]) -> None:
        self._write(_TEXT, json.dumps(message).encode())

    def _write(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        length = (
            bytes((0x80 | size,)) if size < _MEDIUM else bytes((0x80 | _MEDIUM,)) + size.to_bytes(2, "big")
        )
        self._transport.write(bytes((0x80 | kind,)) + length + bytes(4) + payload)


class _Crowd:
    """Every subscriber of the process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._subscribers: list[_Subscriber] = []
        self.heard = Heard()

    async def open(self, watching: Sequence[Watching]) -> None:
        """Subscribe, and wait for everybody's first event."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(each: Watching) -> None:
            async with turn:
                probe = socket.socket()
                probe.setblocking(False)  # noqa: FBT003 - positional alone
                if not each.reads:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_WINDOW)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(probe, ("127.0.0.1", self._port))
                _, subscriber = await loop.create_connection(
                    lambda: _Subscriber(each, self._port, self.heard), sock=probe
                )
                self._subscribers.append(subscriber)
                await subscriber.first

        async with asyncio.timeout(_OPEN_SECONDS):
            await asyncio.gather(*(one(each) for each in watching))

    async def leave(self) -> None:
        """Close every socket."""
        for subscriber in self._subscribers:
            subscriber.leave()
        self._subscribers.clear()
        await asyncio.sleep(0)


async def _serve(orders: Connection, port: int) -> None:
    crowd = _Crowd(port)
    while True:
        name, argument = await asyncio.to_thread(orders.recv)
        try:
            answer: object = None
            if name == "open":
                await crowd.open(argument)
            elif name == "heard":
                answer = crowd.heard.take()
            else:
                await crowd.leave()
        except (BenchmarkError, TimeoutError, OSError) as error:
            answer = BenchmarkError(repr(error))
        orders.send(answer)


def run(orders: Connection, port: int) -> None:
    """Do what ``orders`` says until its other end is closed; the process ends with its parent."""
    end_with_parent(signal.SIGKILL)
    try:
        asyncio.run(_serve(orders, port))
    except EOFError:
        os._exit(0)
