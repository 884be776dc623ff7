"""What a client sends along: variables and arguments, with their checks chosen beforehand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInt,
    GraphQLNonNull,
    GraphQLSchema,
    GraphQLString,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    Undefined,
    ValueNode,
    VariableNode,
    get_nullable_type,
    is_leaf_type,
)
from graphql.execution.get_variable_signature import GraphQLVariableSignature, get_variable_signature
from graphql.execution.values import VariableValues
from graphql.utilities import coerce_input_literal
from graphql.utilities.coerce_input_value import coerce_default_value

from schema.plans.errors import UnplannedError

Coercer = Callable[[Any], Any]
"""Makes of what was sent what resolvers get; raises :class:`UnplannedError` where it is not plainly right."""

_INTS: Final = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A variable, or a field of an input: what becomes of it when it is there, and when it is not."""

    name: str
    out_name: str
    coerce: Coercer
    default: Any
    required: bool

    @classmethod
    def of(cls, name: str, declared: GraphQLInputField | GraphQLVariableSignature) -> "_Entry":
        default = coerce_default_value(declared)
        if isinstance(default, dict | list):
            # Each request has to get one of its own.
            raise UnplannedError
        return cls(
            name=name,
            out_name=getattr(declared, "out_name", None) or name,
            coerce=_coercer(declared.type),
            default=default,
            required=default is Undefined and isinstance(declared.type, GraphQLNonNull),
        )


def _coerced(entries: Sequence[_Entry], sent: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for entry in entries:
        if entry.name in sent:
            found[entry.out_name] = entry.coerce(sent[entry.name])
        elif entry.default is not Undefined:
            found[entry.out_name] = entry.default
        elif entry.required:
            raise UnplannedError
    return found


class Variables:
    """The variables of an operation."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        self._entries = []
        for node in operation.variable_definitions or ():
            signature = get_variable_signature(schema, node)
            if not isinstance(signature, GraphQLVariableSignature) or node.directives:
                raise UnplannedError
            self._entries.append(_Entry.of(signature.name, signature))

    def coerce(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        """The values that resolvers get.

        Raises:
            UnplannedError: one of them is wrong, or may be.
        """
        return _coerced(self._entries, sent)


def _coercer(kind: GraphQLInputType) -> Coercer:
    nullable: Any = get_nullable_type(kind)
    if isinstance(nullable, GraphQLInputObjectType):
        inner = _object_coercer(nullable)
    elif isinstance(nullable, GraphQLEnumType):
        inner = _enum_coercer(nullable)
    elif not is_leaf_type(nullable):
        raise UnplannedError
    else:
        inner = _leaf_coercer(nullable)
    required = isinstance(kind, GraphQLNonNull)

    def coerce(value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if value is None:
            if required:
                raise UnplannedError
            return None
        return inner(value)

    return coerce


def _leaf_coercer(kind: Any) -> Coercer:  # noqa: ANN401 - any scalar
    def coerce(value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if (kind is GraphQLString and type(value) is str) or (
            kind is GraphQLInt and type(value) is int and value in _INTS
        ):
            return value
        try:
            return kind.coerce_input_value(value)
        except Exception as error:
            raise UnplannedError from error

    return coerce


def _enum_coercer(kind: GraphQLEnumType) -> Coercer:
    members = {name: kind.coerce_input_value(name) for name in kind.values}

    def coerce(value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if type(value) is not str or value not in members:
            raise UnplannedError
        return members[value]

    return coerce


def _object_coercer(kind: GraphQLInputObjectType) -> Coercer:
    if kind.is_one_of:
        raise UnplannedError
    entries = [_Entry.of(name, field) for name, field in kind.fields.items()]
    names = kind.fields.keys()

    def coerce(value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if type(value) is not dict or not value.keys() <= names:
            raise UnplannedError
        return kind.out_type(_coerced(entries, value))

    return coerce


class Arguments:
    """The arguments of one field."""

    def __init__(self, definition: GraphQLField, node: FieldNode) -> None:
        given = {one.name.value: one.value for one in node.arguments or ()}
        self._constant: dict[str, Any] = {}
        self._varying: list[tuple[str, GraphQLArgument, ValueNode]] = []
        for name, argument in definition.args.items():
            value = given.get(name)
            out_name = argument.out_name or name
            if value is None:
                if (default := coerce_default_value(argument)) is not Undefined:
                    self._constant[out_name] = default
            elif _has_variable(value):
                self._varying.append((out_name, argument, value))
            elif (constant := coerce_input_literal(value, argument.type)) is not Undefined:
                self._constant[out_name] = constant
            else:
                raise UnplannedError

    def values(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The arguments with these values of the operation's variables.

        Raises:
            UnplannedError: one of them is wrong.
        """
        if not self._varying:
            return self._constant
        values = dict(self._constant)
        for name, argument, node in self._varying:
            value: Any = Undefined
            if not isinstance(node, VariableNode):
                value = coerce_input_literal(node, argument.type, VariableValues({}, variables))
            elif node.name.value in variables:
                value = variables[node.name.value]
            elif (value := coerce_default_value(argument)) is Undefined:
                if isinstance(argument.type, GraphQLNonNull):
                    raise UnplannedError
                continue
            if value is Undefined or (value is None and isinstance(argument.type, GraphQLNonNull)):
                raise UnplannedError
            values[name] = value
        return values


def _has_variable(node: ValueNode) -> bool:
    if isinstance(node, ListValueNode):
        return any(_has_variable(one) for one in node.values)
    if isinstance(node, ObjectValueNode):
        return any(_has_variable(one.value) for one in node.fields)
    return isinstance(node, VariableNode)
