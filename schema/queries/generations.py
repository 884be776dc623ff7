"""Looking up generations."""

from typing import Annotated

import strawberry

from core.errors import FieldProblem, InvalidInputError
from core.generations import MAX_PAGE
from schema.context import Context
from schema.cost import ListSize
from schema.types.account import Account
from schema.types.generation import Generation, GenerationConnection, from_cursor
from schema.types.node import Node, from_global_id, key_of


@strawberry.type
class GenerationQuery:
    """Queries about the viewer's generations."""

    @strawberry.field(description="Any of your objects by its id; null for what is unknown or not yours.")
    async def node(
        self,
        info: strawberry.Info[Context, None],
        id: Annotated[strawberry.ID, strawberry.argument(description="A global id.")],  # noqa: A002 - Relay's name
    ) -> Node | None:
        """An account or a generation."""
        viewer = await info.context.viewer()
        parts = from_global_id(id)
        if parts == ("Account", viewer.account.id):
            return Account.of(viewer.account)
        return await _owned_generation(info.context, id)

    @strawberry.field(description="One of your generations; null for what is unknown or not yours.")
    async def generation(
        self,
        info: strawberry.Info[Context, None],
        id: Annotated[strawberry.ID, strawberry.argument(description="The generation's id.")],  # noqa: A002 - the contract's name
    ) -> Generation | None:
        """The generation, if it is the viewer's."""
        return await _owned_generation(info.context, id)

    @strawberry.field(
        description="Your generations, newest first.",
        directives=[ListSize(slicing_arguments=["first"], sized_fields=["edges"])],
    )
    async def generations(
        self,
        info: strawberry.Info[Context, None],
        first: Annotated[int, strawberry.argument(description=f"How many, 1 to {MAX_PAGE}.")] = 20,
        after: Annotated[
            str | None, strawberry.argument(description="The `endCursor` of the page before.")
        ] = None,
    ) -> GenerationConnection:
        """One page."""
        viewer = await info.context.viewer()
        position = None
        if after is not None and (position := from_cursor(after)) is None:
            raise InvalidInputError([FieldProblem("after", "is not a cursor of this listing")])
        rows, more = await info.context.services.generations.page(viewer.account, size=first, after=position)
        return GenerationConnection.of(list(rows), more=more, first_page=position is None)


async def _owned_generation(context: Context, global_id: str) -> Generation | None:
    key = key_of(global_id, "Generation")
    found = await context.services.generations.find(context.claims(), key) if key else None
    if found is None:
        # Somebody whose session was ended is told so.
        await context.viewer()
        return None
    return Generation.of(found)
