"""The websocket protocol of the served api: uvicorn's, for clients that may not read."""

import asyncio
import socket
from typing import Final, cast

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from core.telemetry import SLOW_READERS

SEND_BUFFER: Final = 64 * 1024
"""Bytes of the kernel's buffer for what a client has not taken yet. Left to itself it grows to megabytes."""

WRITE_BUFFER: Final = 32 * 1024
"""Bytes beyond these that wait in the process; more are not made while they wait."""

log = structlog.get_logger(__name__)


class PatientProtocol(WebSocketsSansIOProtocol):
    """Waits for a client that does not read, but not for ever.

    Where the client takes nothing the buffers fill, and nothing more is sent: events of a subscription merge
    into the newest meanwhile. After ``patience`` seconds the connection is cut off, whatever is left in them.
    uvicorn itself would wait for the buffers to empty, also when pings go unanswered or the process stops.
    """

    patience = 10.0

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the buffers."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to give up any more."""
        self._go_on()
        super().connection_lost(exc)

    def start_keepalive(self) -> None:
        """The handshake is over, and nobody asks for its headers again."""
        super().start_keepalive()
        del self.request, self.response
        cast("list[tuple[bytes, bytes]]", self.scope["headers"]).clear()

    def pause_writing(self) -> None:
        """The buffers are full."""
        super().pause_writing()
        self._give_up_later()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._go_on()

    def keepalive_timeout(self) -> None:
        """A ping was not answered: uvicorn closes the connection once everything is sent."""
        super().keepalive_timeout()
        self._give_up_later()

    def shutdown(self) -> None:
        """The process stops: who does not read will not read the close frame either."""
        super().shutdown()
        if not self.writable.is_set():
            self.transport.abort()

    def _give_up_later(self) -> None:
        if self._giving_up is None:
            self._giving_up = self.loop.call_later(self.patience, self._give_up)

    def _go_on(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        self._giving_up = None
        SLOW_READERS.inc()
        log.warning("slow_reader_cut_off", client=self.client, waiting=self.transport.get_write_buffer_size())
        self.transport.abort()


def websocket_protocol(*, patience: float) -> type[PatientProtocol]:
    """The protocol with so many seconds of patience; uvicorn makes its instances itself."""
    return type("PatientProtocol", (PatientProtocol,), {"patience": patience})
