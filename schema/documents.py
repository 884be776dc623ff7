"""GraphQL documents: read, checked and priced once, and then known by their text.

What is kept is bounded by tokens, since a token of a parsed document takes about half a kilobyte and
documents differ a hundredfold. A document is first on trial: only one that comes a second time gets a safe
place, so that texts made up by the thousand push out one another and not what customers' programs send.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    parse,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionContext

from core.settings import DocumentSettings
from core.telemetry import DOCUMENTS_REFUSED, OPERATION_COST
from schema.cost import OperationCost, Prices
from schema.document_limits import refusals
from schema.plans import Plan

COST_CODE: Final = "COST_LIMIT_EXCEEDED"

MOST_ERRORS: Final = 10
"""After so many validation gives up: nobody reads more, and to find and place each takes a millisecond."""

KEPT_TOKENS: Final = 50_000
"""In all documents that are kept: about 27 MB where they are as large as they may be, and 16 MB of plans."""


@dataclass(slots=True)
class Document:
    """A parsed document and what is known of it.

    Attributes:
        checked: whether it is within the limits and valid.
        costs: of its operations, by name.
        plans: of its operations, by name; none for one that is left to graphql-core.
    """

    parsed: DocumentNode
    checked: bool = False
    costs: dict[str | None, OperationCost] = field(default_factory=dict)
    plans: dict[str | None, Plan | None] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Words and brackets."""
        return self.parsed.token_count or 0

    @property
    def operations(self) -> list[OperationDefinitionNode]:
        """In the order in which they are written."""
        return [one for one in self.parsed.definitions if isinstance(one, OperationDefinitionNode)]

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        """The operation of a name, or the first one."""
        return next((one for one in self.operations if name in (None, one.name and one.name.value)), None)


class KnownOperation(NamedTuple):
    """How an operation is carried out, and what it costs."""

    plan: Plan
    cost: int


