"""What resolvers reach: the services, and who asks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from core.accounts.closing import Closing
from core.accounts.limits import RateLimiter
from core.accounts.payments import Payments
from core.accounts.places import SubscriptionPlaces
from core.accounts.premium import Vouchers
from core.accounts.registration import Registration
from core.accounts.reminders import Reminders
from core.accounts.sessions import Sessions, Viewer
from core.accounts.tokens import AccessClaims
from core.catalogue import Catalogue
from core.errors import UnauthenticatedError
from core.generations import Generations
from core.outlook import Outlooks
from core.queue import Queue
from core.retention import Lifetimes
from core.statuses import Statuses
from core.storage import DownloadLinks
from schema.loaders import Loaders

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The api's services, made once per process."""

    registration: Registration
    reminders: Reminders
    sessions: Sessions
    closing: Closing
    vouchers: Vouchers
    payments: Payments
    limiter: RateLimiter
    places: SubscriptionPlaces
    generations: Generations
    outlooks: Outlooks
    lifetimes: Lifetimes
    catalogue: Catalogue
    statuses: Statuses
    queue: Queue
    links: DownloadLinks


class Context:
    """One request, or one websocket connection.

    Attributes:
        services: of the process.
        address: that limits are counted for.
        request_id: for logs.
        connection_params: the payload with which a websocket connection was begun.
    """

    def __init__(
        self, *, services: Services, authorization: str | None, address: str, request_id: str
    ) -> None:
        self.services = services
        self.address = address
        self.request_id = request_id
        self.connection_params: Any = None
        self._authorization = authorization
        self._viewer: Viewer | None = None

    @cached_property
    def loaders(self) -> Loaders:
        """Made when first needed: few of the thousands who watch need any."""
        return Loaders(outlooks=self.services.outlooks)

    async def connect(self) -> Viewer:
        """Authenticate a websocket connection by its ``connection_init`` payload.

        Raises:
            UnauthenticatedError: the payload has no good token.
        """
        parameters = self.connection_params if isinstance(self.connection_params, dict) else {}
        authorization = parameters.get("authorization", parameters.get("Authorization"))
        self._authorization = authorization if isinstance(authorization, str) else None
        self.connection_params = None
        # Not kept: each operation looks up anew who asks.
        return await self.services.sessions.authenticate(self.claims())

    def for_operation(self) -> Self:
        """A context for one operation of a websocket connection: it looks up anew who asks."""
        return type(self)(
            services=self.services,
            authorization=self._authorization,
            address=self.address,
            request_id=self.request_id,
        )

    def claims(self) -> AccessClaims:
        """What a genuine access token says, for what looks up by itself whether the session lives.

        Raises:
            UnauthenticatedError: no token, or one that is not good.
        """
        authorization = self._authorization or ""
        if not authorization.lower().startswith(_SCHEME):
            raise UnauthenticatedError("Sign in first: send `Authorization: Bearer <accessToken>`.")
        return self.services.sessions.claims(authorization[len(_SCHEME) :].strip())

    async def viewer(self) -> Viewer:
        """Who asks; looked up once.

        Raises:
            UnauthenticatedError: no token, one that is not good, or a session that was ended.
        """
        if self._viewer is None:
            self._viewer = await self.services.sessions.authenticate(self.claims())
        return self._viewer
