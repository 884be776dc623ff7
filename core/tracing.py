"""Traces: what one request causes, through every process that has a part in it.

Nothing is measured, and nothing of OpenTelemetry imported, unless an address to send spans to is set. A
place in a trace travels as text, the ``traceparent`` of https://www.w3.org/TR/trace-context/: in the headers
of messages, and in the rows of generations and letters, which wait for longer than any process lives.

Spans hold ids, sizes, counts and times. Never a prompt, a token or an address.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol, Self

HEADER: Final = "traceparent"
"""Of messages; its value also stands in rows."""

Attribute = str | int | float | bool


class Kind(StrEnum):
    """What a span is to others, as OpenTelemetry names it."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Span:
    """Something that goes on while its block runs. This one is of no trace, and does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End it, as failed where the block did."""

    def note(self, **attributes: Attribute) -> None:
        """Say more of it; dots in names are written as two underscores."""

    def fail(self, reason: str) -> None:
        """Say that it failed although its block ends in order; the reason is one of few."""

    def rename(self, name: str) -> None:
        """Give it the name that was not known when it began."""


class Tracer(Protocol):
    """What :mod:`core.otlp` does for the functions below."""

    def span(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        links: Iterable[str],
        attributes: Mapping[str, Attribute],
    ) -> Span:
        """See :func:`span`."""

    def record(self, name: str, *, began: float, ended: float, attributes: Mapping[str, Attribute]) -> None:
        """See :func:`record`."""

    def current(self) -> Span:
        """See :func:`current`."""

    def place(self) -> str | None:
        """See :func:`place`."""

    def close(self) -> None:
        """Send what is left, for a few seconds at the most."""


class _Process:
    """Of this process; none while traces are off."""

    tracer: Tracer | None = None


_NOTHING: Final = Span()


def start(tracer: Tracer) -> None:
    """Hand this process's spans to ``tracer`` from now on."""
    _Process.tracer = tracer


def stop() -> None:
    """Send what is left; traces are off from then on."""
    tracer, _Process.tracer = _Process.tracer, None
    if tracer is not None:
        tracer.close()


def enabled() -> bool:
    """Whether spans go anywhere."""
    return _Process.tracer is not None


def span(
    name: str,
    *,
    kind: Kind = Kind.INTERNAL,
    parent: str | None = None,
    links: Iterable[str] = (),
    **attributes: Attribute,
) -> Span:
    """A span around a block, which everything in the block is a part of.

    Args:
        name: one of few: ids go into attributes.
        kind: what it is to others.
        parent: its place in a trace that came from elsewhere; otherwise it is a part of what goes on here.
        links: places in other traces that have to do with it.
        attributes: dots in names are written as two underscores.
    """
    if _Process.tracer is None:
        return _NOTHING
    return _Process.tracer.span(name, kind=kind, parent=parent, links=links, attributes=attributes)


def record(name: str, *, began: float, ended: float, **attributes: Attribute) -> None:
    """A span of something that is over, as a part of what goes on here. Both times are Unix times."""
    if _Process.tracer is not None:
        _Process.tracer.record(name, began=began, ended=ended, attributes=attributes)


def current() -> Span:
    """The innermost span around this place; it is not to be entered again."""
    return _NOTHING if _Process.tracer is None else _Process.tracer.current()


def place() -> str | None:
    """Where in a trace this is, as a ``traceparent``; none in no trace."""
    return None if _Process.tracer is None else _Process.tracer.place()


def headers() -> dict[str, str]:
    """What a message that is sent from here has to carry."""
    here = place()
    return {} if here is None else {HEADER: here}
