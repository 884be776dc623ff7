"""Health: alive, able to serve, and ready to make pictures."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from core.errors import DarkroomError
from core.queue import Queue
from core.repository.database import require_schema
from core.storage import Storage

_REMEMBERED_SECONDS: Final = 1.0
"""Probes come from many sides at once; one look a second is enough for all of them."""

_PATIENCE: Final = 2.0
"""Seconds after which a service that has not answered counts as missing."""

log = structlog.get_logger(__name__)


class Health(BaseModel):
    """An answer: what is missing, or nothing. Strangers read it: hosts and users are only logged."""

    status: str
    missing: list[str] = []
    workers: int | None = None


class HealthChecks:
    """Looks at what the api stands on.

    Attributes:
        leaving: whether this process is about to stop, so that nobody new should be sent here.
    """

    def __init__(self, *, queue: Queue, storage: Storage) -> None:
        self.leaving = False
        self._queue = queue
        self._storage = storage
        self._workers = 0
        self._missing: list[str] = []
        self._missing_besides: list[str] = []
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def serving(self) -> Health:
        """Whether database and broker answer, and the process is going to stay."""
        await self._look()
        return _health(self._all_missing())

    async def ready(self) -> Health:
        """Whether, besides, the object store answers and at least one warm worker is there."""
        await self._look()
        health = _health([*self._all_missing(), *self._missing_besides])
        return health.model_copy(update={"workers": self._workers})

    def _all_missing(self) -> list[str]:
        return [*self._missing, *(["api: about to stop"] if self.leaving else [])]

    async def _look(self) -> None:
        async with self._looking:
            if time.monotonic() - self._looked_at < _REMEMBERED_SECONDS:
                return
            (self._workers, broker), database, storage = await asyncio.gather(
                self._count_workers(),
                _trouble("database", require_schema()),
                _trouble("object store", self._storage.exists("health")),
            )
            self._missing = [missing for missing in (database, broker) if missing]
            refusal = self._queue.refusal and "broker: refuses what is asked of it"
            self._missing_besides = [missing for missing in (storage, refusal) if missing]
            if not broker and not self._workers:
                self._missing_besides.append("gpu_worker: no warm worker")
            self._looked_at = time.monotonic()

    async def _count_workers(self) -> tuple[int, str | None]:
        """How many warm workers there are, and what is wrong with the broker."""
        if self._queue.trouble:
            return 0, "broker: not connected"
        if not self._queue.healthy:
            return 0, "broker: a consumer is lost"
        reading = asyncio.create_task(self._queue.workers())
        trouble = await _trouble("broker", reading)
        return (0, trouble) if trouble else (len(reading.result()), None)


async def _trouble(service: str, asked: Awaitable[object]) -> str | None:
    """What is wrong with a service that was asked something; none when it answers in time."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await asked
    except DarkroomError as error:
        log.warning("backing_service_unavailable", error=repr(error))
        return f"{service}: unavailable"
    except TimeoutError:
        return f"{service}: no answer within {_PATIENCE:g} s"
    return None


def _health(missing: list[str]) -> Health:
    return Health(status="unavailable" if missing else "ok", missing=missing)


def _checks(request: Request) -> HealthChecks:
    checks: HealthChecks = request.app.state.health
    return checks


Checks = Annotated[HealthChecks, Depends(_checks)]

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> Health:
    """The process runs and its event loop turns."""
    return Health(status="ok")


@router.get("/serving")
async def serving(checks: Checks, response: Response) -> Health:
    """Database and broker answer, and this process stays: what a load balancer asks."""
    return _with_status(await checks.serving(), response)


@router.get("/ready")
async def ready(checks: Checks, response: Response) -> Health:
    """Besides, object store and a warm worker are there: what people and ``make up`` ask."""
    return _with_status(await checks.ready(), response)


def _with_status(health: Health, response: Response) -> Health:
    response.headers["Cache-Control"] = "no-store"
    if health.missing:
        response.status_code = 503
    return health
