"""The websocket connections of this process, and the look at whether their sessions still live."""

import asyncio
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import structlog

from core.clock import now, pause
from core.errors import ServiceUnavailableError
from core.repository import accounts

FORBIDDEN: Final = 4403
"""The close code after which clients connect again with a fresh token."""

_TOGETHER: Final = 1000
"""Sessions in one statement: more would keep the event loop for longer than other work may wait."""

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """A connection that somebody signed in holds."""

    session_id: UUID
    expires_at: datetime

    def end(self, code: int, reason: str) -> None:
        """Close it soon, without waiting for a peer that does not read."""


class Connections:
    """Ends connections whose token has expired or whose session was ended.

    Sessions end in any process, by signing out, a new password or the end of an account. So each process asks
    the database, for all of its connections together: one short statement per interval and thousand sessions.

    Args:
        check_seconds: the interval, and so how long an ended session may go on listening.
    """

    def __init__(self, *, check_seconds: float) -> None:
        self._check_seconds = check_seconds
        self._open: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Look after a connection."""
        self._open.add(connection)

    def remove(self, connection: Connection) -> None:
        """Forget it, if it is known."""
        self._open.discard(connection)

    async def run(self, *, stop: asyncio.Event) -> None:
        """Check again and again until ``stop`` is set."""
        while not stop.is_set():
            await pause(stop, seconds=self._check_seconds)
            try:
                await self.check()
            except ServiceUnavailableError as error:
                # Tokens expire all the same; what was ended meanwhile is found the next time.
                log.warning("sessions_not_checked", connections=len(self._open), error=repr(error))

    async def check(self) -> None:
        """End what has to end."""
        self._end_expired(now())
        sessions = list({connection.session_id for connection in self._open})
        ended: set[UUID] = set()
        for start in range(0, len(sessions), _TOGETHER):
            ended |= await accounts.ended_sessions(sessions[start : start + _TOGETHER])
        for connection in [one for one in self._open if one.session_id in ended]:
            connection.end(FORBIDDEN, "Forbidden: the session was ended")

    def _end_expired(self, moment: datetime) -> None:
        for connection in [one for one in self._open if one.expires_at <= moment]:
            connection.end(FORBIDDEN, "Forbidden: the access token has expired")
