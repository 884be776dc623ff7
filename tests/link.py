"""A way to a server that a test can close, and open again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Link:
    """Hands on what comes on ``port`` to another port of this machine, unless it is cut or silent."""

    def __init__(self, target: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Event()
        self._heard.set()

    async def open(self) -> None:
        """Hand on from now on, what was kept back meanwhile first."""
        self._heard.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def done(self) -> None:
        """Wait until nobody is served any more."""
        await asyncio.gather(*self._serving, return_exceptions=True)

    def fall_silent(self) -> None:
        """Take everything, new connections too, and hand nothing on: a black hole."""
        self._heard.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        try:
            await self._heard.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(back)
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        except OSError:
            writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._heard.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)


@asynccontextmanager
async def link_to(port: int) -> AsyncIterator[Link]:
    """An open link to a port, closed at the end."""
    link = Link(port)
    await link.open()
    try:
        yield link
    finally:
        await link.open()
        await link.cut()
        await link.done()
