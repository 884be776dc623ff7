"""The schema, put together."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, Final

import strawberry
from graphql import FieldNode, GraphQLError, get_operation_ast
from strawberry.extensions import SchemaExtension
from strawberry.tools import merge_types
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.graphql import OperationType

from core import tracing
from core.settings import DocumentSettings
from core.telemetry import OPERATION_COST, REQUEST_SECONDS
from schema.cost import price_list
from schema.documents import DocumentCheck, Documents
from schema.errors import ErrorPresentation, UserError, exception_handlers, presentable
from schema.execution import Execution
from schema.mutations.accounts import AccountMutation
from schema.mutations.generations import GenerationMutation
from schema.mutations.premium import PremiumMutation
from schema.mutations.sessions import SessionMutation
from schema.plans import Outcome
from schema.queries.account import AccountQuery
from schema.queries.generations import GenerationQuery
from schema.queries.rate_limits import RateLimitQuery
from schema.queries.service import ServiceQuery
from schema.subscriptions.generation_status import GenerationSubscription
from schema.timeout import OperationTimeout, given_up

_ANSWERED_ONCE: Final = frozenset((OperationType.QUERY, OperationType.MUTATION))


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
            if tracing.enabled():
                tracing.current().rename(f"GraphQL {self._asked(kind)}")

    def _asked(self, kind: str) -> str:
        """The operation's kind and its first field, if the schema has it: so there are few."""
        context = self.execution_context
        document = context.graphql_document
        operation = get_operation_ast(document, context.operation_name) if document else None
        first = operation.selection_set.selections[0] if operation else None
        if operation is None or not isinstance(first, FieldNode):
            return kind
        graphql_schema = context.schema._schema  # noqa: SLF001 - it has no public name
        root = graphql_schema.get_root_type(operation.operation)
        known = root is not None and first.name.value in root.fields
        return f"{kind} {first.name.value}" if known else kind


class Schema(strawberry.Schema):
    """Strawberry's schema, with a shorter way for operations that are known.

    Their plan stands for parsing, validation and graphql-core's executor, and what the extensions do is done
    here without calling each of them at each stage.
    """

    documents: Documents

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Nothing: ErrorPresentation logs what needs a log line, without the document and its prompts."""

    async def execute(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any | None = None,  # noqa: ANN401 - strawberry's signature
        root_value: Any | None = None,  # noqa: ANN401 - strawberry's signature
        operation_name: str | None = None,
        allowed_operation_types: Iterable[OperationType] | None = None,
        operation_extensions: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        """One answer: a subscription, which has many, is refused here and goes through ``stream``."""
        begun, sent = time.perf_counter(), variable_values or {}
        allowed = _ANSWERED_ONCE.intersection(allowed_operation_types or _ANSWERED_ONCE)
        known = self.documents.planned(query, operation_name, sent) if query else None
        execution = None
        if known is not None and known.plan.kind in allowed:
            execution = known.plan.begin(sent, context=context_value, extensions=operation_extensions)
        if known is None or execution is None:
            return await super().execute(
                query,
                variable_values,
                context_value,
                root_value,
                operation_name,
                allowed,
                operation_extensions,
            )
        OPERATION_COST.observe(known.cost)
        tracing.current().rename(f"GraphQL {known.plan.name}")
        result = await self._finished(execution, known.plan.kind)
        result.extensions = self.documents.told(known.cost)
        REQUEST_SECONDS.labels(operation=known.plan.kind.value).observe(time.perf_counter() - begun)
        return result

    async def _finished(
        self, execution: Coroutine[Any, Any, Outcome], kind: OperationType
    ) -> ExecutionResult:
        seconds = self.documents.limits.operation_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                data, errors = await execution
        except TimeoutError:
            return ExecutionResult(data=None, errors=[given_up(kind, seconds=seconds)])
        return ExecutionResult(data=data, errors=[presentable(error) for error in errors])


def build_schema(limits: DocumentSettings) -> Schema:
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
    schema = Schema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        types=[UserError],
        extensions=extensions,
        execution_context_class=Execution,
        exception_handlers=exception_handlers(),
    )
    graphql_schema = schema._schema  # noqa: SLF001 - it has no public name
    schema.documents = documents = Documents(limits, schema=graphql_schema, prices=price_list(graphql_schema))
    return schema
