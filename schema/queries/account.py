"""Who asks."""

import strawberry

from core.errors import UnauthenticatedError
from schema.context import Context
from schema.types.account import Account


@strawberry.type
class AccountQuery:
    """Queries about the viewer."""

    @strawberry.field(description="You, or null when you are not signed in.")
    async def me(self, info: strawberry.Info[Context, None]) -> Account | None:
        """The viewer's account."""
        try:
            viewer = await info.context.viewer()
        except UnauthenticatedError:
            return None
        return Account.of(viewer.account)
