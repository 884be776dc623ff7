"""What a GraphQL operation costs: known from the document and its page sizes, before anything is resolved.

The terms are those of IBM's GraphQL Cost Directives, https://ibm.github.io/graphql-specs/cost-spec.html: a
field has a weight, a list has a size, and what is inside a list counts once for each of its entries. A field
that says nothing weighs nothing if it is a scalar or an enum, 1 if it is made of fields, and 10 if it is a
mutation or a subscription. A branch counts whether it is taken or not: of a union, or behind ``@include``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import strawberry
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_composite_type,
)
from strawberry.schema_directive import Location
from strawberry.types.field import StrawberryField

from core.generations import MAX_PAGE

_MOST_KEPT: Final = 128
"""Page sizes of one operation whose cost is remembered."""

_ROOT_WEIGHT: Final = 10

_INTROSPECTION: Final = {"__schema": 500, "__type": 25}
"""Weights of the fields that introspection begins with, which stand for what is inside them."""


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="cost", description="What resolving the field costs."
)
class Cost:
    """The weight of a field whose kind does not say it: a whole number, by the specification as text."""

    weight: str = strawberry.directive_field(name="weight")


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="listSize",
    description="How many entries a list is taken to have.",
)
class ListSize:
    """Says that by a fixed figure, or by an argument and the fields inside that are as long as it says."""

    assumed_size: int | None = strawberry.directive_field(name="assumedSize", default=strawberry.UNSET)
    slicing_arguments: list[str] | None = strawberry.directive_field(
        name="slicingArguments", default=strawberry.UNSET
    )
    sized_fields: list[str] | None = strawberry.directive_field(name="sizedFields", default=strawberry.UNSET)


PASSWORD_HASH: Final = Cost(weight="50")
"""Of a mutation that hashes a password, which takes a core for about 0.2 s."""


@dataclass(frozen=True, slots=True)
class Price:
    """What is known of one field beforehand.

    Attributes:
        weight: of the field, once.
        type_name: what it is made of, or none.
        size: how often it counts, where no argument says so.
        argument: the argument with the page size.
        default: that argument's default.
        sized: the fields inside that are as long as a page.
    """

    weight: int
    type_name: str | None
    size: int = 1
    argument: str | None = None
    default: int = MAX_PAGE
    sized: frozenset[str] = frozenset()


Prices = Mapping[str, Mapping[str, Price]]
"""By type and field."""


def price_list(schema: GraphQLSchema) -> Prices:
    """The prices of every field that ``schema`` has, introspection's left out."""
    heavy = (schema.mutation_type, schema.subscription_type)
    return {
        name: {
            field_name: _price(one, _ROOT_WEIGHT if each in heavy else 1)
            for field_name, one in each.fields.items()
        }
        for name, each in schema.type_map.items()
        if isinstance(each, GraphQLObjectType | GraphQLInterfaceType) and not name.startswith("__")
    }


def _price(one: GraphQLField, weight: int) -> Price:
    named = get_named_type(one.type)
    composite = is_composite_type(named)
    definition = one.extensions.get("strawberry-definition")
    directives = definition.directives if isinstance(definition, StrawberryField) else ()
    cost = next((each for each in directives if isinstance(each, Cost)), None)
    size = next((each for each in directives if isinstance(each, ListSize)), None)
    if cost is not None:
        weight = int(cost.weight)
    elif not composite:
        weight = 0
    argument = size.slicing_arguments[0] if size and size.slicing_arguments else None
    default = one.args[argument].default_value if argument else None
    return Price(
        weight=weight,
        type_name=named.name if composite else None,
        size=(size and size.assumed_size) or (MAX_PAGE if composite and _is_list(one.type) else 1),
        argument=argument,
        default=default if isinstance(default, int) else MAX_PAGE,
        sized=frozenset((size and size.sized_fields) or ()),
    )


def _is_list(kind: GraphQLOutputType) -> bool:
    return isinstance(kind.of_type if isinstance(kind, GraphQLNonNull) else kind, GraphQLList)


