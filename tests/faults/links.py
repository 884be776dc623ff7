"""A way over TCP from one process to one server, on which faults are laid: latency, resets, black holes."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Final

_CHUNK: Final = 64 * 1024


class Way(StrEnum):
    """The two directions of a connection, by where its bytes go."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


class Link:
    """Listens in the place of a server and carries every connection there.

    In a black hole bytes wait, and go on once it is healed, as TCP's own repetition would have them; new
    connections are taken, and wait as well. A link that is down refuses connections.

    Args:
        name: from whom to whom.
        target: the port of the server, on 127.0.0.1.

    Attributes:
        port: where to connect instead.
    """

    def __init__(self, name: str, target: int) -> None:
        self.name = name
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = {way: asyncio.Event() for way in Way}
        self._delay = 0.0
        self._down = False
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.heal()

    async def listen(self, port: int) -> None:
        """Begin."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", port)
        self.port = port

    async def close(self) -> None:
        """Cut everything and listen no more."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def heal(self) -> None:
        """Take every fault away."""
        self._delay = 0.0
        self._down = False
        for passage in self._open.values():
            passage.set()

    def slow_down(self, seconds: float) -> None:
        """Hold every piece of data back for so long, in each direction."""
        self._delay = seconds

    def swallow(self, *ways: Way) -> None:
        """Let nothing through any more, in these directions or in both; no end is told."""
        for way in ways or Way:
            self._open[way].clear()

    def reset(self) -> int:
        """Break every connection that stands with a RST to the client; returns how many those were."""
        writers = list(self._connections.values())
        for writer in writers:
            _reset(writer)
        return len(writers)

    def take_down(self) -> None:
        """Break every connection, and each new one at once."""
        self._down = True
        self.reset()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            with suppress(OSError, asyncio.CancelledError):
                async with _connected(self._target) as (far_reader, far_writer):
                    pumps = [
                        asyncio.create_task(self._pump(Way.TO_SERVER, reader, far_writer)),
                        asyncio.create_task(self._pump(Way.TO_CLIENT, far_reader, writer)),
                    ]
                    try:
                        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for pump in pumps:
                            pump.cancel()
                        await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            del self._connections[task]
            writer.close()

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._open[way].wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                sink.write(data)
                await sink.drain()
        # The end of one direction travels as data does: not through a black hole.
        await self._open[way].wait()


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        # Without lingering the kernel sends RST instead of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
