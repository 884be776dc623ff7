"""The plan of one operation."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from operator import length_hint
from types import CoroutineType
from typing import Any, Final, NamedTuple, Self

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLUnionType,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_nullable_type,
    is_leaf_type,
)
from graphql.execution.executor import CollectedErrors, invalid_return_type_error
from graphql.pyutils import Path, is_iterable
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField
from strawberry.types.graphql import OperationType as Kind

from schema.plans.errors import UnplannedError
from schema.plans.inputs import Arguments, Variables
from schema.plans.outputs import (
    Attribute,
    Completer,
    Field,
    Run,
    Selected,
    TypeName,
    gathered,
    guarded,
    null,
    select,
    select_serially,
    serializer,
    settle,
)
from schema.plans.resolvers import DEFINITION, resolver_of

_AT_A_TIME: Final = 10
"""Items of a list that are completed before others get their turn on the event loop."""


class Outcome(NamedTuple):
    """What came of an operation."""

    data: dict[str, Any] | None
    errors: list[GraphQLError]


class Plan:
    """One operation of a valid document.

    Attributes:
        kind: query or mutation.
        name: its kind and its first field, of which there are few.
    """

    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
    ) -> None:
        root = schema.get_root_type(operation.operation)
        if operation.operation is OperationType.SUBSCRIPTION or operation.directives or root is None:
            raise UnplannedError
        self.kind = Kind(operation.operation.value)
        self._schema = schema
        self._operation = operation
        self._fragments = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        self._variables = Variables(schema, operation)
        planner = _Planner(schema, self._fragments, most=document.token_count or 0)
        self._fields = planner.fields(root, [operation.selection_set])
        self._arguments = planner.arguments
        first = operation.selection_set.selections[0]
        self.name = " ".join((self.kind.value, first.name.value if isinstance(first, FieldNode) else "…"))

    @classmethod
    def of(
        cls, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
    ) -> Self | None:
        """The plan of an operation, unless it has something that is left to graphql-core.

        Args:
            schema: that the document is valid for.
            document: the document.
            operation: one of its operations.
        """
        try:
            return cls(schema, document, operation)
        except UnplannedError:
            return None

    def begin(
        self, sent: Mapping[str, Any], *, context: object, extensions: Mapping[str, object] | None
    ) -> Coroutine[Any, Any, Outcome] | None:
        """The execution, of which nothing is done before it is awaited; none where a value may be wrong.

        Args:
            sent: the values of variables.
            context: for resolvers.
            extensions: of the request.
        """
        try:
            variables = self._variables.coerce(sent)
            arguments = [one.values(variables) for one in self._arguments]
        except UnplannedError:
            return None
        run = Run(
            schema=self._schema,
            fragments=self._fragments,
            operation=self._operation,
            variables=variables,
            arguments=arguments,
            context=context,
            extensions=extensions,
            errors=CollectedErrors(),
        )
        return self._execute(run)

    async def _execute(self, run: Run) -> Outcome:
        try:
            if self._operation.operation is OperationType.MUTATION:
                data: Any = await select_serially(self._fields, run)
            else:
                data = select(self._fields, None, run, None)
                if type(data) is CoroutineType:
                    data = await data
        except GraphQLError as error:
            run.errors.add(error, None)
            data = None
        return Outcome(data, run.errors.errors)


class _Planner:
    """Finds out beforehand what an execution has to know.

    Args:
        schema: of the document.
        fragments: of the document.
        most: fields, over all types that selections can be of, so that a small document has no large plan.
    """

    def __init__(
        self, schema: GraphQLSchema, fragments: Mapping[str, FragmentDefinitionNode], *, most: int
    ) -> None:
        self.arguments: list[Arguments] = []
        self._schema = schema
        self._fragments = fragments
        self._converter: GraphQLCoreConverter = schema._strawberry_schema.schema_converter  # type: ignore[attr-defined]  # noqa: SLF001 - strawberry puts it there
        self._left = most

    def fields(self, parent: GraphQLObjectType, selections: Sequence[SelectionSetNode]) -> list[Selected]:
        """The fields of selections on an object's type, in the order in which they are answered."""
        grouped: dict[str, list[FieldNode]] = defaultdict(list)
        spread: set[str] = set()
        for selection in selections:
            self._collect(parent, selection, grouped, spread)
        return [self._field(parent, key, nodes) for key, nodes in grouped.items()]

    def _collect(
        self,
        parent: GraphQLObjectType,
        selections: SelectionSetNode,
        grouped: dict[str, list[FieldNode]],
        spread: set[str],
    ) -> None:
        for one in selections.selections:
            if one.directives:
                raise UnplannedError
            if isinstance(one, FieldNode):
                grouped[(one.alias or one.name).value].append(one)
            elif isinstance(one, InlineFragmentNode):
                condition = one.type_condition
                if condition is None or self._matches(condition.name.value, parent):
                    self._collect(parent, one.selection_set, grouped, spread)
            elif isinstance(one, FragmentSpreadNode) and one.name.value not in spread:
                spread.add(one.name.value)
                fragment = self._fragments[one.name.value]
                if self._matches(fragment.type_condition.name.value, parent):
                    self._collect(parent, fragment.selection_set, grouped, spread)

    def _matches(self, condition: str, parent: GraphQLObjectType) -> bool:
        kind = self._schema.type_map[condition]
        if isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
            return self._schema.is_sub_type(kind, parent)
        return kind is parent

    def _field(self, parent: GraphQLObjectType, key: str, nodes: list[FieldNode]) -> Selected:
        self._left -= 1
        if self._left < 0:
            raise UnplannedError
        name = nodes[0].name.value
        if name == "__typename":
            return TypeName(key, parent.name)
        definition = parent.fields.get(name)
        declared = definition.extensions.get(DEFINITION) if definition is not None else None
        if definition is None or not isinstance(declared, StrawberryField):
            # Introspection.
            raise UnplannedError
        attribute = declared.python_name if declared.is_basic_field else None
        kind = get_nullable_type(definition.type)
        if attribute is not None and is_leaf_type(kind):
            return Attribute(
                key=key,
                nodes=nodes,
                parent=parent,
                definition=definition,
                name=attribute,
                serialize=serializer(kind),
            )
        slot = len(self.arguments)
        if attribute is None:
            self.arguments.append(Arguments(definition, nodes[0]))
        return Field(
            key=key,
            nodes=nodes,
            parent=parent,
            definition=definition,
            complete=self._completer(definition.type, nodes),
            attribute=attribute,
            resolve=resolver_of(self._converter, definition),
            slot=slot,
        )

    def _completer(self, kind: GraphQLOutputType, nodes: list[FieldNode]) -> Completer:
        nullable = get_nullable_type(kind)
        if isinstance(nullable, GraphQLList):
            complete = _list(nullable.of_type, self._completer(nullable.of_type, nodes))
        elif isinstance(nullable, GraphQLObjectType):
            complete = self._object(nullable, nodes)
        elif isinstance(nullable, GraphQLInterfaceType | GraphQLUnionType):
            complete = self._abstract(nullable, nodes)
        else:
            complete = _leaf(nullable)
        return _nullable(kind, complete)

    def _object(self, kind: GraphQLObjectType, nodes: list[FieldNode]) -> Completer:
        origin = _origin(kind)
        fields = self.fields(kind, [node.selection_set for node in nodes if node.selection_set])

        def complete(value: Any, run: Run, field: Field, path: Path) -> Any:  # noqa: ANN401 - see Completer
            if type(value) is not origin and (
                kind.is_type_of and not kind.is_type_of(value, run.info(field, path))
            ):
                raise invalid_return_type_error(kind, value, [])
            return select(fields, value, run, path)

        return complete

    def _abstract(self, kind: GraphQLInterfaceType | GraphQLUnionType, nodes: list[FieldNode]) -> Completer:
        members = {one: self._object(one, nodes) for one in self._schema.get_possible_types(kind)}
        by_origin = {_origin(one): complete for one, complete in members.items()}
        by_name = {one.name: complete for one, complete in members.items()}

        def complete(value: Any, run: Run, field: Field, path: Path) -> Any:  # noqa: ANN401 - see Completer
            member = by_origin.get(type(value))
            if member is None:
                name = kind.resolve_type(value, run.info(field, path), kind)  # type: ignore[misc] # it has one
                member = by_name[name]  # type: ignore[index] # what is none of them fails here
            return member(value, run, field, path)

        return complete


