"""An engine in this process, at work on its own thread, and ears for what it makes."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from PIL import Image

from benchmarks.processes import BenchmarkError
from core.catalogue import ModelEntry
from core.clock import now
from core.lifecycle import Delivery, Tier
from core.messages import Job, Parameters
from gpu_worker.engine import Engine, Picture, Policy, pictures_of
from gpu_worker.pipeline import Placement

_LONGEST_PICTURE: Final = 300.0


class Ears:
    """Passes on what becomes of each picture, from the engine's threads to whoever waits for it."""

    def __init__(self) -> None:
        self._made: queue.SimpleQueue[tuple[UUID, Image.Image | Exception]] = queue.SimpleQueue()

    def next(self, *, seconds: float) -> tuple[UUID, Image.Image] | None:
        """The next finished picture and its job, or none within ``seconds``.

        Raises:
            BenchmarkError: a picture failed.
        """
        try:
            job, made = self._made.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(made, Exception):
            raise BenchmarkError(f"a picture failed: {made!r}") from made
        return job, made

    def joined(self, picture: Picture) -> None:
        """See :class:`gpu_worker.engine.Listener`."""

    def stepped(self, picture: Picture, step: int) -> None:
        """See :class:`gpu_worker.engine.Listener`."""

    def wants_preview(self, picture: Picture) -> bool:  # noqa: ARG002 - a listener
        """See :class:`gpu_worker.engine.Listener`."""
        return False

    def previewed(self, picture: Picture, image: Image.Image) -> None:
        """See :class:`gpu_worker.engine.Listener`."""

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:
        """See :class:`gpu_worker.engine.Listener`."""
        self._made.put((picture.job, made))


class Studio:
    """Takes orders for an engine.

    Args:
        engine: warm, and served.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.ears = Ears()

    def submit(self, asked: Parameters, *, tier: Tier) -> UUID:
        """Have ``asked`` made; ``ears`` will hear of the job that is returned."""
        job = Job(id=uuid4(), tier=tier, delivery=Delivery.DOWNLOAD, parameters=asked, accepted_at=now())
        for picture in pictures_of(job):
            self._engine.submit(picture, self.ears)
        return job.id

    def cancel(self, job: UUID) -> None:
        """Have the engine forget ``job``."""
        self._engine.cancel(job, self.ears)

    def make(self, asked: Sequence[Parameters]) -> tuple[list[Image.Image], list[float]]:
        """Have all of ``asked`` made at once; one picture each.

        Returns the pictures in the order of ``asked``, and the moments (of the monotonic clock) at which they
        were done, in their own order.

        Raises:
            BenchmarkError: a picture failed or does not come.
        """
        jobs = [self.submit(one, tier=Tier.NORMAL) for one in asked]
        made: dict[UUID, Image.Image] = {}
        moments = []
        for _ in jobs:
            if (found := self.ears.next(seconds=_LONGEST_PICTURE)) is None:
                raise BenchmarkError(f"{len(made)} of {len(jobs)} pictures came")
            made[found[0]] = found[1]
            moments.append(time.monotonic())
        return [made[job] for job in jobs], moments


@contextmanager
def open_studio(
    model: ModelEntry,
    folder: Path,
    *,
    placement: Placement,
    policy: Policy,
    buckets: Sequence[int] = (),
) -> Iterator[Studio]:
    """An engine with one model, whose weights are in ``folder``, warm and at work."""
    engine = Engine(placement=placement, policy=policy, buckets=buckets)
    engine.offer(model, folder)
    # Whatever was compiled belongs to the thread that warmed it up.
    engine.thread.submit(engine.warm_up).result()
    closing = threading.Event()
    serving = engine.thread.submit(engine.serve, closing)
    try:
        yield Studio(engine)
    finally:
        closing.set()
        engine.wake()
        serving.result()
        engine.thread.shutdown()
