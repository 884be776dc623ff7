"""Who is connected, as the broker's configuration knows them (``infra/nats/nats.conf``)."""

from enum import StrEnum

from core.queue.topology import BATCH_JOBS, PREMIUM_JOBS, PREMIUM_RESULTS, ConsumerSpec


class Role(StrEnum):
    """What a process does with the broker; it may do nothing else where that is held to its permissions."""

    API = "api"
    BATCHER = "batcher"
    GPU_WORKER = "gpu_worker"
    OPERATOR = "operator"
    """The ``darkroom`` command."""

    @property
    def inbox(self) -> str:
        """What the subjects of all answers to it begin with: no other role may listen there."""
        return f"_INBOX_{self.value}"

    @property
    def declares(self) -> bool:
        """Whether it creates the streams and consumers that are missing; the others wait for them."""
        return self in {Role.BATCHER, Role.OPERATOR}

    @property
    def needs(self) -> tuple[ConsumerSpec, ...]:
        """The consumers without which one that declares none cannot begin."""
        return {Role.API: (PREMIUM_RESULTS,), Role.GPU_WORKER: (PREMIUM_JOBS, BATCH_JOBS)}.get(self, ())
