"""The schema, put together."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import DEFAULT_ALLOWED_OPERATION_TYPES
from strawberry.tools import merge_types
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.graphql import OperationType

from core.settings import DocumentSettings
from core.telemetry import REQUEST_SECONDS
from schema.cost import price_list
from schema.documents import DocumentCheck, Documents
from schema.errors import ErrorPresentation, UserError, exception_handlers
from schema.execution import Execution
from schema.mutations.accounts import AccountMutation
from schema.mutations.generations import GenerationMutation
from schema.mutations.premium import PremiumMutation
from schema.mutations.sessions import SessionMutation
from schema.queries.account import AccountQuery
from schema.queries.generations import GenerationQuery
from schema.queries.rate_limits import RateLimitQuery
from schema.queries.service import ServiceQuery
from schema.subscriptions.generation_status import GenerationSubscription
from schema.timeout import OperationTimeout


class OperationTimer(SchemaExtension):
    """Measures each operation under its kind; names are the clients' and would grow without bound."""

    def on_operation(self) -> Iterator[None]:
        """Around parsing, validation and execution."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            try:
                kind = self.execution_context.operation_type.value.lower()
            except RuntimeError:
                kind = "unreadable"
            REQUEST_SECONDS.labels(operation=kind).observe(time.perf_counter() - begun)


class _Schema(strawberry.Schema):
    async def execute(  # type: ignore[override] # it is called by name
        self,
        query: str | None,
        *,
        allowed_operation_types: Iterable[OperationType] = DEFAULT_ALLOWED_OPERATION_TYPES,
        **options: Any,  # noqa: ANN401 - they are handed on
    ) -> ExecutionResult:
        """One answer: a subscription, which has many, is refused here and goes through ``stream``."""
        allowed = set(allowed_operation_types) - {OperationType.SUBSCRIPTION}
        return await super().execute(query, allowed_operation_types=allowed, **options)

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Nothing: ErrorPresentation logs what needs a log line, without the document and its prompts."""


def build_schema(limits: DocumentSettings) -> strawberry.Schema:
    """The GraphQL schema of Darkroom.

    Args:
        limits: of the documents that it takes, and of what they may take.
    """
    query = merge_types("Query", (AccountQuery, GenerationQuery, RateLimitQuery, ServiceQuery))
    mutation = merge_types(
        "Mutation", (AccountMutation, SessionMutation, PremiumMutation, GenerationMutation)
    )
    subscription = merge_types("Subscription", (GenerationSubscription,))

    def document_check() -> DocumentCheck:
        # Called for each operation, once there is the schema whose prices are read below.
        return DocumentCheck(documents)

    extensions: list[Any] = [
        OperationTimer,
        ErrorPresentation,
        document_check,
        lambda: OperationTimeout(limits.operation_timeout_seconds),
    ]
    schema = _Schema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        types=[UserError],
        extensions=extensions,
        execution_context_class=Execution,
        exception_handlers=exception_handlers(),
    )
    documents = Documents(limits, prices=price_list(schema._schema))  # noqa: SLF001 - it has no public name
    return schema
