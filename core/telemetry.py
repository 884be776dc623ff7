"""Logs and metrics, the same in every process; traces are switched on with them."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from core import tracing
from core.errors import ConfigurationError
from core.settings import TelemetrySettings

_LAG_PAUSE: Final = 0.1
_TELL_ALL: Final = ("tortoise.db_client", "uvicorn.error")
"""Loggers that at DEBUG write statements with their values, and messages: prompts and tokens."""

_WAITS: Final = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60, 300, 900, 1800, 3600)

CONSUMER_RECREATIONS: Final = Counter(
    "darkroom_consumer_recreations_total", "Consumers that were lost and declared again", ["stream"]
)
BROKER_REFUSALS: Final = Counter(
    "darkroom_broker_refusals", "What the broker did not allow this process", ["what"]
)
STREAM_RECREATIONS: Final = Counter(
    "darkroom_stream_recreations_total", "Streams that were gone while the process ran and declared again"
)
GENERATIONS_ACCEPTED: Final = Counter("darkroom_generations_accepted_total", "Generations accepted", ["tier"])
GENERATIONS_FINISHED: Final = Counter(
    "darkroom_generations_finished_total", "Generations that reached a terminal state", ["tier", "state"]
)
GENERATION_SECONDS: Final = Histogram(
    "darkroom_generation_seconds",
    "Seconds from acceptance to the recorded end",
    ["tier"],
    buckets=(0.5, 1, 2, 4, 8, 15, 30, 60, 300, 900, 1800, 3600),
)
JOBS_RELAYED: Final = Counter("darkroom_jobs_relayed_total", "Jobs published by the relay after a crash")
JOBS_LOST: Final = Counter(
    "darkroom_jobs_lost_total", "Jobs that the broker had lost and were published again", ["lane"]
)
JOBS_DEAD: Final = Counter("darkroom_jobs_dead_total", "Jobs that our side failed, by why", ["why"])
JOBS_UNATTENDED: Final = Gauge(
    "darkroom_jobs_unattended", "Generations that run, but on no worker that gives a sign of life"
)
LETTERS: Final = Counter("darkroom_letters_total", "Letters handed to the mail server", ["kind", "outcome"])
LETTER_SECONDS: Final = Histogram(
    "darkroom_letter_seconds",
    "Seconds from the writing of a letter's row to the mail server's word for it",
    ["kind"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 1800, 7200, 43200),
)
LETTERS_WAITING: Final = Gauge("darkroom_letters_waiting", "Letters that have not left and not failed")
OLDEST_LETTER_SECONDS: Final = Gauge(
    "darkroom_oldest_letter_seconds", "How long the oldest of the waiting letters has waited"
)
SMTP_CONNECTIONS: Final = Counter(
    "darkroom_smtp_connections_total", "Connections to the mail server, by outcome", ["outcome"]
)
IMAGES: Final = Counter("darkroom_images_total", "Pictures made by this worker", ["model"])
SLOTS: Final = Gauge("darkroom_slots", "Pictures under way, paused ones included", ["tier"])
UNSTORED_PICTURES: Final = Gauge(
    "darkroom_unstored_pictures", "Pictures that were made and are not stored and reported yet", ["tier"]
)
TICK_PICTURES: Final = Histogram(
    "darkroom_tick_pictures", "Pictures that took one step together", buckets=(1, 2, 4, 8, 16, 32, 64)
)
TICK_SECONDS: Final = Histogram(
    "darkroom_tick_seconds",
    "Seconds for one step of the pictures in a tick",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
UNET_ROWS: Final = Counter(
    "darkroom_unet_rows_total",
    "Rows of the U-Net's batches: of pictures, and added to fill a recorded size",
    ["kind"],
)
QUEUE_SECONDS: Final = Histogram(
    "darkroom_queue_seconds", "Seconds from acceptance to a worker", ["tier"], buckets=_WAITS
)
FIRST_STEP_SECONDS: Final = Histogram(
    "darkroom_first_step_seconds", "Seconds from acceptance to the first step", ["tier"], buckets=_WAITS
)
MODEL_BYTES: Final = Gauge("darkroom_model_bytes", "Weights of the models on the device", ["model"])
SLOT_CAPACITY: Final = Gauge("darkroom_slot_capacity", "Pictures that can take a step together")
STILL_SECONDS: Final = Gauge(
    "darkroom_worker_still_seconds",
    "For how long a part of the worker with something to do has done nothing",
    ["part"],
)
EMBEDDINGS: Final = Counter("darkroom_embeddings_total", "Prompts embedded, by where from", ["source"])
CHECKOUTS: Final = Counter("darkroom_checkouts_total", "Payment pages asked for", ["outcome"])
WEBHOOKS: Final = Counter("darkroom_webhooks_total", "Payment webhooks, by what came of them", ["outcome"])
EVENT_LOOP_LAG_SECONDS: Final = Histogram(
    "darkroom_event_loop_lag_seconds",
    "How much later than due the event loop comes to something, ten times a second",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
SLOW_READERS: Final = Counter(
    "darkroom_slow_readers_total", "Websockets that were cut off because the client did not read"
)
SUBSCRIPTIONS: Final = Gauge("darkroom_subscriptions", "Live generationStatus subscriptions")
RATE_LIMITED: Final = Counter(
    "darkroom_rate_limited_total",
    "What was refused because a limit was reached, by what was asked for",
    ["action"],
)
DOCUMENTS_REFUSED: Final = Counter(
    "darkroom_documents_refused_total", "GraphQL documents that were too large, by the limit", ["limit"]
)
WEBSOCKETS: Final = Gauge("darkroom_websockets", "Open websocket connections")
WEBSOCKETS_CLOSED: Final = Counter(
    "darkroom_websockets_closed_total", "Websocket connections that the api closed, by code", ["code"]
)
OPERATION_COST: Final = Histogram(
    "darkroom_graphql_cost", "Cost of a GraphQL operation", buckets=(1, 10, 30, 100, 300, 1_000, 3_000)
)
OPERATIONS_TIMED_OUT: Final = Counter(
    "darkroom_graphql_timeouts_total", "GraphQL operations that took too long, by kind", ["operation"]
)
REQUEST_SECONDS: Final = Histogram("darkroom_graphql_seconds", "Seconds per GraphQL operation", ["operation"])
ACCOUNTS_DELETED: Final = Counter("darkroom_accounts_deleted_total", "Closed accounts that were deleted")
GENERATIONS_EXPIRED: Final = Counter(
    "darkroom_generations_expired_total", "Generations deleted because their time was over", ["tier"]
)
OBJECTS_DELETED: Final = Counter("darkroom_objects_deleted_total", "Pictures deleted from the object store")
LEFTOVERS_DELETED: Final = Counter(
    "darkroom_leftovers_deleted_total", "Pictures of attempts that were never reported, deleted"
)
ERASURES_DUE: Final = Gauge("darkroom_erasures_due", "Folders of the object store that wait to be emptied")
ROWS_SWEPT: Final = Counter("darkroom_rows_swept_total", "Rows deleted because they were over", ["table"])
SWEEPS_POSTPONED: Final = Counter(
    "darkroom_sweeps_postponed_total", "Sweeps of a table that the database did not answer", ["table"]
)
WINDOW_JOBS: Final = Histogram(
    "darkroom_window_jobs", "Jobs per batch window", buckets=(0, 1, 10, 100, 1_000, 10_000)
)
WINDOW_SECONDS: Final = Histogram(
    "darkroom_window_seconds",
    "Seconds from a batch window's opening to the end of its last job",
    buckets=(1, 5, 15, 60, 120, 300, 600, 900, 1200, 1500, 1800, 2700, 3600),
)
WINDOW_PUT_OFF: Final = Counter(
    "darkroom_window_put_off_total",
    "Jobs left to the next window for want of time in theirs",
)
BEATS_MADE_UP: Final = Counter(
    "darkroom_beats_made_up_total", "Beats of the window's clock that the broker had missed"
)


GRAPHQL_ERRORS: Final = Counter(
    "darkroom_graphql_errors_total", "Entries of `errors` that clients were told, by code", ["code"]
)
HTTP_SECONDS: Final = Histogram(
    "darkroom_http_seconds",
    "Seconds per HTTP request, by the first part of its path and the class of its status",
    ["route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
STORAGE_SECONDS: Final = Histogram(
    "darkroom_storage_seconds",
    "Seconds per request to the object store, by what it was and whether it was answered",
    ["operation", "outcome"],
    buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PUBLISH_SECONDS: Final = Histogram(
    "darkroom_publish_seconds",
    "Seconds until the broker has stored a message, or it was given up, by outcome",
    ["outcome"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 3, 10),
)
DATABASE_CONNECTIONS: Final = Gauge(
    "darkroom_database_connections", "Connections of this process's pool", ["state"]
)
DATABASE_WAIT_SECONDS: Final = Histogram(
    "darkroom_database_wait_seconds",
    "Seconds until a statement had a connection of the pool",
    buckets=(0.0001, 0.001, 0.01, 0.1, 0.5, 1, 2, 4),
)
DATABASE_UNAVAILABLE: Final = Counter(
    "darkroom_database_unavailable_total", "Statements that the server, or the way to it, did not answer"
)
STREAM_MESSAGES: Final = Gauge("darkroom_stream_messages", "Messages that a stream holds", ["stream"])
CONSUMER_WAITING: Final = Gauge(
    "darkroom_consumer_waiting", "Messages that a consumer has not been given yet", ["stream", "consumer"]
)
CONSUMER_UNANSWERED: Final = Gauge(
    "darkroom_consumer_unanswered", "Messages that readers hold and have not settled", ["stream", "consumer"]
)
WORKERS_ALIVE: Final = Gauge(
    "darkroom_workers", "Workers that give signs of life, by the tier that they serve", ["tier"]
)
WORKER_SLOTS: Final = Gauge(
    "darkroom_worker_slots",
    "Slots of the workers that give signs of life, by whether they are busy",
    ["state"],
)
JOBS_UNPUBLISHED: Final = Gauge(
    "darkroom_jobs_unpublished", "Accepted generations whose job waits for the relay"
)
GENERATIONS_OPEN: Final = Gauge(
    "darkroom_generations_open", "Generations that have not ended, by tier and state", ["tier", "state"]
)
WINDOW_OPEN_SECONDS: Final = Gauge(
    "darkroom_window_open_seconds", "For how long the oldest unfinished window has been open; 0 without one"
)
SURVEYED_AT: Final = Gauge(
    "darkroom_surveyed_timestamp_seconds", "When this batcher last looked at all of that"
)


# What is counted from nothing has grown with the first; a rate of what only then appears does not show it.
for _value in ("exhausted", "broken", "lost"):
    JOBS_DEAD.labels(why=_value)
for _value in ("PREMIUM", "NORMAL", "BATCH"):
    JOBS_LOST.labels(lane=_value)
for _value in ("INTERNAL", "SERVICE_UNAVAILABLE"):
    GRAPHQL_ERRORS.labels(code=_value)
for _value in ("query", "mutation"):
    OPERATIONS_TIMED_OUT.labels(operation=_value)
for _value in ("put", "get"):
    STORAGE_SECONDS.labels(operation=_value, outcome="failed")
for _value in ("subject", "connection"):
    BROKER_REFUSALS.labels(what=_value)
CHECKOUTS.labels(outcome="refused")
WEBHOOKS.labels(outcome="refused")
for _value in ("SUCCEEDED", "FAILED"):
    GENERATIONS_FINISHED.labels(tier="PREMIUM", state=_value)
    GENERATIONS_FINISHED.labels(tier="NORMAL", state=_value)


class _Lines(structlog.WriteLogger):
    """Writes the lines of one module; nothing stops where nobody reads them any longer."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = msg