@dataclass(slots=True)
class OperationCost:
    """The cost of one operation of a valid document, remembered for each combination of page sizes."""

    prices: Prices
    document: DocumentNode
    operation: OperationDefinitionNode
    _variables: tuple[str, ...] | None = None
    _known: dict[tuple[int | None, ...], int] = field(default_factory=dict)

    def of(self, variables: Mapping[str, Any]) -> int:
        """The cost with these values of the operation's variables."""
        if self._variables is not None and (known := self._known.get(self._key(variables))) is not None:
            return known
        pricing = _Pricing(self.prices, self.document, self.operation, variables)
        cost = pricing.total(self.operation)
        self._variables = tuple(sorted(pricing.used))
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[self._key(variables)] = cost
        return cost

    def _key(self, variables: Mapping[str, Any]) -> tuple[int | None, ...]:
        names = self._variables or ()
        return tuple(_size(variables[name]) if name in variables else None for name in names)


class _Pricing:
    """One walk over an operation, in which each fragment is priced once for each page it is spread in."""

    def __init__(
        self,
        prices: Prices,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
    ) -> None:
        self.used: set[str] = set()
        self._prices = prices
        self._fragments = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        self._defaults = {
            one.variable.name.value: one.default_value for one in operation.variable_definitions or ()
        }
        self._variables = variables
        self._priced: dict[tuple[str, Price | None, int], int] = {}

    def total(self, operation: OperationDefinitionNode) -> int:
        roots = {
            OperationType.QUERY: "Query",
            OperationType.MUTATION: "Mutation",
            OperationType.SUBSCRIPTION: "Subscription",
        }
        return self._selection(operation.selection_set, roots[operation.operation], None, 1)

    def _selection(self, node: SelectionSetNode, type_name: str, around: Price | None, page: int) -> int:
        """The cost of what is selected of a type, in the page of ``page`` entries that ``around`` opens."""
        total = 0
        for selection in node.selections:
            if isinstance(selection, FieldNode):
                total += self._field(selection, type_name, around, page)
            elif isinstance(selection, FragmentSpreadNode):
                total += self._fragment(selection.name.value, around, page)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                inside = condition.name.value if condition else type_name
                total += self._selection(selection.selection_set, inside, around, page)
        return total

    def _field(self, node: FieldNode, type_name: str, around: Price | None, page: int) -> int:
        name = node.name.value
        price = self._prices.get(type_name, {}).get(name)
        if price is None:
            return _INTROSPECTION.get(name, 0)
        times = page if around is not None and name in around.sized else price.size
        if price.argument is not None:
            page = self._argument(node, price)
            times = 1 if price.sized else page
        if price.type_name is None or node.selection_set is None:
            return times * price.weight
        inside = self._selection(node.selection_set, price.type_name, price if price.sized else None, page)
        return times * (price.weight + inside)

    def _fragment(self, name: str, around: Price | None, page: int) -> int:
        key = (name, around, page)
        if key not in self._priced:
            fragment = self._fragments[name]
            self._priced[key] = self._selection(
                fragment.selection_set, fragment.type_condition.name.value, around, page
            )
        return self._priced[key]

    def _argument(self, node: FieldNode, price: Price) -> int:
        value = next((one.value for one in node.arguments or () if one.name.value == price.argument), None)
        if value is None:
            return price.default
        if not isinstance(value, VariableNode):
            return _literal(value)
        name = value.name.value
        self.used.add(name)
        if name in self._variables:
            return _size(self._variables[name])
        default = self._defaults.get(name)
        return price.default if default is None else _literal(default)


def _literal(node: object) -> int:
    # Longer numbers are no page size, and Python refuses to read those of thousands of digits.
    if isinstance(node, IntValueNode) and len(node.value) <= len(str(MAX_PAGE)) + 1:
        return _size(int(node.value))
    return MAX_PAGE


def _size(value: object) -> int:
    """A page size; what is none costs the most, until its field refuses it with a reason of its own."""
    return value if type(value) is int and 0 <= value <= MAX_PAGE else MAX_PAGE
