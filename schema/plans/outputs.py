"""What is answered: fields, and how their values are completed."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Final, NamedTuple, Protocol

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLLeafType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    located_error,
)
from graphql.execution.executor import CollectedErrors, Executor
from graphql.pyutils import Path, gather_with_cancel

from schema.plans.resolvers import Resolver

_BACKGROUND: Final[set[asyncio.Future[Any]]] = set()
"""What nobody waits for any longer."""


class Info(NamedTuple):
    """What Strawberry's ``Info`` reads of graphql-core's own."""

    field_name: str
    field_nodes: list[FieldNode]
    return_type: GraphQLOutputType
    parent_type: GraphQLObjectType
    path: Path
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    root_value: object
    operation: OperationDefinitionNode
    variable_values: Mapping[str, object]
    context: object
    operation_extensions: Mapping[str, object] | None


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One execution of an operation.

    Attributes:
        arguments: of every field that has a resolver, by its slot.
        errors: so far.
    """

    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    operation: OperationDefinitionNode
    variables: Mapping[str, Any]
    arguments: Sequence[Mapping[str, Any]]
    context: object
    extensions: Mapping[str, object] | None
    errors: CollectedErrors

    def info(self, field: "Field", path: Path) -> Any:  # noqa: ANN401 - it stands for graphql-core's
        """For a resolver."""
        return Info(
            field.nodes[0].name.value,
            field.nodes,
            field.definition.type,
            field.parent,
            path,
            self.schema,
            self.fragments,
            None,
            self.operation,
            self.variables,
            self.context,
            self.extensions,
        )

    def failed(self, error: Exception, kind: GraphQLOutputType, nodes: list[FieldNode], path: Path) -> None:
        """Note what went wrong at a place.

        Raises:
            GraphQLError: the place cannot be empty, so what is around it is.
        """
        located = located_error(error, nodes, path.as_list())
        if isinstance(kind, GraphQLNonNull):
            raise located
        self.errors.add(located, path)


class Selected(Protocol):
    """A field of a selection, on one type."""

    @property
    def key(self) -> str:
        """Its name in the answer."""

    def execute(self, source: Any, run: Run, around: Path | None) -> Any:  # noqa: ANN401 - any value
        """The field's value, or a coroutine that gives it.

        Args:
            source: what the field is of.
            run: the execution.
            around: where the source is.
        """


Fields = Sequence[Selected]
Completer = Callable[[Any, Run, "Field", Path], Any]
"""Makes of what a resolver returned what is answered, or a coroutine that will."""


@dataclass(frozen=True, slots=True)
class TypeName:
    """``__typename``."""

    key: str
    name: str

    def execute(self, source: Any, run: Run, around: Path | None) -> str:  # noqa: ANN401, ARG002 - see Selected
        """The name."""
        return self.name


@dataclass(slots=True, kw_only=True, eq=False)
class Attribute:
    """A scalar or enum that the source has as an attribute."""

    key: str
    nodes: list[FieldNode]
    parent: GraphQLObjectType
    definition: GraphQLField
    name: str
    serialize: Callable[[Any], Any]

    def execute(self, source: Any, run: Run, around: Path | None) -> Any:  # noqa: ANN401 - see Selected
        """Its value."""
        try:
            value = getattr(source, self.name)
            if value is not None:
                return self.serialize(value)
            return null(self.definition.type, self.parent, self.nodes)
        except Exception as error:  # noqa: BLE001 - properties may raise anything
            path = Path(around, self.key, self.parent.name)
            return run.failed(error, self.definition.type, self.nodes, path)


