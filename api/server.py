"""How uvicorn serves the application."""

from typing import Final

import uvicorn
from starlette.types import ASGIApp

from api.settings import HttpSettings

MAX_WEBSOCKET_MESSAGE: Final = 64 * 1024
"""Bytes; a longer message closes the connection with 1009."""

_PING_SECONDS: Final = 20.0
"""How often a peer is asked for a sign of life, and how long it may take: who does not read gives none."""


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
        forwarded_allow_ips=list(settings.trusted_proxies),
        ws_max_size=MAX_WEBSOCKET_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
    )
