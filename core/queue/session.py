"""A session with the broker: the connection, and that all is there which is declared on it."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Self, TypeVar

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from nats.js.errors import Error as JetStreamError

from core import tracing
from core.errors import ConflictError, DarkroomError, InvalidMessageError, ServiceUnavailableError
from core.messages import Message
from core.queue import topology
from core.queue.connection import Connection
from core.queue.consumer import Consumer, Standing
from core.queue.role import Role
from core.queue.topology import ConsumerSpec
from core.settings import BrokerSettings
from core.telemetry import PUBLISH_SECONDS, STREAM_RECREATIONS

_SUBJECT_TAKEN = 10077
"""The server's code for a second message on a subject that may hold one."""

_CONNECT_PAUSE = 1.0
_CONNECT_TIMEOUT = 5.0
_PUBLISH_TRIES = 3
_PUBLISH_PAUSE = 0.2
_API_TIMEOUT = 3.0
_PATIENCE = 10.0
_FLUSH_TIMEOUT = 2

_PUBLISHED = {outcome: PUBLISH_SECONDS.labels(outcome=outcome) for outcome in ("stored", "held", "failed")}

_Message = TypeVar("_Message", bound=Message)

log = structlog.get_logger(__name__)


class Session:
    """One connection to the broker.

    Everything that fails for the broker's sake raises :class:`~core.errors.ServiceUnavailableError`.
    """

    def __init__(self, settings: BrokerSettings, *, name: str, role: Role = Role.OPERATOR) -> None:
        """Make it, without connecting.

        Args:
            settings: where the broker is.
            name: by which the broker's own reports know the connection.
            role: what is done over it.

        Raises:
            ConfigurationError: the file of the authorities cannot be read.
        """
        self._settings = settings
        self._role = role
        self._client = Connection(settings, role=role, name=name)
        self._js: JetStreamContext = self._client.jetstream(timeout=_API_TIMEOUT)
        self._patience = settings.nats_ack_wait_seconds / topology.JOB_ACK_WAIT
        self._consumers: list[Consumer] = []
        self._opening = False
        self._opened = False
        self._doubtful = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def connect(cls, settings: BrokerSettings, *, name: str, role: Role = Role.OPERATOR) -> Self:
        """Connect as ``name``, and keep connecting for ever after a loss.

        Raises:
            ServiceUnavailableError: the first connection failed.
        """
        session = cls(settings, name=name, role=role)
        try:
            # With reconnections unbounded the library would wait for the first connection for ever as well.
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await session._connect(patient=False)
        except (NatsError, OSError) as error:
            reason = session._client.trouble if isinstance(error, TimeoutError) else repr(error)
            await session.close()
            raise ServiceUnavailableError(f"broker {settings.nats_url}: {reason}") from error
        except ServiceUnavailableError:
            await session.close()
            raise
        return session

    @classmethod
    async def connect_when_there(
        cls, settings: BrokerSettings, *, name: str, role: Role = Role.OPERATOR
    ) -> Self:
        """Connect as :meth:`open` does, waiting for the broker: processes start in any order.

        Raises:
            ConfigurationError: a stream exists with other settings.
        """
        session = cls(settings, name=name, role=role)
        try:
            await session.open()
        except BaseException:
            await session.close()
            raise
        return session

    async def open(self) -> None:
        """Connect, and have every stream and consumer there, for as long as that takes.

        They are declared where that is the role's part, and waited for where it is not. All else is
        unavailable until then.

        Raises:
            ConfigurationError: a stream exists with other settings.
        """
        await self._connect(patient=True)
        while True:
            try:
                await (self.declare() if self._role.declares else self._find_needs())
            except ServiceUnavailableError as error:
                log.warning("waiting_for_broker", error=str(error))
                await asyncio.sleep(_CONNECT_PAUSE)
            else:
                return

    async def _connect(self, *, patient: bool) -> None:
        self._opening = True
        await self._client.open(reconnected=self._doubtful.set, patient=patient)
        self._opened = True
        if self._role.declares:
            self._tasks.append(asyncio.create_task(self._restore_what_is_doubtful()))

    async def _find_needs(self) -> None:
        for spec in self._role.needs:
            await self.standing(spec)

    async def close(self) -> None:
        """Flush what was published and disconnect; every fetch must have ended before."""
        for task in self._tasks:
            task.cancel()
        # Draining would wait 30 s for subscriptions whose last answer to a fetch nobody reads any more.
        if self._client.is_connected:
            with suppress(NatsError):
                await self._client.flush(timeout=_FLUSH_TIMEOUT)
        if self._opening:
            await self._client.close()

    @property
    def connected(self) -> bool:
        """Whether the connection stands."""
        return self._client.is_connected

    @property
    def healthy(self) -> bool:
        """Whether the connection stands and every consumer in use answers."""
        return self._client.is_connected and all(consumer.healthy for consumer in self._consumers)

    @property
    def trouble(self) -> str | None:
        """Why there is no connection, for an operator; none while there is one."""
        return self._client.trouble

    @property
    def refusal(self) -> str | None:
        """What the broker did not let this process do within the last minute, if anything."""
        return self._client.refusal

    async def declare(self, *, update: bool = False) -> list[str]:
        """Create or check every stream and bucket; see :func:`core.queue.topology.declare_streams`."""
        async with self._translated():
            created = await topology.declare_streams(
                self._js, replicas=self._settings.nats_replicas, update=update
            )
            for spec in topology.CONSUMERS:
                await topology.declare_consumer(self._js, self._as_set(spec))
        return created

    async def restore(self) -> None:
        """Declare again what is gone of streams and consumers. Cheap where nothing is.

        Raises:
            ConfigurationError: a stream exists with other settings.
            ServiceUnavailableError: the broker does not answer.
        """
        created = await self.declare()
        if created:
            STREAM_RECREATIONS.inc(len(created))
            log.warning("streams_declared_again", streams=created)

    async def _restore_what_is_doubtful(self) -> None:
        """A server that came back alone has lost what it kept in memory, and somebody may delete a stream."""
        while True:
            await self._doubtful.wait()
            self._doubtful.clear()
            try:
                await self.restore()
            except DarkroomError as error:
                log.warning("declaring_again_failed", error=str(error))
                self._doubtful.set()
            await asyncio.sleep(_CONNECT_PAUSE)

    def consumer(self, spec: ConsumerSpec) -> Consumer:
        """A reader of one consumer, which is declared when first needed and again when lost."""
        consumer = Consumer(
            client=self._client,
            js=self._js,
            spec=self._as_set(spec),
            declares=self._role.declares,
            lost=self._doubtful.set,
        )
        self._consumers.append(consumer)
        return consumer

    def ack_wait(self, spec: ConsumerSpec) -> float:
        """Seconds without a sign of life after which the broker gives a message to another reader."""
        return self._as_set(spec).ack_wait

    def _as_set(self, spec: ConsumerSpec) -> ConsumerSpec:
        return replace(spec, ack_wait=spec.ack_wait * self._patience)

    async def standing(self, spec: ConsumerSpec) -> Standing:
        """How far a consumer has come."""
        async with self._translated():
            info = await self._js.consumer_info(spec.stream, spec.name)
        assert info.ack_floor is not None  # noqa: S101 - the server always tells both
        assert info.delivered is not None  # noqa: S101
        return Standing(
            settled=info.ack_floor.stream_seq,
            delivered=info.delivered.stream_seq,
            waiting=info.num_pending or 0,
            unanswered=info.num_ack_pending or 0,
        )

    async def _subscribe(
        self, subject: str, kind: type[_Message], receive: Callable[[_Message], None]
    ) -> Callable[[], Awaitable[None]]:
        async def on_message(message: Msg) -> None:
            try:
                receive(kind.decode(message.data))
            except InvalidMessageError as error:
                log.warning("message_unreadable", subject=message.subject, error=str(error))

        if not self._opened:
            raise ServiceUnavailableError("broker: not connected")
        try:
            # One that is made while the connection is lost begins once it is back.
            subscription = await self._client.subscribe(subject, cb=on_message)
        except NatsError as error:
            raise ServiceUnavailableError(f"broker: {error!r}") from error

        async def stop() -> None:
            if not self._client.is_closed:
                await subscription.unsubscribe()

        return stop

    async def _publish(
        self, subject: str, data: bytes, headers: dict[str, str], *, patience: float = _PATIENCE
    ) -> None:
        """Publish and wait until it is stored; tried again for ``patience`` seconds while no answer comes."""
        if not self._opened:
            # The library would take it, and never read an answer again.
            raise ServiceUnavailableError("broker: not connected")
        headers = {**headers, **tracing.headers()}
        deadline = time.monotonic() + patience
        for attempt in itertools.count(1):
            timeout = max(_PUBLISH_PAUSE, min(deadline - time.monotonic(), _API_TIMEOUT))
            begun = time.monotonic()
            try:
                await self._js.publish(subject, data, headers=headers or None, timeout=timeout)
            except APIError as error:
                if error.err_code == _SUBJECT_TAKEN:
                    _told("held", begun)
                    raise ConflictError(subject) from error
                failure: Exception = error
            except (NatsError, JetStreamError) as error:
                if isinstance(error, NoStreamResponseError):
                    self._doubtful.set()
                failure = error
            else:
                _told("stored", begun)
                return
            _told("failed", begun)
            if refusal := self._client.refused(subject):
                raise ServiceUnavailableError(f"broker: {refusal}") from failure
            pause = _PUBLISH_PAUSE * attempt
            if attempt == _PUBLISH_TRIES or time.monotonic() + pause >= deadline:
                # An error of the server says what is wrong, one of the library only of which kind it is.
                reason = str(failure) if isinstance(failure, APIError) else repr(failure)
                raise ServiceUnavailableError(f"broker: publish {subject}: {reason}") from failure
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Turn the client library's errors into ours; without a connection nobody waits for an answer.

        Raises:
            ServiceUnavailableError: the broker does not answer, or lacks a stream, which is then declared.
        """
        if trouble := self._client.trouble:
            raise ServiceUnavailableError(f"broker: {trouble}")
        try:
            yield
        except (NatsError, JetStreamError, json.JSONDecodeError) as error:
            if isinstance(error, (NotFoundError, NoStreamResponseError)):
                self._doubtful.set()
            raise ServiceUnavailableError(f"broker: {error!r}") from error


def _told(outcome: str, begun: float) -> None:
    """Count one attempt to publish, which began at a moment of the monotonic clock."""
    _PUBLISHED[outcome].observe(time.monotonic() - begun)
