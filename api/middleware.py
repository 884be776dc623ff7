"""Around every request: an id, a log line, and a bound on its size."""

import re
import secrets
import time
from functools import cache
from typing import Final

import structlog
from prometheus_client import Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.telemetry import HTTP_SECONDS

MAX_BODY: Final = 256 * 1024
"""Bytes of a request's body: a GraphQL document with its variables is far smaller."""

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

ROUTES: Final = frozenset(
    (
        *("explorer", "graphql", "health", "images", "inbox", "premium", "reset-password", "unsubscribe"),
        *("verify", "webhooks"),
    )
)
"""First parts of paths that are told apart in the metrics: whoever asks may make up others."""

log = structlog.get_logger(__name__)


class RequestMiddleware:
    """Gives every request an id, on its log lines, its jobs and its answer.

    A client's own ``X-Request-Id`` is kept if it is 1 to 64 letters, digits, ``_``, ``.`` or ``-``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        # Never unbound: the server gives each request a context of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if scope["type"] == "websocket":
            # uvicorn logs the address of a socket that it opens, and queries hold tokens.
            scope["query_string"] = b""
            await self._app(scope, receive, send)
        else:
            await self._serve(scope, receive, send, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        begun = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        app = _refusal() if _is_too_large(Headers(scope=scope)) else self._app
        try:
            await app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - begun
            _measure(_route(scope["path"]), status // 100).observe(seconds)
            # The path alone: queries hold tokens and signatures.
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(1000 * seconds, 1),
            )


def _route(path: str) -> str:
    """The first part of a path, where it is one of ours."""
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    return first if first in ROUTES else "other"


@cache
def _measure(route: str, status: int) -> Histogram:
    """Of one route and class of status; looking it up costs more than what it then counts."""
    return HTTP_SECONDS.labels(route=route, status=f"{status}xx")


def _refusal() -> ASGIApp:
    return JSONResponse({"detail": f"A body has at most {MAX_BODY} bytes."}, status_code=413)


def _is_too_large(headers: Headers) -> bool:
    length = headers.get("content-length")
    if length is None:
        # Without a length there is nothing to trust, and no client of ours sends chunks.
        return "transfer-encoding" in headers
    return not length.isdigit() or int(length) > MAX_BODY
