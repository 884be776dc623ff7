"""Finds, again and again, whose premium time ends soon."""

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from core.accounts.reminders import BATCH, write_reminders
from core.clock import pause
from core.errors import ServiceUnavailableError

_PAUSE: Final = 60.0

log = structlog.get_logger(__name__)


async def run(*, lead: timedelta, stop: asyncio.Event) -> None:
    """Write reminders until ``stop`` is set; any number of replicas may, each letter is written once.

    Args:
        lead: how long before the end of premium time; nobody is reminded when it is zero.
        stop: ends the work.
    """
    while lead and not stop.is_set():
        try:
            written = await write_reminders(lead=lead)
        except ServiceUnavailableError as error:
            log.warning("reminders_postponed", error=repr(error))
            written = 0
        if written:
            log.info("reminders_written", letters=written)
        if written < BATCH:
            await pause(stop, seconds=_PAUSE)
