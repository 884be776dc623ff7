"""Every stream, consumer and bucket, declared in one place.

A declaration is checked against the server when a process starts: what is missing is created, what exists
with other settings is an error that names the difference, unless the caller asks for it to be changed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from core.errors import ConfigurationError
from core.lifecycle import Tier

MAX_DELIVER: Final = 5
"""Deliveries of one job before it counts as exhausted."""

JOB_ACK_WAIT: Final = 15.0
"""Seconds without a sign of life after which a job goes to another worker."""

WORKERS_BUCKET: Final = "WORKERS"
WORKERS_STREAM: Final = f"KV_{WORKERS_BUCKET}"
"""The stream under the bucket, as the server names it."""

WORKERS_PREFIX: Final = f"$KV.{WORKERS_BUCKET}."
"""What the subject of a worker has before its name."""

HEARTBEAT_TTL: Final = 10.0
"""Seconds after which a silent worker is forgotten."""

SCHEDULE_SUBJECT: Final = "clock.schedule.batch"
TICK_SUBJECT: Final = "clock.tick.batch"


RESULTS: Final = "RESULTS"
"""The stream of what workers report."""


class Lane(StrEnum):
    """The three queues of jobs: each a stream of this name."""

    PREMIUM = "PREMIUM"
    NORMAL = "NORMAL"
    BATCH = "BATCH"

    def subject(self, job_id: UUID) -> str:
        """The one subject of a job in this lane."""
        return f"jobs.{self.value.lower()}.{job_id}"

    @classmethod
    def of(cls, tier: Tier) -> "Lane":
        """The lane that a newly accepted job of a tier enters."""
        return cls.PREMIUM if tier is Tier.PREMIUM else cls.NORMAL


def job_of_subject(subject: str) -> UUID | None:
    """Whose job a message is that lies on a lane's subject; none when that is nobody's."""
    try:
        return UUID(subject.rpartition(".")[2])
    except ValueError:
        return None


def result_subject(tier: Tier) -> str:
    """Where a worker reports on jobs of a tier."""
    return f"results.{tier.value.lower()}"


def progress_subject(job_id: UUID) -> str:
    """Where a job's live status is published."""
    return f"progress.{job_id}"


CONTROL_SUBJECTS: Final = "control.*"
"""Orders about any job."""


def control_subject(job_id: UUID) -> str:
    """Where orders about a running job are published."""
    return f"control.{job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acks. ``ack_wait`` in seconds."""

    stream: str
    name: str
    filter_subject: str
    ack_wait: float
    max_deliver: int = -1
    max_ack_pending: int = 10_000

    def config(self) -> api.ConsumerConfig:
        """The declaration in the client library's words."""
        return api.ConsumerConfig(
            # With a name the request's subject names consumer and filter, so that permissions can.
            name=self.name,
            durable_name=self.name,
            filter_subject=self.filter_subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait,
            max_deliver=self.max_deliver,
            max_ack_pending=self.max_ack_pending,
        )


PREMIUM_JOBS: Final = ConsumerSpec(
    stream="PREMIUM",
    name="gpu_worker",
    filter_subject="jobs.premium.>",
    ack_wait=JOB_ACK_WAIT,
    max_deliver=MAX_DELIVER,
)
BATCH_JOBS: Final = ConsumerSpec(
    stream="BATCH",
    name="gpu_worker",
    filter_subject="jobs.batch.>",
    ack_wait=JOB_ACK_WAIT,
    max_deliver=MAX_DELIVER,
)
# A job waits here for its window, fetched at most once or twice; a window may be large.
NORMAL_JOBS: Final = ConsumerSpec(
    stream="NORMAL", name="batcher", filter_subject="jobs.normal.>", ack_wait=20, max_ack_pending=1_000_000
)
PREMIUM_RESULTS: Final = ConsumerSpec(
    stream="RESULTS", name="api", filter_subject="results.premium", ack_wait=10, max_ack_pending=1_000
)
NORMAL_RESULTS: Final = ConsumerSpec(
    stream="RESULTS", name="batcher", filter_subject="results.normal", ack_wait=10, max_ack_pending=1_000
)
# Longer than the wait of NORMAL_JOBS: a tick that comes again finds the jobs of its first try available.
TICKS: Final = ConsumerSpec(
    stream="CLOCK", name="batcher", filter_subject="clock.tick.>", ack_wait=30, max_ack_pending=1
)
EXHAUSTED: Final = ConsumerSpec(
    stream="ADVISORIES",
    name="reconciler",
    filter_subject="$JS.EVENT.ADVISORY.CONSUMER.>",
    ack_wait=30,
    max_ack_pending=1_000,
)
CONSUMERS: Final = (
    PREMIUM_JOBS,
    BATCH_JOBS,
    NORMAL_JOBS,
    PREMIUM_RESULTS,
    NORMAL_RESULTS,
    TICKS,
    EXHAUSTED,
)


