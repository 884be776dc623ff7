"""GraphQL over WebSocket: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

import structlog
from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.schema.schema import StreamResult
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    ConnectionInitMessage,
    Message,
    PingMessage,
    SubscribeMessage,
)
from strawberry.types.execution import ExecutionResult, PreExecutionError
from strawberry.types.graphql import OperationType

from api.connections import FORBIDDEN, Connections
from core import tracing
from core.errors import ServiceUnavailableError, UnauthenticatedError
from core.telemetry import WEBSOCKETS, WEBSOCKETS_CLOSED
from schema.context import Context
from schema.errors import presentable
from schema.timeout import given_up

_MAX_REASON: Final = 123
"""Bytes of a reason that fit into a close frame."""

_LATER: Final = 1.0
"""Seconds by which the wait for a first event outlasts that for a query, which ends itself."""

log = structlog.get_logger(__name__)


class CloseCode(IntEnum):
    """The protocol's close codes, and two of RFC 6455's."""

    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = FORBIDDEN
    INITIALISATION_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITIALISATIONS = 4429


class WebSocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """One connection of somebody who is signed in.

    Strawberry's handler, to the letter of the protocol: messages have the form that it asks for, reading goes
    on while the token is looked up, an operation that cannot be read is an ``error`` of its own and not the
    end of the connection, and pongs carry what their pings did. Every operation looks up anew who asks.

    Args:
        connections: ends the connection with its session.
        timeout_seconds: for signing in, and for the first event of a subscription.
        arguments: strawberry's own.
    """

    session_id: UUID
    expires_at: datetime

    def __init__(self, *, connections: Connections, timeout_seconds: float, **arguments: Any) -> None:  # noqa: ANN401 - they are handed on
        super().__init__(**arguments)
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._signing_in: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    async def handle(self) -> None:
        """Until the connection ends."""
        WEBSOCKETS.inc()
        try:
            await super().handle()
        finally:
            WEBSOCKETS.dec()

    async def shutdown(self) -> None:
        """Leave nothing behind."""
        self._connections.remove(self)
        if self._signing_in is not None:
            self._signing_in.cancel()
        await super().shutdown()

    def end(self, code: int, reason: str) -> None:
        """Close the connection soon, without waiting for a peer that does not read."""
        self._connections.remove(self)
        self._ending = asyncio.create_task(self._close(code, reason))

    async def handle_connection_init_timeout(self) -> None:
        """Close the connection if nobody signs in."""
        await asyncio.sleep(self.connection_init_wait_timeout.total_seconds())
        self.connection_timed_out = True
        await self._close(CloseCode.INITIALISATION_TIMEOUT, "Connection initialisation timeout")

    async def handle_invalid_message(self, error_message: str) -> None:
        """Close the connection: the peer does not speak the protocol."""
        await self._close(CloseCode.BAD_MESSAGE, error_message)

    async def handle_message(self, message: Message) -> None:
        """Take what follows the protocol, and nothing else."""
        if self._closed:
            return
        if (problem := _problem(message)) is not None:
            await self.handle_invalid_message(problem)
        else:
            await super().handle_message(message)

    async def handle_ping(self, message: PingMessage) -> None:
        """Answer with the same payload."""
        payload = message.get("payload")
        await self.send_message({"type": "pong"} if payload is None else {"type": "pong", "payload": payload})

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        """Look up who signs in, once, while messages are read on."""
        if self.connection_init_received:
            reason = "Too many initialisation requests"
            await self._close(CloseCode.TOO_MANY_INITIALISATIONS, reason)
            return
        self.connection_init_received = True
        if self.connection_init_timeout_task is not None:
            self.connection_init_timeout_task.cancel()
            self.connection_init_timeout_task = None
        self.context.connection_params = message.get("payload") or {}
        self._signing_in = asyncio.create_task(self._sign_in())

    async def _sign_in(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                viewer = await self.context.connect()
            self.session_id, self.expires_at = viewer.session_id, viewer.expires_at
            self.connection_acknowledged = True
            self._connections.add(self)
            await self.send_message({"type": "connection_ack"})
        except WebSocketDisconnected:
            pass
        except UnauthenticatedError as error:
            await self._close(CloseCode.FORBIDDEN, f"Forbidden: {error}")
        except (ServiceUnavailableError, TimeoutError) as error:
            log.warning("backing_service_unavailable", error=repr(error))
            await self._close(CloseCode.TRY_AGAIN_LATER, "Try again later")
        except Exception:
            log.exception("unexpected_error")
            await self._close(CloseCode.INTERNAL_ERROR, "Internal error")
        finally:
            self._signing_in = None

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Begin an operation, of any kind."""
        identifier, payload = message["id"], message["payload"]
        if not self.connection_acknowledged:
            await self._close(CloseCode.UNAUTHORIZED, "Unauthorized")
            return
        if identifier in self.operations:
            await self._close(CloseCode.SUBSCRIBER_EXISTS, f"Subscriber for {identifier} already exists")
            return
        most = self.max_subscriptions_per_connection
        if most is not None and len(self.operations) >= most:
            refusal = GraphQLError(
                f"At most {most} operations of a connection may be under way.",
                extensions={"code": "QUOTA_EXCEEDED", "max": most},
            )
            await self.send_message({"id": identifier, "type": "error", "payload": [refusal.formatted]})
            return
        operation = Operation(
            self, identifier, payload["query"], payload.get("variables"), payload.get("operationName")
        )
        self.operations[identifier] = operation
        operation.task = asyncio.create_task(self.run_operation(operation))

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        """Send what comes of an operation, to its end."""
        try:
            try:
                # A subscription's ends with it.
                with tracing.span("GraphQL", kind=tracing.Kind.SERVER, network__protocol__name="websocket"):
                    await self._send_results(operation)
            except GraphQLError as error:
                await operation.send_initial_errors([error])
            except Exception as error:  # noqa: BLE001 - it is logged where it is made presentable
                presented = presentable(GraphQLError("", original_error=error))
                await operation.send_initial_errors([presented])
        except WebSocketDisconnected:
            self.operations.pop(operation.id, None)

    async def _send_results(self, operation: Operation[Context, None]) -> None:
        results = await self.schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=self.context.for_operation(),
            operation_name=operation.operation_name,
        )
        async with aclosing(results):
            await self._send_result_stream(operation, results)
        await operation.send_operation_message({"id": operation.id, "type": "complete"})

    async def _send_result_stream(
        self, operation: Operation[Context, None], result_source: StreamResult
    ) -> None:
        first = True
        try:
            async with asyncio.timeout(self._timeout_seconds + _LATER) as deadline:
                async for result in result_source:
                    deadline.reschedule(None)
                    if first and isinstance(result, PreExecutionError):
                        await operation.send_initial_errors(result.errors or [])
                        return
                    if isinstance(result, ExecutionResult):
                        await operation.send_next(result)
                    first = False
        except TimeoutError as error:
            raise given_up(OperationType.SUBSCRIPTION, seconds=self._timeout_seconds) from error

    async def _close(self, code: int, reason: str) -> None:
        """End everything, once."""
        if self._closed:
            return
        self._closed = True
        WEBSOCKETS_CLOSED.labels(code=str(int(code))).inc()
        for identifier in list(self.operations):
            await self.cleanup_operation(identifier)
        if self._signing_in is not None and self._signing_in is not asyncio.current_task():
            self._signing_in.cancel()
        with suppress(WebSocketDisconnect, WebSocketDisconnected):
            # What is cut off in the middle of a character would not be UTF-8.
            fitting = reason.encode()[:_MAX_REASON].decode(errors="ignore")
            await self.websocket.close(code=int(code), reason=fitting)


def _problem(message: object) -> str | None:
    """Why a message does not follow the protocol."""
    if not isinstance(message, Mapping):
        return "A message has to be an object"
    kind = message.get("type")
    payload = message.get("payload")
    if kind in ("connection_init", "ping", "pong"):
        return None if isinstance(payload, dict | None) else f"The payload of {kind} has to be an object"
    if kind not in ("subscribe", "complete"):
        return "The message has no type that the protocol knows"
    if not isinstance(message.get("id"), str) or not message["id"]:
        return f"The id of {kind} has to be a string, and not an empty one"
    return _payload_problem(payload) if kind == "subscribe" else None


def _payload_problem(payload: object) -> str | None:
    if not isinstance(payload, dict):
        return "The payload of subscribe has to be an object"
    if not isinstance(payload.get("query"), str):
        return "The query has to be a string"
    if not isinstance(payload.get("operationName"), str | None):
        return "The operationName has to be a string"
    for name in ("variables", "extensions"):
        if not isinstance(payload.get(name), dict | None):
            return f"The {name} have to be an object"
    return None
