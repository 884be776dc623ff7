"""The HTTP application, put together from services that are already running."""

from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.types import ASGIApp

from api import assets, downloads, health, webhooks
from api.connections import Connections
from api.errors import answer_errors
from api.graphql import GraphQLEndpoint, GraphQLMiddleware
from api.health import HealthChecks
from api.inbox import inbox_router
from api.middleware import RequestMiddleware
from api.pages import Pages, pages_router
from api.settings import ApiSettings, HttpSettings
from core.accounts.closing import Closing
from core.accounts.limits import RateLimiter
from core.accounts.passwords import PasswordHasher
from core.accounts.payments import Payments
from core.accounts.places import SubscriptionPlaces
from core.accounts.premium import Vouchers
from core.accounts.registration import Registration
from core.accounts.reminders import Reminders
from core.accounts.sessions import Sessions
from core.accounts.stripe import StripePayments
from core.accounts.tokens import AccessTokens
from core.catalogue import offered_models
from core.generations import Generations
from core.outbox import JobOutbox
from core.outlook import Outlooks
from core.queue import Queue, Workers
from core.recording import Recorder
from core.retention import Lifetimes
from core.statuses import Statuses
from core.storage import DownloadLinks, Storage
from schema.context import Services
from schema.schema import build_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the application shares with the background tasks of its process."""

    queue: Queue
    storage: Storage
    outbox: JobOutbox
    recorder: Recorder
    places: SubscriptionPlaces
    connections: Connections
    stripe: StripePayments | None
    health: HealthChecks

    async def close(self) -> None:
        """Let go of connections that are the parts' own."""
        if self.stripe is not None:
            await self.stripe.close()


def build_parts(settings: ApiSettings, *, queue: Queue) -> Parts:
    """The parts, over a connection to the broker."""
    storage = Storage.open(settings.storage)
    return Parts(
        queue=queue,
        storage=storage,
        outbox=JobOutbox(queue=queue),
        recorder=Recorder(queue=queue),
        places=SubscriptionPlaces(settings.limits),
        stripe=StripePayments.of(settings.payment, public_url=settings.links.public_url),
        connections=Connections(check_seconds=settings.websocket.session_check_seconds),
        health=HealthChecks(queue=queue, storage=storage),
    )


def build_services(settings: ApiSettings, parts: Parts) -> Services:
    """The services that resolvers reach.

    Raises:
        ConfigurationError: the models on offer cannot be had as they are configured.
    """
    catalogue = offered_models(settings.catalogue)
    passwords = PasswordHasher(settings.tokens)
    limiter = RateLimiter(settings.limits)
    outlooks = Outlooks(workers=Workers(queue=parts.queue))
    sessions = Sessions(
        settings=settings.tokens,
        passwords=passwords,
        tokens=AccessTokens(settings.tokens),
        limiter=limiter,
    )
    return Services(
        registration=Registration(passwords=passwords, limiter=limiter),
        reminders=Reminders(settings.links),
        sessions=sessions,
        closing=Closing(sessions=sessions),
        vouchers=Vouchers(limiter=limiter),
        payments=Payments(provider=parts.stripe, offers=settings.payment.offers, limiter=limiter),
        limiter=limiter,
        places=parts.places,
        generations=Generations(
            outbox=parts.outbox,
            recorder=parts.recorder,
            catalogue=catalogue,
            limiter=limiter,
            limits=settings.limits,
        ),
        outlooks=outlooks,
        statuses=Statuses(queue=parts.queue, outlooks=outlooks),
        lifetimes=Lifetimes(settings.retention),
        catalogue=catalogue,
        queue=parts.queue,
        links=DownloadLinks(settings.links),
    )


def build_app(settings: ApiSettings, parts: Parts) -> ASGIApp:
    """The ASGI application: ``/graphql``, and FastAPI for everything else."""
    services = build_services(settings, parts)
    app = FastAPI(title="Darkroom", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.services = services
    app.state.storage = parts.storage
    app.state.health = parts.health
    endpoint = GraphQLEndpoint(
        build_schema(settings.documents),
        services=services,
        connections=parts.connections,
        settings=settings,
    )
    app.include_router(health.router)
    app.include_router(downloads.router)
    app.include_router(webhooks.router)
    pages = Pages()
    app.include_router(pages_router(pages))
    if settings.http.inbox_maildir is not None:
        app.include_router(inbox_router(settings.http.inbox_maildir))
    _show_studio(app, settings)
    answer_errors(app, pages)
    return _let_in(RequestMiddleware(GraphQLMiddleware(app, endpoint=endpoint)), settings.http)


def _let_in(app: ASGIApp, settings: HttpSettings) -> ASGIApp:
    """Tell browsers that pages of the allowed origins may call; without any they may not."""
    if not settings.allowed_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.allowed_origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "Content-Type", "If-None-Match", "If-Range", "Range", "X-Request-Id"),
        expose_headers=(
            *("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag"),
            *("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"),
        ),
    )


def _show_studio(app: FastAPI, settings: ApiSettings) -> None:
    inbox = None if settings.http.inbox_maildir is None else "/inbox"
    page = assets.studio(public_url=settings.links.public_url, inbox=inbox)
    app.mount("/assets", assets.BuiltFiles(), name="assets")

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def show() -> Response:
        return page.response()
