"""Reading from JetStream: fetches that survive lost consumers, and deliveries that are settled once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError

from core import tracing
from core.queue.topology import ConsumerSpec, declare_consumer
from core.telemetry import CONSUMER_RECREATIONS

LONGEST_FETCH: Final = 5.0
"""Seconds. A fetch in flight while the server restarts sleeps for its whole timeout."""

_RECREATION_PAUSE = 1.0
_CONNECTION_PAUSE = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that was handed to us and waits to be settled."""

    _message: Msg

    @property
    def data(self) -> bytes:
        """The body."""
        return self._message.data

    @property
    def subject(self) -> str:
        """The subject that it was published on."""
        return self._message.subject

    @property
    def headers(self) -> dict[str, str]:
        """The headers, empty when there are none."""
        return self._message.headers or {}

    @property
    def traceparent(self) -> str | None:
        """Where in a trace it was published; none where that was in no trace."""
        return self.headers.get(tracing.HEADER)

    @property
    def attempt(self) -> int:
        """How often it has been delivered, this time included; from 1."""
        return int(self._message.metadata.num_delivered or 1)

    @property
    def stored_at(self) -> datetime:
        """When the broker stored it."""
        return self._message.metadata.timestamp

    async def ack(self) -> None:
        """Settle it, and wait until the broker has said so.

        A lost answer is no harm: the message comes again, and what it caused is recorded only once.
        """
        with self._forgiving("ack"):
            await self._message.ack_sync(timeout=LONGEST_FETCH)

    async def nak(self, *, delay: float) -> None:
        """Hand it back, to be delivered again after ``delay`` seconds, or at once for 0."""
        with self._forgiving("nak"):
            await self._message.nak(delay=delay)

    async def reject(self) -> None:
        """Say that delivering it again cannot help; an advisory tells the reconciler."""
        with self._forgiving("reject"):
            await self._message.term()

    async def in_progress(self) -> None:
        """Say that it is being worked on, which starts its wait anew."""
        with self._forgiving("in_progress"):
            await self._message.in_progress()

    @contextmanager
    def _forgiving(self, answer: str) -> Iterator[None]:
        """Whatever answer is lost, the message comes again when its wait is over."""
        try:
            yield
        except (NatsError, JetStreamError) as error:
            log.warning("answer_unconfirmed", answer=answer, subject=self.subject, error=repr(error))


@asynccontextmanager
async def signs_of_life(held: Callable[[], Collection[Delivery]], *, every: float) -> AsyncIterator[None]:
    """Keep messages from being delivered to somebody else while the block runs, however long that takes.

    Args:
        held: those that are held at the moment.
        every: seconds between two signs, well under the wait of their consumers.
    """

    async def keep() -> None:
        while True:
            await asyncio.sleep(every)
            await asyncio.gather(*(message.in_progress() for message in held()))

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a consumer has come.

    Attributes:
        settled: up to this sequence of its stream nothing is to be delivered any more.
        delivered: up to this sequence everything was delivered at least once.
        waiting: how many messages were not delivered yet.
        unanswered: how many were delivered and are not settled, those that come again among them.
    """

    settled: int
    delivered: int
    waiting: int
    unanswered: int

    def is_past(self, sequence: int) -> bool:
        """Whether everything for it up to a sequence is settled."""
        return not (self.waiting or self.unanswered) or self.settled >= sequence

    def gave_up(self, sequence: int) -> bool:
        """Whether what a work queue still holds there will not come again.

        Of what was delivered too often the server says nothing but that nobody owes it an answer, which is
        to be seen only while nobody owes one for anything else.
        """
        return not self.unanswered and sequence <= self.delivered


class Consumer:
    """One durable consumer. What the broker does to it makes a fetch come back empty."""

    def __init__(
        self,
        *,
        client: Client,
        js: JetStreamContext,
        spec: ConsumerSpec,
        declares: bool,
        lost: Callable[[], None],
    ) -> None:
        """Make a reader.

        Args:
            client: the connection.
            js: JetStream over it.
            spec: what to read.
            declares: whether to create the consumer where it is missing, instead of waiting for it.
            lost: called when the broker does not know the consumer, so that its stream may be gone too.
        """
        self._client = client
        self._js = js
        self._spec = spec
        self._declares = declares
        self._tell_lost = lost
        self._subscription: JetStreamContext.PullSubscription | None = None
        self.healthy = False

    @property
    def ack_wait(self) -> float:
        """Seconds without a sign of life after which the broker gives a message to another reader."""
        return self._spec.ack_wait

    async def fetch(self, count: int, *, wait: float = LONGEST_FETCH) -> list[Delivery]:
        """Up to ``count`` messages, as soon as there is one, or none after ``wait`` seconds.

        Must not be cancelled: a cancelled fetch swallows the message that answers it.

        Raises:
            ServiceUnavailableError: the connection was closed for good, so that the process had better end.
        """
        if not self._client.is_connected:
            await asyncio.sleep(min(wait, _CONNECTION_PAUSE))
            return []
        try:
            subscription = self._subscription or await self._bind()
            messages = await subscription.fetch(count, timeout=min(wait, LONGEST_FETCH))
        except TimeoutError:
            # The client library's own, or the plain one that it raises when it was held up itself.
            return []
        except (NatsError, JetStreamError) as error:
            await self._lost(error)
            return []
        return [Delivery(message) for message in messages]

    async def _bind(self) -> JetStreamContext.PullSubscription:
        if self._declares:
            await declare_consumer(self._js, self._spec)
        else:
            await self._js.consumer_info(self._spec.stream, self._spec.name)
        self._subscription = await self._js.pull_subscribe_bind(
            durable=self._spec.name, stream=self._spec.stream
        )
        self.healthy = True
        return self._subscription

    async def _lost(self, error: Exception) -> None:
        self._subscription = None
        self.healthy = False
        self._tell_lost()
        CONSUMER_RECREATIONS.labels(stream=self._spec.stream).inc()
        log.warning("consumer_lost", stream=self._spec.stream, consumer=self._spec.name, error=repr(error))
        await asyncio.sleep(_RECREATION_PAUSE)
