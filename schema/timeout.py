"""How long an operation may take."""

import asyncio
from collections.abc import AsyncIterator

from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from core.telemetry import OPERATIONS_TIMED_OUT


def given_up(kind: OperationType, *, seconds: float) -> GraphQLError:
    """The error of an operation that took longer than ``seconds``, which is counted."""
    OPERATIONS_TIMED_OUT.labels(operation=kind.value.lower()).inc()
    message = f"This took longer than {seconds:g} seconds and was given up. Try again."
    return GraphQLError(message, extensions={"code": "TIMEOUT"})


class OperationTimeout(SchemaExtension):
    """Gives up on a query or mutation that takes too long; first its resolvers are canceled and clean up.

    What a resolver writes it writes in one transaction, which is rolled back or was committed: a generation
    that was accepted stays so, and the relay publishes its job. A subscription lives as long as it likes;
    only the wait for its first event is bounded, by the websocket.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def on_execute(self) -> AsyncIterator[None]:
        """Around execution; parsing and validation are bounded by the document's size."""
        kind = self.execution_context.operation_type
        if kind is OperationType.SUBSCRIPTION:
            yield
            return
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise given_up(kind, seconds=self._seconds) from error
