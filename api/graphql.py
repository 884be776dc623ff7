"""GraphQL over HTTP and WebSocket, and GraphiQL for browsers."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.requests import HTTPConnection
from strawberry import Schema
from strawberry.exceptions import ConnectionRejectionError
from strawberry.fastapi import GraphQLRouter
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from core.errors import UnauthenticatedError
from schema.context import Context, Services

EXPLORER_FOLDER: Final = Path(__file__).parent / "explorer" / "dist"

_HEADERS = {
    "Cache-Control": "no-cache",
    # Monaco, GraphiQL's editor, sets styles from script and carries its fonts inside its style sheet.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}


class _Router(GraphQLRouter[Context, None]):
    async def on_ws_connect(self, context: Context) -> dict[str, object] | None:
        """Close with 4403 unless ``connection_init`` carries a good token; over HTTP each field asks."""
        try:
            await context.connect()
        except UnauthenticatedError as error:
            raise ConnectionRejectionError from error
        return None

    async def render_graphql_ide(self, request: Request) -> HTMLResponse:  # noqa: ARG002 - strawberry's hook
        """Our own build of GraphiQL, from our own origin."""
        page = EXPLORER_FOLDER / "index.html"
        if not page.is_file():
            return HTMLResponse(
                "GraphiQL is not built here: run <code>make explorer</code>.", status_code=503
            )
        return HTMLResponse(page.read_text(), headers=_HEADERS)


def graphql_router(schema: Schema, *, services: Services) -> APIRouter:
    """``/graphql``: POST and WebSocket for clients, GET with ``Accept: text/html`` for browsers."""

    async def context(connection: HTTPConnection) -> Context:
        return Context(
            services=services,
            authorization=connection.headers.get("authorization"),
            address=connection.client.host if connection.client else "",
            request_id=connection.scope["state"]["request_id"],
        )

    return _Router(
        schema,
        path="/graphql",
        graphql_ide="graphiql",
        allow_queries_via_get=False,
        context_getter=context,
        subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
    )
