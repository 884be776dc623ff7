"""Requests over kept-alive connections, by a client that takes as little time as it can."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.processes import BenchmarkError

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


def request_bytes(method: str, path: str, *, body: bytes = b"", authorization: str | None = None) -> bytes:
    """One HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    """Answers in the order of the requests, of which one is under way at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # it is a TCP connection's

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_HEAD_END)
        if not found:
            return
        at = head.lower().index(_LENGTH) + len(_LENGTH)
        if len(body) >= int(head[at:].split(b"\r\n", 1)[0]) and self._answer is not None:
            answer, self._received = self._received, b""
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchmarkError(f"the connection was lost: {exc!r}"))

    async def ask(self, request: bytes) -> bytes:
        """Send a request; its answer, which must have status 200."""
        assert self._transport is not None  # noqa: S101 - asked only once it is connected
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._answer
        if not answer.startswith(b"HTTP/1.1 200"):
            raise BenchmarkError(f"an answer was no success: {answer[:500]!r}")
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class HttpLoad:
    """Asks one server.

    Args:
        port: the server's, on the loopback interface.
        next_request: makes the next request of a connection, by its number.
        check: sees whether an answer is what it should be.
    """

    def __init__(
        self, port: int, next_request: Callable[[int], bytes], *, check: Callable[[bytes], bool]
    ) -> None:
        self._port = port
        self._next_request = next_request
        self._check = check

    async def throughput(self, *, connections: int, seconds: float) -> float:
        """Answers a second while each of so many connections asks again as soon as it is answered."""
        opened = await self._open(connections)
        begun = time.perf_counter()
        until = begun + seconds

        async def keep_asking(number: int, connection: _Connection) -> int:
            done = 0
            while time.perf_counter() < until:
                await self._ask(number, connection)
                done += 1
            return done

        try:
            done = await asyncio.gather(*(keep_asking(*each) for each in enumerate(opened)))
        finally:
            for connection in opened:
                connection.close()
        return sum(done) / (time.perf_counter() - begun)

    async def latencies(self, moments: Sequence[float], *, connections: int) -> list[float]:
        """Seconds from each of ``moments``, when a customer comes, until the answer; waiting counts."""
        opened = await self._open(connections)
        free: asyncio.Queue[tuple[int, _Connection]] = asyncio.Queue()
        for each in enumerate(opened):
            free.put_nowait(each)
        begun, waited = time.perf_counter(), []

        async def come(at: float) -> None:
            number, connection = await free.get()
            await self._ask(number, connection)
            waited.append(time.perf_counter() - begun - at)
            free.put_nowait((number, connection))

        try:
            async with asyncio.TaskGroup() as customers:
                for at in moments:
                    if (early := begun + at - time.perf_counter()) > 0:
                        await asyncio.sleep(early)
                    customers.create_task(come(at))
        finally:
            for connection in opened:
                connection.close()
        return waited

    async def _ask(self, number: int, connection: _Connection) -> None:
        answer = await connection.ask(self._next_request(number))
        if not self._check(answer):
            raise BenchmarkError(f"not the answer that was asked for: {answer[-500:]!r}")

    async def _open(self, connections: int) -> list[_Connection]:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(_Connection, "127.0.0.1", self._port)
            for _ in itertools.repeat(None, connections)
        ]
        return [protocol for _, protocol in made]
