"""PostgreSQL as Tortoise sees it, with bounds in time and errors that say whose fault it was.

Tortoise finds ``client_class`` here by the engine's name in ``core.models.database_config``.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import asyncpg
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import (
    NestedTransactionContext,
    PoolConnectionWrapper,
    TransactionContextPooled,
)
from tortoise.connection import get_connections
from tortoise.exceptions import DBConnectionError, OperationalError

from core.errors import ServiceUnavailableError
from core.telemetry import DATABASE_CONNECTIONS, DATABASE_UNAVAILABLE, DATABASE_WAIT_SECONDS

_AT_FAULT: Final = (
    OSError,
    DBConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""What comes when the server or the way to it, rather than the statement, is at fault."""

_BROKEN: Final = (TimeoutError, asyncpg.InternalClientError)
"""After which a connection is of no use: the latter is how asyncpg meets one that was ended while idle."""

_LOST: Final = re.compile(r"\bclos(ed|ing)\b|released back to the pool")
"""How asyncpg says that a connection has gone meanwhile, in the errors with which it reports misuse too."""

_CONNECT_SECONDS: Final = 60.0
_FAREWELL_SECONDS: Final = 1.0
"""How long a connection may take to come to rest when whoever used it was canceled."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the server is at fault for into our error; a wrong statement stays what it is.

    Raises:
        ServiceUnavailableError: the database does not answer, or does not take anything now.
    """
    try:
        yield
    except _AT_FAULT as error:
        DATABASE_UNAVAILABLE.inc()
        raise ServiceUnavailableError(f"database: {error!r}") from error
    except OperationalError as error:
        # It would show the row, with what a customer wrote, in the log.
        if isinstance(error.__cause__, asyncpg.PostgresError):
            error.__cause__.detail = None
        raise
    except asyncpg.InterfaceError as error:
        if not _LOST.search(str(error)):
            raise
        raise ServiceUnavailableError(f"database: {error!r}") from error


class _Connection(asyncpg.Connection):
    """A pooled connection that goes back without a round trip to the server.

    What asyncpg would reset there are advisory locks, cursors, listeners and session settings, of which
    nobody here leaves any on a pooled connection. An open transaction is rolled back all the same.
    """

    def get_reset_query(self) -> str:
        """Nothing."""
        return ""


class _Pooled(PoolConnectionWrapper[asyncpg.Connection]):
    """One statement's connection."""

    client: "PostgresClient"

    async def __aenter__(self) -> asyncpg.Connection:
        await self.ensure_connection()
        begun = time.perf_counter()
        # Not asyncpg's own timeout, for which it starts a task.
        async with asyncio.timeout(self.client.patience):
            self.connection = await self.client.pool.acquire()  # type: ignore[assignment] # the pool's proxy of one
        DATABASE_WAIT_SECONDS.observe(time.perf_counter() - begun)
        return self.connection  # type: ignore[return-value] # just acquired

    async def __aexit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        if isinstance(exc_val, _BROKEN) and self.connection is not None:
            # Asking the server to stop would wait for the one that has not answered.
            self.connection.terminate()
        await self.client.release(self.connection, in_a_hurry=isinstance(exc_val, asyncio.CancelledError))


class _TransactionContext(TransactionContextPooled):
    """Gives its connection back whatever happens: Tortoise's keeps one that could not begin."""

    async def __aenter__(self) -> "_Transaction":
        client: _Transaction = self.client  # type: ignore[assignment] # made below
        with translated():
            await self.ensure_connection()
            async with asyncio.timeout(client._parent.patience):
                client._connection = await client._parent.pool.acquire()  # type: ignore[assignment] # the pool's proxy
        try:
            await client.begin()
        except BaseException:
            await self._give_back()
            raise
        self.token = get_connections().set(self.connection_name, client)
        return client

    async def __aexit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        client: _Transaction = self.client  # type: ignore[assignment] # made below
        try:
            if not client._finalized:
                with translated():
                    await (client.commit() if exc_type is None else client.rollback())
        except ServiceUnavailableError:
            # What went wrong first says more; without its connection a transaction is rolled back anyway.
            with suppress(asyncpg.InterfaceError):
                client._connection.terminate()
            if exc_type is None:
                raise
        finally:
            get_connections().reset(self.token)
            await self._give_back()

    async def _give_back(self) -> None:
        client: _Transaction = self.client  # type: ignore[assignment] # made below
        await client._parent.release(client._connection)


class PostgresClient(AsyncpgDBClient):
    """Tortoise's client over a bounded pool.

    Args:
        patience: seconds that connecting, waiting for a connection, and a statement may take each; none for
            as long as it takes.
        settings: as Tortoise has them.
    """

    def __init__(self, *, patience: float | None = None, **settings: Any) -> None:
        super().__init__(connection_class=_Connection, **settings)
        self.patience = patience

    @property
    def pool(self) -> asyncpg.Pool:
        """The open pool."""
        pool: asyncpg.Pool | None = self._pool
        if pool is None:
            raise ServiceUnavailableError("database: it was closed")
        return pool

    async def create_pool(self, **settings: Any) -> asyncpg.Pool:
        """A pool with its first connection open."""
        DATABASE_CONNECTIONS.labels(state="open").set_function(lambda: self._connections()[0])
        DATABASE_CONNECTIONS.labels(state="idle").set_function(lambda: self._connections()[1])
        return await asyncpg.create_pool(
            None, timeout=self.patience or _CONNECT_SECONDS, command_timeout=self.patience, **settings
        )

    def _connections(self) -> tuple[int, int]:
        """How many are open, and how many of these idle."""
        pool = self._pool
        return (pool.get_size(), pool.get_idle_size()) if pool is not None else (0, 0)

    async def release(self, connection: Any, *, in_a_hurry: bool = False) -> None:
        """Give a connection back; one that does not come to rest in time is dropped."""
        if self._pool is not None:
            with suppress(TimeoutError):
                timeout = _FAREWELL_SECONDS if in_a_hurry else self.patience
                await self._pool.release(connection, timeout=timeout)

    async def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), _FAREWELL_SECONDS)
            except TimeoutError:
                pool.terminate()

    def acquire_connection(self) -> _Pooled:
        """One statement's connection."""
        return _Pooled(self, self._pool_init_lock)

    def _in_transaction(self) -> _TransactionContext:
        return _TransactionContext(_Transaction(self), self._pool_init_lock)

    async def _translate_exceptions(
        self,
        func: Callable[..., Awaitable[Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        with translated():
            return await super()._translate_exceptions(func, *args, **kwargs)


class _Transaction(TransactionWrapper):
    """A transaction, which ends with its connection when the server does not answer."""

    _parent: PostgresClient

    def _in_transaction(self) -> NestedTransactionContext:
        return NestedTransactionContext(_Transaction(self))

    async def _translate_exceptions(
        self,
        func: Callable[..., Awaitable[Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        with translated():
            try:
                return await super()._translate_exceptions(func, *args, **kwargs)
            except _BROKEN:
                self._connection.terminate()
                raise


client_class: Final = PostgresClient