@dataclass(slots=True, kw_only=True, eq=False)
class Field:
    """A field with a resolver, or one that is made of others.

    Attributes:
        attribute: of the source, where there is no resolver.
        resolve: the resolver, where there is one.
        slot: of its arguments.
    """

    key: str
    nodes: list[FieldNode]
    parent: GraphQLObjectType
    definition: GraphQLField
    complete: Completer
    attribute: str | None
    resolve: Resolver
    slot: int

    def execute(self, source: Any, run: Run, around: Path | None) -> Any:  # noqa: ANN401 - see Selected
        """Its value, or a coroutine that gives it."""
        path = Path(around, self.key, self.parent.name)
        try:
            if self.attribute is not None:
                value = getattr(source, self.attribute)
            else:
                info, arguments = run.info(self, path), run.arguments[self.slot]
                value = self.resolve(source, info, **arguments)
                if hasattr(type(value), "__await__"):
                    return self._resolved(value, run, path)
            completed = self.complete(value, run, self, path)
        except Exception as error:  # noqa: BLE001 - resolvers may raise anything
            return run.failed(error, self.definition.type, self.nodes, path)
        if type(completed) is CoroutineType:
            return guarded(completed, run, self.definition.type, self.nodes, path)
        return completed

    async def _resolved(self, value: Awaitable[Any], run: Run, path: Path) -> Any:  # noqa: ANN401
        try:
            completed = self.complete(await value, run, self, path)
            if type(completed) is CoroutineType:
                completed = await completed
        except Exception as error:  # noqa: BLE001 - resolvers may raise anything
            return run.failed(error, self.definition.type, self.nodes, path)
        return completed


def null(kind: GraphQLOutputType, parent: GraphQLObjectType, nodes: Sequence[FieldNode]) -> None:
    """No value.

    Raises:
        TypeError: there has to be one.
    """
    if isinstance(kind, GraphQLNonNull):
        raise TypeError(f"Cannot return null for non-nullable field {parent}.{nodes[0].name.value}.")


def serializer(kind: GraphQLLeafType) -> Callable[[Any], Any]:
    """How values of a scalar or an enum are answered; none of them is null."""

    def serialize(value: Any) -> Any:  # noqa: ANN401 - any value
        if isinstance(value, Exception):
            raise value
        return Executor.complete_leaf_value(kind, value)

    if isinstance(kind, GraphQLEnumType):
        names = {kind.coerce_input_value(name): name for name in kind.values}
        member = type(next(iter(names)))
        return lambda value: names[value] if type(value) is member else serialize(value)
    if kind is GraphQLString:
        return lambda value: value if type(value) is str else serialize(value)
    return serialize


def select(fields: Fields, source: object, run: Run, path: Path | None) -> Any:  # noqa: ANN401 - see below
    """The data of a selection, whose fields are resolved side by side, or a coroutine that gives it."""
    data: dict[str, Any] = {}
    waiting: list[str] = []
    try:
        for field in fields:
            data[field.key] = value = field.execute(source, run, path)
            if type(value) is CoroutineType:
                waiting.append(field.key)
    except Exception:
        settle([data[key] for key in waiting])
        raise
    return gathered(data, waiting) if waiting else data


async def select_serially(fields: Fields, run: Run) -> dict[str, Any]:
    """The data of a mutation, whose fields are resolved one after the other."""
    data = {}
    for field in fields:
        value = field.execute(None, run, None)
        data[field.key] = await value if type(value) is CoroutineType else value
    return data


async def guarded(
    value: Coroutine[Any, Any, Any], run: Run, kind: GraphQLOutputType, nodes: list[FieldNode], path: Path
) -> Any:  # noqa: ANN401 - any value
    """The value, or null where it could not be had and need not be."""
    try:
        return await value
    except Exception as error:  # noqa: BLE001 - resolvers may raise anything
        return run.failed(error, kind, nodes, path)


async def gathered(data: Any, waiting: Sequence[Any]) -> Any:  # noqa: ANN401 - a list or a dictionary
    """The data, in which coroutines stand at some places; they run side by side."""
    if len(waiting) == 1:
        data[waiting[0]] = await data[waiting[0]]
    else:
        found = await gather_with_cancel(*(data[place] for place in waiting))
        for place, value in zip(waiting, found, strict=True):
            data[place] = value
    return data


def settle(waiting: Collection[Coroutine[Any, Any, Any]]) -> None:
    """Let coroutines end on their own, whose selection came to nothing."""
    if waiting:
        future = asyncio.gather(*waiting, return_exceptions=True)
        _BACKGROUND.add(future)
        future.add_done_callback(_BACKGROUND.discard)