def _json(event: Any, **options: Any) -> str:  # noqa: ANN401 - structlog's
    try:
        return orjson.dumps(event, default=options["default"]).decode()
    except TypeError:
        # A log line says also what is no Unicode.
        return json.dumps(event, **options)


def _name_trace(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    place = tracing.place()
    if place is not None:
        _version, event["trace_id"], event["span_id"], _flags = place.split("-")
    return event


def configure(settings: TelemetrySettings, *, process: str) -> None:
    """Send every log line of this process, the libraries' included, to standard error as one format.

    The libraries' come by way of ``logging``. Our own do not: its records, handlers and locks would cost as
    much as the line itself, which each request has. Traces are sent where an address is set, and the lines
    then name theirs.

    Raises:
        ConfigurationError: traces are to be sent, and what sends them is not installed.
    """
    _start_tracing(settings, process=process)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *((_name_trace,) if tracing.enabled() else ()),
    ]
    rendering: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_json)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _TELL_ALL:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    structlog.contextvars.bind_contextvars(process=process)


def _start_tracing(settings: TelemetrySettings, *, process: str) -> None:
    if settings.traces_url is None:
        return
    try:
        from core.otlp import OtlpTracer  # noqa: PLC0415 - tenths of a second and megabytes, for those who ask
    except ImportError as error:
        raise ConfigurationError(f"DARKROOM_TRACES_URL needs opentelemetry-sdk: {error}") from error
    tracing.start(OtlpTracer(url=settings.traces_url, share=settings.traces_sampled_share, process=process))


def serve_metrics(settings: TelemetrySettings) -> None:
    """Serve ``/metrics`` on its own port, unless it is 0."""
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)


@asynccontextmanager
async def event_loop_measured() -> AsyncIterator[None]:
    """Measure the event loop's lag while the block runs."""

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PAUSE
            await asyncio.sleep(_LAG_PAUSE)
            EVENT_LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - due))

    measuring = asyncio.create_task(measure())
    try:
        yield
    finally:
        measuring.cancel()
