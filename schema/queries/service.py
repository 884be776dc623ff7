"""The models on offer, what premium time costs, and the state of the service."""

from importlib.metadata import version

import strawberry

from core.outlook import next_window_at
from core.repository import windows
from schema.context import Context
from schema.cost import ListSize
from schema.types.premium import Offer
from schema.types.service import Model, Service


@strawberry.type
class ServiceQuery:
    """Queries that need no sign-in."""

    @strawberry.field(
        description="The models on offer; the first is the default.", directives=[ListSize(assumed_size=10)]
    )
    def models(self, info: strawberry.Info[Context, None]) -> list[Model]:
        """In the catalogue's order."""
        return [Model.of(entry) for entry in info.context.services.catalogue.models]

    @strawberry.field(
        description="The premium time that is for sale; empty where none is sold by card.",
        directives=[ListSize(assumed_size=10)],
    )
    def offers(self, info: strawberry.Info[Context, None]) -> list[Offer]:
        """In the operator's order."""
        return [Offer.of(offer) for offer in info.context.services.payments.offers]

    @strawberry.field(description="The state of the service.")
    async def service(self) -> Service:
        """As of now."""
        clock = await windows.clock()
        return Service(
            version=version("darkroom"),
            window_schedule=clock.expression if clock else None,
            next_window_at=await next_window_at(),
        )
