"""Health of a process that serves no HTTP otherwise: told on its metrics port, beside ``/metrics``."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import orjson
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from core.settings import TelemetrySettings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATIENCE: Final = 5.0
"""Seconds in which the event loop has to come to a question."""


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: probes come every few seconds."""


class Vitals:
    """Answers ``GET /health/live`` and ``/health/ready`` from the event loop that it was made on.

    A loop that hangs does not come to the question, and so the process is not alive.

    Args:
        needs: what the process needs to do its work: whether it is there, by what to say while it is not.
            Called on the loop.
        patience: seconds that the loop may take to come to it.
    """

    def __init__(self, *, needs: Mapping[str, Callable[[], bool]], patience: float = PATIENCE) -> None:
        self._needs = needs
        self._patience = patience
        self._loop = asyncio.get_running_loop()

    def serve(self, settings: TelemetrySettings) -> None:
        """Serve health and metrics in a thread for as long as the process lives, unless the port is 0."""
        if settings.metrics_port:
            server = make_server(
                settings.metrics_host,
                settings.metrics_port,
                self._beside(make_wsgi_app()),
                ThreadingWSGIServer,
                _SilentHandler,
            )
            threading.Thread(target=server.serve_forever, daemon=True, name="vitals").start()

    def _beside(self, metrics: "WSGIApplication") -> "WSGIApplication":
        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path not in {"/health/live", "/health/ready"}:
                return metrics(environ, start_response)
            missing = self._look(ready=path == "/health/ready")
            start_response(
                "503 Service Unavailable" if missing else "200 OK",
                [("Content-Type", "application/json"), ("Cache-Control", "no-store")],
            )
            return [orjson.dumps({"status": "unavailable" if missing else "ok", "missing": missing})]

        return answer

    def _look(self, *, ready: bool) -> Sequence[str]:
        seen: Future[Sequence[str]] = Future()
        try:
            self._loop.call_soon_threadsafe(lambda: seen.set_result(self._missing() if ready else ()))
            return seen.result(timeout=self._patience)
        except TimeoutError:
            return [f"event loop: no answer within {self._patience:g} s"]
        except RuntimeError:
            return ["event loop: closed"]

    def _missing(self) -> Sequence[str]:
        return [lack for lack, is_there in self._needs.items() if not is_there()]
