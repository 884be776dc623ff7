"""How much a window takes: what the workers can make before its deadline. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from core.messages import Heartbeat
from core.models import Generation
from core.outlook import task_of
from core.outlook.estimate import Ahead, Task, finish_of_waiting


def fitting(
    ordered: Iterable[Generation],
    *,
    released: Mapping[str, float],
    workers: Sequence[Heartbeat],
    deadline: datetime,
    now: datetime,
) -> list[Generation]:
    """Those of the jobs that should be finished by the deadline when they are made in this order.

    One that would not be, even if it were alone, is among them: waiting would not help it. So is one of a
    model whose speed nobody has measured.

    Args:
        ordered: what waits, in the order of its release.
        released: megapixel-steps by model that the workers have or may take already.
        workers: every worker.
        deadline: of the window.
        now: the present moment, at which the window opens.
    """
    taken: list[Generation] = []
    before: defaultdict[str, float] = defaultdict(float)
    for job in ordered:
        task = task_of(job)

        def late(ahead: Ahead, task: Task = task) -> bool:
            finish_at = finish_of_waiting(task, ahead, opens_at=now, workers=workers, now=now)
            return finish_at is not None and finish_at > deadline

        if late(Ahead(released=released, waiting=before)) and not late(Ahead()):
            continue
        taken.append(job)
        before[task.model] += task.megapixel_steps
    return taken