def _origin(kind: GraphQLObjectType) -> type:
    """The class whose objects are of a type."""
    origin: type = kind.extensions[DEFINITION].origin
    return origin


def _nullable(kind: GraphQLOutputType, complete: Completer) -> Completer:
    def complete_any(value: Any, run: Run, field: Field, path: Path) -> Any:  # noqa: ANN401 - see Completer
        if value is None:
            return null(kind, field.parent, field.nodes)
        if isinstance(value, Exception):
            raise value
        return complete(value, run, field, path)

    return complete_any


def _leaf(kind: Any) -> Completer:  # noqa: ANN401 - a scalar or an enum
    serialize = serializer(kind)
    return lambda value, _run, _field, _path: serialize(value)


def _list(kind: GraphQLOutputType, complete: Completer) -> Completer:
    def complete_list(value: Any, run: Run, field: Field, path: Path) -> Any:  # noqa: ANN401 - see Completer
        if not is_iterable(value):
            name = field.nodes[0].name.value
            raise GraphQLError(f"Expected Iterable, but did not find one for field '{field.parent}.{name}'.")
        data: list[Any] = []
        waiting: list[int] = []

        def complete_in_parts() -> Iterator[None]:
            try:
                for place, item in enumerate(value):
                    if place and not place % _AT_A_TIME:
                        yield
                    item_path = Path(path, place, None)
                    try:
                        completed = complete(item, run, field, item_path)
                    except Exception as error:  # noqa: BLE001 - resolvers may raise anything
                        run.failed(error, kind, field.nodes, item_path)
                        completed = None
                    if type(completed) is CoroutineType:
                        completed = guarded(completed, run, kind, field.nodes, item_path)
                        waiting.append(place)
                    data.append(completed)
            except Exception:
                settle([data[place] for place in waiting])
                raise

        return _completed(complete_in_parts(), data, waiting, length=length_hint(value))

    return complete_list


def _completed(parts: Iterator[None], data: list[Any], waiting: Sequence[int], *, length: int) -> Any:  # noqa: ANN401
    if length > _AT_A_TIME:
        return _completed_in_turns(parts, data, waiting)
    for _ in parts:
        pass
    return gathered(data, waiting) if waiting else data


async def _completed_in_turns(parts: Iterator[None], data: list[Any], waiting: Sequence[int]) -> Any:  # noqa: ANN401
    """A long list: others get their turn on the event loop between its parts."""
    try:
        for _ in parts:
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        for place in waiting:
            data[place].close()
        raise
    return await gathered(data, waiting) if waiting else data
