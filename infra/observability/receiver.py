"""Takes spans as a collector does: OTLP over HTTP, in protobuf."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import decompress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PATH: Final = "/v1/traces"
_NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """A span as it was received; both times are Unix times."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    process: str
    began: float
    ended: float
    failed: bool
    attributes: Mapping[str, str]
    links: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Receiver:
    """Keeps every span that is sent to it, for as long as it lives."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler_of(self))
        self._server.daemon_threads = True
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """For ``DARKROOM_TRACES_URL``."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{PATH}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Those that have come, in the order in which they came."""
        with self._lock:
            return list(self._spans)

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """The spans of one trace, by their beginning."""
        return sorted((one for one in self.spans if one.trace_id == trace_id), key=lambda one: one.began)

    def take(self, body: bytes) -> None:
        """Keep what a request brings.

        Raises:
            DecodeError: it is no such request.
        """
        spans = list(_spans_in(ExportTraceServiceRequest.FromString(body)))
        with self._lock:
            self._spans += spans

    @contextmanager
    def serving(self) -> Iterator["Receiver"]:
        """Take spans while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.path != PATH:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                receiver.take(decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            except (DecodeError, OSError):
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _spans_in(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for part in request.resource_spans:
        process = _attributes(part.resource.attributes).get("service.name", "?")
        for scope in part.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex() or None,
                    name=span.name,
                    kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    process=process,
                    began=span.start_time_unix_nano / _NANOSECONDS,
                    ended=span.end_time_unix_nano / _NANOSECONDS,
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes),
                    links=tuple(link.trace_id.hex() for link in span.links),
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    """Names and values, each value as text."""
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = str(getattr(pair.value, kind)) if kind else ""
    return found