class Documents:
    """The documents that one process knows."""

    def __init__(
        self,
        limits: DocumentSettings,
        *,
        schema: GraphQLSchema,
        prices: Prices,
        kept_tokens: int = KEPT_TOKENS,
    ) -> None:
        self.limits = limits
        self._schema = schema
        self._prices = prices
        self._trial = _Shelf(kept_tokens // 2)
        self._proven = _Shelf(kept_tokens // 2)

    def known(self, text: str) -> Document | None:
        """The document of a text that was checked before and is kept."""
        if (known := self._proven.get(text)) is not None:
            return known
        if (known := self._trial.pop(text)) is not None:
            self._proven.put(text, known)
        return known

    def parse(self, text: str) -> Document:
        """The document of a text.

        Raises:
            GraphQLSyntaxError: it is none, or has too many tokens.
        """
        return self.known(text) or Document(_unchained(parse(text, max_tokens=self.limits.document_tokens)))

    def check(self, text: str, document: Document, context: ExecutionContext) -> list[GraphQLError]:
        """What is wrong with a document. One that nothing is wrong with is kept."""
        if document.checked:
            return []
        # Validation looks at what fragments expand to, so what is too large is not even validated.
        wrong = refusals(document.parsed, self.limits) or _validate(document.parsed, context)
        if not wrong:
            document.checked = True
            self._trial.put(text, document)
        return wrong

    def cost(self, document: Document, operation_name: str | None, variables: Mapping[str, Any]) -> int:
        """The cost of one operation of a document that was checked."""
        if operation_name not in document.costs:
            if (operation := document.operation(operation_name)) is None:
                raise LookupError(operation_name)
            document.costs[operation_name] = OperationCost(self._prices, document.parsed, operation)
        return document.costs[operation_name].of(variables)

    def planned(
        self, text: str, operation_name: str | None, variables: Mapping[str, Any]
    ) -> KnownOperation | None:
        """An operation that was checked before, is not too expensive, and is not left to graphql-core."""
        if (document := self.known(text)) is None:
            return None
        if operation_name not in document.plans:
            operation = document.operation(operation_name)
            if operation is None or (operation_name is None and len(document.operations) > 1):
                return None
            document.plans[operation_name] = Plan.of(self._schema, document.parsed, operation)
        if (plan := document.plans[operation_name]) is None:
            return None
        cost = self.cost(document, operation_name, variables)
        return KnownOperation(plan, cost) if cost <= self.limits.document_cost else None

    def told(self, cost: int) -> dict[str, Any]:
        """What ``extensions`` say of a cost."""
        return {"cost": {"requested": cost, "max": self.limits.document_cost}}


def _validate(document: DocumentNode, context: ExecutionContext) -> list[GraphQLError]:
    found = validate(
        context.schema._schema,  # noqa: SLF001 - strawberry's extensions do the same
        document,
        context.validation_rules,
        max_errors=MOST_ERRORS,
        hide_suggestions=True,
    )
    # Python reads no integers of thousands of digits, which is the document's fault and not ours.
    return [
        GraphQLError("A value in the document cannot be read.", one.nodes)
        if isinstance(one.original_error, ValueError)
        else one
        for one in found
    ]


def _unchained(parsed: DocumentNode) -> DocumentNode:
    """The document without the chain of its tokens, each of which holds the next and the one before.

    So its last reference frees it, and texts made up by the thousand do not wait for the garbage collector.
    """
    token = parsed.loc and parsed.loc.start_token
    while token:
        token.prev, token.next, token = None, None, token.next
    return parsed


class _Shelf:
    """Documents by text; those that were not used for longest make room for new ones."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._documents: OrderedDict[str, Document] = OrderedDict()

    def get(self, text: str) -> Document | None:
        if (found := self._documents.get(text)) is not None:
            self._documents.move_to_end(text)
        return found

    def pop(self, text: str) -> Document | None:
        if (found := self._documents.pop(text, None)) is not None:
            self._room += _size(text, found)
        return found

    def put(self, text: str, document: Document) -> None:
        self.pop(text)
        self._documents[text] = document
        self._room -= _size(text, document)
        while self._room < 0:
            oldest, removed = self._documents.popitem(last=False)
            self._room += _size(oldest, removed)


def _size(text: str, document: Document) -> int:
    """In tokens, of which 500 characters of comments count as one."""
    return max(document.tokens, len(text) // 500)


def _unnamed(context: ExecutionContext) -> list[GraphQLError]:
    """Refuse to choose: strawberry would run the first of several operations."""
    operations = [
        one
        for one in (context.graphql_document.definitions if context.graphql_document else ())
        if isinstance(one, OperationDefinitionNode)
    ]
    if len(operations) > 1 and context._provided_operation_name is None:  # noqa: SLF001 - it has no public name
        return [GraphQLError("Of several operations in a document `operationName` has to name one.")]
    return []


class DocumentCheck(SchemaExtension):
    """Lets through what is within every limit, and tells the cost with the answer."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._document: Document | None = None
        self._cost: int | None = None

    def on_parse(self) -> Iterator[None]:
        """From what is known, where it is."""
        context = self.execution_context
        if context.query:
            self._document = self._documents.parse(context.query)
            context.graphql_document = self._document.parsed
        yield

    def on_validate(self) -> Iterator[None]:
        """Before anything is resolved."""
        context, document = self.execution_context, self._document
        if context.query and document is not None:
            context.pre_execution_errors = _unnamed(context) or self._documents.check(
                context.query, document, context
            )
            if not context.pre_execution_errors:
                self._cost = self._documents.cost(document, context.operation_name, context.variables or {})
                context.pre_execution_errors = self._refused(self._cost)
        yield

    def get_results(self) -> dict[str, Any]:
        """What goes into ``extensions``, once the cost is known."""
        return {} if self._cost is None else self._documents.told(self._cost)

    def _refused(self, cost: int) -> list[GraphQLError]:
        OPERATION_COST.observe(cost)
        most = self._documents.limits.document_cost
        if cost <= most:
            return []
        DOCUMENTS_REFUSED.labels(limit="cost").inc()
        message = f"The operation is too expensive: its cost is {cost}, and at most {most} is allowed."
        return [GraphQLError(message, extensions={"code": COST_CODE, "cost": cost, "max": most})]
