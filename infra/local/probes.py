"""How the supervisor finds out that a process is ready."""

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable

Probe = Callable[[], Awaitable[bool]]
"""Whether a process is ready now. Never raises, and answers within seconds."""

_SECONDS = 2.0


def listens(port: int, greeting: bytes = b"") -> Probe:
    """Ready when a connection to the port on 127.0.0.1 is greeted so."""

    async def probe() -> bool:
        return (await _exchange("127.0.0.1", port, b"", len(greeting))) == greeting

    return probe


def succeeds(*argv: str) -> Probe:
    """Ready when a command ends with status 0."""

    async def probe() -> bool:
        process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        return await process.wait() == 0

    return probe


def healthy(host: str, port: int, path: str, *, workers: int = 0) -> Probe:
    """Ready when an api's health page answers 200, and counts at least so many workers."""

    async def probe() -> bool:
        request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()
        head, _, body = (await _exchange(host, port, request, -1) or b"").partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"200"]:
            return False
        try:
            return workers == 0 or int(json.loads(body)["workers"]) >= workers
        except (ValueError, TypeError, KeyError):
            return False

    return probe


async def _exchange(host: str, port: int, request: bytes, size: int) -> bytes | None:
    """What a server answers, up to ``size`` bytes (-1: all of it), or none if it does not."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                return await (reader.read() if size < 0 else reader.readexactly(size))
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
