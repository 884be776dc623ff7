"""How what has no plan is executed: as graphql-core does it, without the ceremony where nothing happens.

That is subscriptions above all, each of whose events is an execution; see :mod:`schema.plans` for the others.
"""

import weakref
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from graphql import GraphQLObjectType, GraphQLResolveInfoHelpers, is_leaf_type, is_non_null_type
from graphql.execution.collect_fields import FieldDetails
from graphql.pyutils import Path, Undefined
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

_KEPT: Final = 1000


class Execution(StrawberryGraphQLCoreExecutionContext):
    """Answers fields that only hold a value, which is most of them, by reading it.

    graphql-core makes an info and arguments for each and asks whether there is something to wait for, which
    is a fifth of what an event of a subscription costs. What is no value of the field's type goes that way
    too, and becomes an error there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - graphql-core's
        super().__init__(*args, **kwargs)
        # By the bound methods that are there otherwise it holds itself, until garbage is collected: with
        # thousands of subscriptions that is the longest pause of the event loop.
        itself = weakref.proxy(self)
        self.async_helpers = GraphQLResolveInfoHelpers(
            gather=lambda work: itself.gather_async_work(work),  # noqa: PLW0108 - as above
            track=lambda work: itself.track_async_work(work),  # noqa: PLW0108 - as above
        )

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: object,
        field_details_list: list[FieldDetails],
        path: Path,
        position_context: Any,  # noqa: ANN401 - graphql-core's
    ) -> Any:  # noqa: ANN401 - a field may be anything
        """The value of one field."""
        plain = None
        if not (self.middleware_manager and self.middleware_manager.middlewares):
            plain = _plain(parent_type, field_details_list[0].node.name.value)
        if plain is not None:
            read, coerce, nullable = plain
            try:
                value = read(source)
                if value is None and nullable:
                    return None
                coerced = coerce(value)
            except Exception:  # noqa: BLE001 - said again, with its place, the long way
                coerced = None
            if coerced is not None and coerced is not Undefined:
                return coerced
        return super().execute_field(parent_type, source, field_details_list, path, position_context)


@lru_cache(maxsize=_KEPT)
def _plain(
    parent_type: GraphQLObjectType, name: str
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], bool] | None:
    """How to read a field and what its type makes of it, and whether it may be none; for no other fields."""
    field = parent_type.fields.get(name)
    if field is None or field.args or not getattr(field.resolve, "_is_default", False):
        return None
    nullable = not is_non_null_type(field.type)
    kind: Any = field.type if nullable else field.type.of_type
    if not is_leaf_type(kind):
        return None
    definition = field.extensions["strawberry-definition"]
    return attrgetter(definition.python_name), kind.coerce_output_value, nullable
