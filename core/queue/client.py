"""The broker as the processes see it: jobs, results, progress, heartbeats and the window's clock."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from nats.js.errors import NotFoundError

from core.errors import ConflictError, InvalidMessageError, ServiceUnavailableError
from core.lifecycle import Tier
from core.messages import Control, Heartbeat, Job, Outcome, Progress, Started
from core.queue import topology
from core.queue.session import Session
from core.queue.topology import Lane, job_of_subject

_NO_SUCH_STREAM = 10059
"""The server's code."""

_JOB_PATIENCE = 3.0
"""Seconds: a customer waits for it, and what is not published then somebody relays."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What the window's clock ticks by, and since when the broker has it."""

    expression: str
    since: datetime


class Queue(Session):
    """What is said and asked over one connection to the broker.

    Everything that fails for the broker's sake raises :class:`~core.errors.ServiceUnavailableError`.
    """

    _schedule: str | None = None

    async def restore(self) -> None:
        """See :meth:`Session.restore`; a window's schedule that is gone is set again as well."""
        await super().restore()
        if self._schedule is not None:
            await self.keep_schedule(self._schedule)

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
        """The workers that gave a sign of life within the last seconds, by name, those that can be read."""
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
                try:
                    beats.append(Heartbeat.decode(entry.value or b""))
                except InvalidMessageError as error:
                    # Of another version: the others are not to be missed for it.
                    log.warning("message_unreadable", subject=subject, error=str(error))
        return beats

    async def schedule_window(self, expression: str) -> Schedule:
        """Make the broker tick by ``expression``, whatever it has ticked by.

        The same one that already stands is left alone: setting it again would shift ``@every`` ones.
        """
        self._schedule = expression
        standing = await self._standing_schedule()
        if standing is None or standing.expression != expression:
            headers = {"Nats-Schedule": expression, "Nats-Schedule-Target": topology.TICK_SUBJECT}
            await self._publish(topology.SCHEDULE_SUBJECT, b"", headers)
            standing = await self._standing_schedule()
        if standing is None:
            raise ServiceUnavailableError("broker: it has lost the window's schedule again")
        return standing

    async def keep_schedule(self, otherwise: str) -> Schedule:
        """What the broker ticks by; where that is gone it is set again, as it was last seen.

        One that was set meanwhile is that of a process which started later, and stands.

        Args:
            otherwise: what to set where this process has seen none.
        """
        standing = await self._standing_schedule()
        if standing is None:
            return await self.schedule_window(self._schedule or otherwise)
        self._schedule = standing.expression
        return standing

    async def _standing_schedule(self) -> Schedule | None:
        async with self._translated():
            try:
                stored = await self._js.get_last_msg("CLOCK", topology.SCHEDULE_SUBJECT)
            except NotFoundError:
                return None
        assert stored.time is not None  # noqa: S101 - the server stamps every stored message
        return Schedule(expression=(stored.headers or {})["Nats-Schedule"], since=stored.time)

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