def _work_queue(name: str, subject: str, **settings: Any) -> api.StreamConfig:  # noqa: ANN401 - StreamConfig's own fields
    return api.StreamConfig(
        name=name,
        subjects=[subject],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        **settings,
    )


def _jobs(lane: Lane) -> api.StreamConfig:
    # One message per job and subject: a second publish is refused while the first is queued or in flight.
    return _work_queue(
        lane.value,
        f"jobs.{lane.value.lower()}.*",
        max_msgs_per_subject=1,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
    )


def streams(replicas: int) -> list[api.StreamConfig]:
    """Every stream, with so many copies."""
    declared = [
        *(_jobs(lane) for lane in Lane),
        _work_queue(RESULTS, "results.*"),
        # Limits retention: in a work queue the schedule itself would die with an ack. One tick is kept,
        # so windows missed while everything was down run once.
        api.StreamConfig(
            name="CLOCK",
            retention=api.RetentionPolicy.LIMITS,
            subjects=["clock.schedule.*", "clock.tick.*"],
            storage=api.StorageType.FILE,
            allow_msg_schedules=True,
            allow_msg_ttl=True,
            max_msgs_per_subject=1,
        ),
        api.StreamConfig(
            name="ADVISORIES",
            retention=api.RetentionPolicy.LIMITS,
            subjects=[
                "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
                "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
            ],
            storage=api.StorageType.FILE,
            max_age=7 * 24 * 3600,
        ),
        api.StreamConfig(
            name="PROGRESS",
            retention=api.RetentionPolicy.LIMITS,
            subjects=["progress.*"],
            storage=api.StorageType.MEMORY,
            max_msgs_per_subject=1,
            max_age=600,
            allow_direct=True,
        ),
    ]
    for config in declared:
        config.num_replicas = replicas
    return declared


COMPARED: Final = (
    "subjects",
    "retention",
    "storage",
    "num_replicas",
    "max_msgs_per_subject",
    "discard",
    "discard_new_per_subject",
    "max_age",
    "allow_msg_schedules",
)
"""Settings of a stream that have to be as declared."""


async def declare_streams(js: JetStreamContext, *, replicas: int, update: bool = False) -> list[str]:
    """Create the streams that are missing and check those that exist.

    Returns:
        The names of those that were missing.

    Raises:
        ConfigurationError: a stream exists with other settings and ``update`` is off; names stream, field,
            both values and the command that changes it.
    """
    created = []
    for wanted in streams(replicas):
        assert wanted.name  # noqa: S101 - declared above with a name; the library types it as optional
        try:
            existing = (await js.stream_info(wanted.name)).config
        except NotFoundError:
            await js.add_stream(wanted)
            created.append(wanted.name)
            continue
        differences = [
            f"{field} is {getattr(existing, field)!r}, declared {getattr(wanted, field)!r}"
            for field in COMPARED
            if (getattr(existing, field) or None) != (getattr(wanted, field) or None)
        ]
        if not differences:
            continue
        if not update:
            raise ConfigurationError(
                f"stream {wanted.name}: {'; '.join(differences)} (`darkroom streams --update` changes it)"
            )
        await js.update_stream(wanted)
    await _declare_workers_bucket(js, replicas=replicas)
    return created


async def _declare_workers_bucket(js: JetStreamContext, *, replicas: int) -> None:
    await js.create_key_value(
        api.KeyValueConfig(
            bucket=WORKERS_BUCKET,
            ttl=HEARTBEAT_TTL,
            history=1,
            storage=api.StorageType.MEMORY,
            replicas=replicas,
        )
    )


async def declare_consumer(js: JetStreamContext, spec: ConsumerSpec) -> None:
    """Create or update one consumer; safe to call from any number of processes."""
    await js.add_consumer(spec.stream, spec.config())
