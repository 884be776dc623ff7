"""Deletes closed accounts, generations whose time is over, their pictures, and rows without use."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from core.accounts.erasing import CLAIMED_AT_ONCE, AccountEraser
from core.clock import now, pause
from core.errors import ServiceUnavailableError
from core.lifecycle import Tier
from core.models import Erasure
from core.repository import erasures, rate_limits, sweeps
from core.repository.database import in_transaction
from core.retention import Lifetimes
from core.settings import RetentionSettings
from core.storage import Storage
from core.telemetry import (
    ERASURES_DUE,
    GENERATIONS_EXPIRED,
    LEFTOVERS_DELETED,
    OBJECTS_DELETED,
    ROWS_SWEPT,
    SWEEPS_POSTPONED,
)

BATCH: Final = 500
"""Rows that one statement deletes at most, so that none holds its locks for long."""

_ERASURES: Final = 20
_LEASE: Final = timedelta(minutes=2)
"""After which a folder that somebody has begun to empty, or could not, is tried again."""

_SOON: Final = 2.0
_LATER: Final = 60.0

log = structlog.get_logger(__name__)


class Retention:
    """Deletes in small steps that may be repeated; any number of replicas may run.

    Rows go before objects, in one transaction with a note of the objects: whatever dies in between, nobody
    is shown a picture that is half gone, and somebody goes on with the note.
    """

    def __init__(self, *, storage: Storage, eraser: AccountEraser, settings: RetentionSettings) -> None:
        self._storage = storage
        self._eraser = eraser
        self._lifetimes = Lifetimes(settings)
        normal = self._lifetimes.of(Tier.NORMAL)
        kept = {
            "letter": timedelta(days=settings.keep_letter_days),
            "account": timedelta(days=settings.keep_unverified_days),
            "batch_window": normal,
        }
        self._kept = {table: kept.get(table, timedelta(0)) for table in sweeps.TABLES}

    async def run(self, *, stop: asyncio.Event) -> None:
        """Delete what is due until ``stop`` is set; the step under way is finished first."""
        async with asyncio.TaskGroup() as tasks:
            for work, seconds, batch in (
                (self._eraser.erase_closed, _SOON, CLAIMED_AT_ONCE),
                (self.erase_objects, _SOON, _ERASURES),
                (self.expire, _LATER, BATCH),
                (self.sweep, _LATER, BATCH),
            ):
                tasks.create_task(_repeat(work, stop=stop, seconds=seconds, batch=batch))

    async def expire(self) -> int:
        """Delete generations whose time is over; returns how many, at most ``BATCH`` of each tier."""
        most = 0
        for tier in Tier:
            moment = now()
            ended_before = moment - self._lifetimes.of(tier)
            expired = await erasures.discard_expired(tier, ended_before=ended_before, now=moment, limit=BATCH)
            if expired:
                GENERATIONS_EXPIRED.labels(tier=tier.value).inc(expired)
                log.info("generations_expired", tier=tier.value, generations=expired)
            most = max(most, expired)
        return most

    async def erase_objects(self) -> int:
        """Empty the folders that are due; returns how many were taken up."""
        async with in_transaction():
            claimed = await erasures.claim(now=now(), lease=_LEASE, limit=_ERASURES)
        await asyncio.gather(*(self._erase(erasure) for erasure in claimed))
        ERASURES_DUE.set(await erasures.count_due(now=now()))
        return len(claimed)

    async def sweep(self) -> int:
        """Delete rows that say nothing any more; returns how many, at most ``BATCH`` of each table."""
        most = 0
        for table, kept in self._kept.items():
            swept = await _swept(table, sweeps.sweep(table, before=now() - kept, limit=BATCH))
            most = max(most, swept)
        await _swept("rate_limit", rate_limits.forget_restored())
        return most

    async def _erase(self, erasure: Erasure) -> None:
        try:
            deleted = await self._storage.delete_under(erasure.prefix, keep=await erasures.kept(erasure))
        except ServiceUnavailableError as error:
            log.warning("erasure_postponed", prefix=erasure.prefix, error=str(error))
            return
        await erasures.settle(erasure, now=now())
        OBJECTS_DELETED.inc(deleted)
        if erasure.keeps_recorded:
            LEFTOVERS_DELETED.inc(deleted)
        log.info("objects_deleted", prefix=erasure.prefix, objects=deleted)


async def _swept(table: str, sweep: Awaitable[int]) -> int:
    """How many rows of a table went; one that cannot be swept now does not keep the others."""
    try:
        swept = await sweep
    except ServiceUnavailableError as error:
        SWEEPS_POSTPONED.labels(table=table).inc()
        log.warning("sweep_postponed", table=table, error=repr(error))
        return 0
    ROWS_SWEPT.labels(table=table).inc(swept)
    return swept


async def _repeat(
    work: Callable[[], Awaitable[int]], *, stop: asyncio.Event, seconds: float, batch: int
) -> None:
    """Do work again and again, at once where more is left than ``batch``, until ``stop`` is set."""
    while not stop.is_set():
        try:
            done = await work()
        except ServiceUnavailableError as error:
            log.warning("retention_postponed", error=repr(error))
            done = 0
        if done < batch:
            await pause(stop, seconds=seconds)
