"""How the application is served: uvicorn with bounds, and with a way out that load balancers can follow."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from api.health import HealthChecks
from api.settings import HttpSettings
from api.websocket_protocol import websocket_protocol

MAX_WEBSOCKET_MESSAGE: Final = 64 * 1024
"""Bytes; a longer message closes the connection with 1009."""

_PING_SECONDS: Final = 20.0
"""How often a peer is asked for a sign of life, and how long it may take: who does not read gives none."""

_LAST_SECONDS: Final = 2.0
"""How long requests that are cut off may take to clean up."""

log = structlog.get_logger(__name__)


def server_config(app: ASGIApp, settings: HttpSettings) -> uvicorn.Config:
    """The configuration of a server of ``app``."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        # Nobody else's word about where a request comes from is taken.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ws=websocket_protocol(patience=settings.websocket_patience_seconds),
        ws_max_size=MAX_WEBSOCKET_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
    )


class ApiServer(uvicorn.Server):
    """Told to stop, it says so at ``/health/serving`` and serves on until nobody should come any more.

    Then it takes no more connections, closes websockets with 1012 and gives requests under way their time.
    Another signal ends the one waiting, and then the other.

    Args:
        config: of uvicorn.
        health: what load balancers are told.
        drain_seconds: how long to serve on.
    """

    def __init__(self, config: uvicorn.Config, *, health: HealthChecks, drain_seconds: float) -> None:
        super().__init__(config)
        self._health = health
        self._drain_seconds = drain_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's own, which stops at once and raises the signal again after its shutdown."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, and leave no request behind that would use what is closed next."""
        await super().shutdown(sockets)
        if tasks := set(self.server_state.tasks):
            for task in tasks:
                task.cancel("the process ends")
            await asyncio.wait(tasks, timeout=_LAST_SECONDS)

    def _leave(self) -> None:
        if self.should_exit:
            log.warning("api_hurries")
            self.force_exit = True
            return
        if self._health.leaving:
            self.should_exit = True
            return
        log.info("api_leaves", drain_seconds=self._drain_seconds)
        self._health.leaving = True
        asyncio.get_running_loop().call_later(self._drain_seconds, self._stop_serving)

    def _stop_serving(self) -> None:
        self.should_exit = True
