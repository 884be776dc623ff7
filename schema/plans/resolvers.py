"""Resolvers, called without what Strawberry finds out about each of them at every call."""

from collections.abc import Callable
from typing import Any, Final

from graphql import GraphQLField, get_nullable_type, is_leaf_type
from strawberry import Info
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.arguments import StrawberryArgument, convert_argument
from strawberry.types.field import StrawberryField
from strawberry.utils.await_maybe import await_maybe

DEFINITION: Final = "strawberry-definition"

Resolver = Callable[..., Any]
"""Takes what the field is of, an info, and arguments by their names in GraphQL."""


def resolver_of(converter: GraphQLCoreConverter, definition: GraphQLField) -> Resolver:
    """How a field is resolved; what has more than arguments, an info and exceptions goes Strawberry's way."""
    field: StrawberryField = definition.extensions[DEFINITION]
    resolver = field.base_resolver
    if (
        resolver is None
        or not field.is_async
        or field.extensions
        or resolver.parent_parameter
        or resolver.root_parameter
    ):
        strawberrys: Resolver = definition.resolve  # type: ignore[assignment] # it has one
        return strawberrys
    parameters = [_parameter(converter, name, one) for name, one in definition.args.items()]
    handlers = converter._get_field_exception_handlers(field)  # noqa: SLF001 - it has no public name
    info_name = resolver.info_parameter.name if resolver.info_parameter else None
    takes_self = resolver.self_parameter is not None

    async def resolve(source: object, raw_info: Any, **given: Any) -> Any:  # noqa: ANN401 - any value
        info: Info[Any, Any] = Info(_raw_info=raw_info, _field=field)
        try:
            arguments = {
                python_name: convert(given[name], info) if convert else given[name]
                for name, python_name, convert in parameters
                if name in given
            }
            if info_name is not None:
                arguments[info_name] = info
            return await (resolver(source, **arguments) if takes_self else resolver(**arguments))  # type: ignore[arg-type]
        except Exception as error:
            for kinds, handler in handlers:
                if isinstance(error, kinds):
                    if (handled := await await_maybe(handler.handle(error, field=field, info=info))) is None:
                        raise
                    return handled
            raise

    return resolve


def _parameter(
    converter: GraphQLCoreConverter,
    name: str,
    declared: Any,  # noqa: ANN401 - a GraphQLArgument
) -> tuple[str, str, Callable[[Any, Info[Any, Any]], Any] | None]:
    """An argument's names in GraphQL and in Python, and what makes Python's value where anything has to."""
    argument: StrawberryArgument = declared.extensions[DEFINITION]
    if is_leaf_type(get_nullable_type(declared.type)) and not argument.is_maybe:
        return name, argument.python_name, None

    def convert(value: Any, info: Info[Any, Any]) -> Any:  # noqa: ANN401 - any value
        registry, config = converter.scalar_registry, converter.config
        return convert_argument(value, argument.type, registry, config, info, path=(name,))

    return name, argument.python_name, convert
