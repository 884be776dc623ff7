"""Health: alive, able to serve, and ready to make pictures."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from core.errors import DarkroomError
from core.queue import Queue
from core.repository.database import ping

_REMEMBERED_SECONDS = 1.0
"""Probes come from many sides at once; one look a second is enough for all of them."""


class Health(BaseModel):
    """An answer: what is missing, or nothing."""

    status: str
    missing: list[str] = []
    workers: int | None = None


class HealthChecks:
    """Looks at what the api stands on.

    Attributes:
        leaving: whether this process is about to stop, so that nobody new should be sent here.
    """

    def __init__(self, *, queue: Queue) -> None:
        self.leaving = False
        self._queue = queue
        self._workers = 0
        self._missing: list[str] = []
        self._missing_worker: list[str] = []
        self._looked_at = float("-inf")

    async def serving(self) -> Health:
        """Whether database and broker answer, and the process is going to stay."""
        await self._look()
        return _health(self._all_missing())

    async def ready(self) -> Health:
        """Whether, besides, at least one warm worker is there."""
        await self._look()
        health = _health([*self._all_missing(), *self._missing_worker])
        return health.model_copy(update={"workers": self._workers})

    def _all_missing(self) -> list[str]:
        return [*self._missing, *(["api: about to stop"] if self.leaving else [])]

    async def _look(self) -> None:
        if time.monotonic() - self._looked_at < _REMEMBERED_SECONDS:
            return
        missing = []
        workers = 0
        try:
            await ping()
        except DarkroomError as error:
            missing.append(str(error))
        if not self._queue.healthy:
            missing.append("broker: not connected")
        else:
            try:
                workers = len(await self._queue.workers())
            except DarkroomError as error:
                missing.append(str(error))
        self._workers = workers
        self._missing = missing
        self._missing_worker = [] if workers else ["gpu_worker: no warm worker"]
        self._looked_at = time.monotonic()


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
    """Besides, a warm worker is there: what people and ``make up`` ask."""
    return _with_status(await checks.ready(), response)


def _with_status(health: Health, response: Response) -> Health:
    response.headers["Cache-Control"] = "no-store"
    if health.missing:
        response.status_code = 503
    return health
