"""OpenTelemetry: spans in the W3C's and OTLP's terms, sent over HTTP from a thread of their own."""

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping
from contextvars import Token
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.tracing import HEADER, Attribute, Kind, Span

_SEND_SECONDS: Final = 3
"""For one request to the collector, attempts again included; a process that ends waits no longer."""

_NANOSECONDS: Final = 1_000_000_000
_W3C: Final = TraceContextTextMapPropagator()


class OtlpTracer:
    """Makes spans and sends them, some seconds of them together.

    Whoever began a trace has decided whether it is sampled. The SDK reads the standard ``OTEL_…`` variables
    for what is not said here: further resource attributes, headers, certificates, limits, sizes.

    Args:
        url: where spans are posted to, path included.
        share: of the traces that begin here, how many are sampled; 0 to 1.
        process: what this process is.
    """

    def __init__(self, *, url: str, share: float, process: str) -> None:
        resource = Resource.create(
            {
                "service.namespace": "darkroom",
                "service.name": process,
                "service.version": version("darkroom"),
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=url, timeout=_SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("darkroom")

    def span(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        links: Iterable[str],
        attributes: Mapping[str, Attribute],
    ) -> Span:
        """See :func:`core.tracing.span`."""
        begun = self._tracer.start_span(
            name,
            context=_W3C.extract({HEADER: parent}, context=Context()) if parent else None,
            kind=trace.SpanKind[kind.value],
            attributes=_named(attributes),
            links=[trace.Link(place) for place in map(_place, links) if place.is_valid],
        )
        return _Recorded(begun)

    def record(self, name: str, *, began: float, ended: float, attributes: Mapping[str, Attribute]) -> None:
        """See :func:`core.tracing.record`."""
        over = self._tracer.start_span(
            name, start_time=int(began * _NANOSECONDS), attributes=_named(attributes)
        )
        over.end(int(max(began, ended) * _NANOSECONDS))

    def current(self) -> Span:
        """See :func:`core.tracing.current`."""
        return _Recorded(trace.get_current_span())

    def place(self) -> str | None:
        """See :func:`core.tracing.place`."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier.get(HEADER)

    def close(self) -> None:
        """Send what is left, for a few seconds at the most."""
        self._provider.shutdown()


class _Recorded(Span):
    """A span of a trace.

    Of an error only the class is told: its text may quote what a customer wrote.
    """

    def __init__(self, begun: trace.Span) -> None:
        self._span = begun
        self._token: Token[Context] | None = None

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        # Whoever leaves has not failed.
        if kind is not None and not issubclass(kind, asyncio.CancelledError):
            self.fail(kind.__name__)
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def note(self, **attributes: Attribute) -> None:
        self._span.set_attributes(_named(attributes))

    def fail(self, reason: str) -> None:
        self._span.set_attribute("error.type", reason)
        self._span.set_status(trace.StatusCode.ERROR)

    def rename(self, name: str) -> None:
        self._span.update_name(name)


def _place(traceparent: str) -> trace.SpanContext:
    return trace.get_current_span(_W3C.extract({HEADER: traceparent}, context=Context())).get_span_context()


def _named(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {name.replace("__", "."): value for name, value in attributes.items()}
