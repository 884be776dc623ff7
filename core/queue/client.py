"""The broker as the processes see it: jobs, results, progress, heartbeats and the window's clock."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Self, TypeVar
from uuid import UUID

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from nats.js.errors import Error as JetStreamError

from core import tracing
from core.errors import ConflictError, DarkroomError, InvalidMessageError, ServiceUnavailableError
from core.lifecycle import Tier
from core.messages import Control, Heartbeat, Job, Message, Outcome, Progress, Started
from core.queue import topology
from core.queue.connection import Connection
from core.queue.consumer import Consumer, Standing
from core.queue.role import Role
from core.queue.topology import ConsumerSpec, Lane, job_of_subject
from core.settings import BrokerSettings
from core.telemetry import PUBLISH_SECONDS, STREAM_RECREATIONS

_NO_SUCH_STREAM = 10059
_SUBJECT_TAKEN = 10077
"""Codes of the server; the latter is that of a second message on a subject that may hold one."""

_CONNECT_PAUSE = 1.0
_CONNECT_TIMEOUT = 5.0
_PUBLISH_TRIES = 3
_PUBLISH_PAUSE = 0.2
_API_TIMEOUT = 3.0
_PATIENCE = 10.0
_JOB_PATIENCE = 3.0
"""Seconds: a customer waits for it, and what is not published then somebody relays."""

_FLUSH_TIMEOUT = 2

_PUBLISHED = {outcome: PUBLISH_SECONDS.labels(outcome=outcome) for outcome in ("stored", "held", "failed")}

_Message = TypeVar("_Message", bound=Message)

log = structlog.get_logger(__name__)


class Queue:
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
        self._schedule: str | None = None
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
        queue = cls(settings, name=name, role=role)
        try:
            # With reconnections unbounded the library would wait for the first connection for ever as well.
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await queue._connect(patient=False)
        except (NatsError, OSError) as error:
            reason = queue._client.trouble if isinstance(error, TimeoutError) else repr(error)
            await queue.close()
            raise ServiceUnavailableError(f"broker {settings.nats_url}: {reason}") from error
        except ServiceUnavailableError:
            await queue.close()
            raise
        return queue

    @classmethod
    async def connect_when_there(
        cls, settings: BrokerSettings, *, name: str, role: Role = Role.OPERATOR
    ) -> Self:
        """Connect as :meth:`open` does, waiting for the broker: processes start in any order.

        Raises:
            ConfigurationError: a stream exists with other settings.
        """
        queue = cls(settings, name=name, role=role)
        try:
            await queue.open()
        except BaseException:
            await queue.close()
            raise
        return queue

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
        """Declare again what is gone: streams, consumers, the window's schedule. Cheap where nothing is.

        Raises:
            ConfigurationError: a stream exists with other settings.
            ServiceUnavailableError: the broker does not answer.
        """
        created = await self.declare()
        if created:
            STREAM_RECREATIONS.inc(len(created))
            log.warning("streams_declared_again", streams=created)
        if self._schedule is not None:
            await self.schedule_window(self._schedule)

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

    async def publish_job(self, lane: Lane, job: Job) -> bool:
        """Put a job into a lane; false when the broker already holds it there, which is as good."""
        try:
            async with self._translated():
                await self._publish(lane.subject(job.id), job.encode(), {}, patience=_JOB_PATIENCE)
        except ConflictError:
            return False
        return True

    async def purge_job(self, lane: Lane, job_id: UUID) -> None:
        """Take a job out of a lane, in flight or not."""
        async with self._translated():
            await self._js.purge_stream(lane.value, subject=lane.subject(job_id))

    async def position_of(self, lane: Lane, job_id: UUID) -> int | None:
        """The sequence at which the lane holds the job, waiting or in flight, or none when it does not."""
        async with self._translated():
            try:
                return (await self._js.get_last_msg(lane.value, lane.subject(job_id))).seq
            except NotFoundError as error:
                if error.err_code == _NO_SUCH_STREAM:
                    raise
                return None

    async def last_stored(self, stream: str) -> int:
        """The sequence of the newest message that a stream has stored."""
        async with self._translated():
            return (await self._js.stream_info(stream)).state.last_seq

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

    async def job_at(self, lane: Lane, sequence: int) -> UUID | None:
        """Whose job is stored at a position of a lane, or none when it is gone or nobody's."""
        async with self._translated():
            try:
                message = await self._js.get_msg(lane.value, seq=sequence)
            except NotFoundError:
                return None
        return job_of_subject(message.subject or "")

    async def depth(self, lane: Lane) -> int:
        """How many jobs the lane holds, those in flight included."""
        return await self.held_by(lane.value)

    async def held_by(self, stream: str) -> int:
        """How many messages a stream holds."""
        async with self._translated():
            return (await self._js.stream_info(stream)).state.messages

    async def publish_result(self, tier: Tier, result: Started | Outcome) -> None:
        """Report on a job; the same report twice is stored once while the broker remembers it."""
        message_id = f"{result.id}-{result.worker}-{result.attempt}-{result.kind}"
        await self._publish(topology.result_subject(tier), result.encode(), {"Nats-Msg-Id": message_id})

    async def publish_progress(self, progress: Progress) -> None:
        """Publish a live status; it may be lost."""
        async with self._translated():
            await self._client.publish(topology.progress_subject(progress.id), progress.encode())

    async def last_progress(self, job_id: UUID) -> Progress | None:
        """The last live status of a job, if the broker still has it; it may be lost."""
        try:
            async with self._translated():
                try:
                    message = await self._js.get_last_msg(
                        "PROGRESS", topology.progress_subject(job_id), direct=True
                    )
                except NotFoundError:
                    return None
        except ServiceUnavailableError as error:
            log.warning("progress_lost", generation=str(job_id), error=str(error))
            return None
        return Progress.decode(message.data or b"")

    async def subscribe_progress(
        self, job_id: UUID, receive: Callable[[Progress], None]
    ) -> Callable[[], Awaitable[None]]:
        """Call ``receive`` with every live status of a job from now on; returns how to stop."""
        return await self._subscribe(topology.progress_subject(job_id), Progress, receive)

    async def publish_control(self, control: Control) -> None:
        """Send an order to whichever worker runs the job."""
        async with self._translated():
            await self._client.publish(topology.control_subject(control.id), control.encode())

    async def subscribe_control(self, receive: Callable[[Control], None]) -> Callable[[], Awaitable[None]]:
        """Call ``receive`` with every order about any job from now on; returns how to stop."""
        return await self._subscribe(topology.CONTROL_SUBJECTS, Control, receive)

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

    async def put_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Say that a worker is alive and what it can do."""
        await self._say(heartbeat.worker, heartbeat.encode())

    async def remove_heartbeat(self, worker: str) -> None:
        """Forget a worker that leaves."""
        await self._say(worker, b"", {"KV-Operation": "DEL"})

    async def _say(self, worker: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        # As the library's bucket does it, which first asks for the stream under it: more than a worker may.
        async with self._translated():
            await self._js.publish(f"{topology.WORKERS_PREFIX}{worker}", data, headers=headers)

    async def workers(self) -> list[Heartbeat]:
        """The workers that gave a sign of life within the last seconds, by name.

        Raises:
            InvalidMessageError: one speaks another version.
        """
        beats = []
        async with self._translated():
            bucket = await self._js.key_value(topology.WORKERS_BUCKET)
            # Not `bucket.keys`: each call leaves a consumer behind on the server, for five minutes.
            info = await self._js.stream_info(topology.WORKERS_STREAM, subjects_filter=">")
            for subject in sorted(info.state.subjects or {}):
                try:
                    entry = await bucket.get(subject.removeprefix(topology.WORKERS_PREFIX))
                except NotFoundError:
                    continue
                beats.append(Heartbeat.decode(entry.value or b""))
        return beats

    async def schedule_window(self, expression: str) -> datetime:
        """Make the broker tick by ``expression``; returns since when it does so.

        A schedule that already stands is left alone: setting it again would shift ``@every`` ones.
        """
        self._schedule = expression
        async with self._translated():
            try:
                standing = await self._js.get_last_msg("CLOCK", topology.SCHEDULE_SUBJECT)
            except NotFoundError:
                standing = None
            if standing is None or (standing.headers or {}).get("Nats-Schedule") != expression:
                headers = {"Nats-Schedule": expression, "Nats-Schedule-Target": topology.TICK_SUBJECT}
                await self._publish(topology.SCHEDULE_SUBJECT, b"", headers)
                standing = await self._js.get_last_msg("CLOCK", topology.SCHEDULE_SUBJECT)
        assert standing.time is not None  # noqa: S101 - the server stamps every stored message
        return standing.time

    async def beat(self) -> None:
        """Make the clock beat once beside its schedule; one that is still waiting is replaced."""
        await self._publish(topology.TICK_SUBJECT, b"", {})

    async def last_beat_at(self) -> datetime | None:
        """When the clock has beaten last, by its schedule or beside it, or none if it never has."""
        async with self._translated():
            try:
                return (await self._js.get_last_msg("CLOCK", topology.TICK_SUBJECT)).time
            except NotFoundError:
                return None

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
