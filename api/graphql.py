"""GraphQL over HTTP and WebSocket, and GraphiQL for browsers."""

from pathlib import Path
from typing import Final

from cross_web import AsyncHTTPRequestAdapter, HTTPException
from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.requests import HTTPConnection
from strawberry import Schema
from strawberry.exceptions import ConnectionRejectionError
from strawberry.fastapi import GraphQLRouter
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.unset import UNSET

from api.media_types import preferred
from api.rate_limit_headers import rate_limit_headers
from core.accounts.limits import Standing, touched
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


_JSON: Final = "application/json"
_GRAPHQL_JSON: Final = "application/graphql-response+json"


class _Router(GraphQLRouter[Context, None]):
    """Speaks GraphQL over HTTP, https://graphql.github.io/graphql-over-http/draft/.

    In its own media type an answer without data, one that nothing was done for, has status 400; in
    ``application/json`` every answer to a readable request has 200.
    """

    async def run(  # type: ignore[override] # its overloads say the same of more kinds of requests
        self, request: Request | WebSocket, context: Context = UNSET, root_value: None = None
    ) -> Response | WebSocket:
        """Answers an unreadable request in the form of all answers too, and tells where limits stand."""
        if isinstance(request, WebSocket):
            return await super().run(request, context, root_value)
        standings: list[Standing] = []
        touched.set(standings)
        try:
            response = await super().run(request, context, root_value)
        except HTTPException as error:
            return JSONResponse(
                {"errors": [{"message": error.reason, "extensions": {"code": "BAD_REQUEST"}}]},
                status_code=error.status_code,
                media_type=preferred(request.headers.get("accept"), (_JSON, _GRAPHQL_JSON)) or _JSON,
            )
        response.headers.update(rate_limit_headers(standings))
        return response

    def decode_json(self, data: str | bytes) -> object:
        """One operation: an object that is not nested without end."""
        try:
            found = super().decode_json(data)
        except (RecursionError, UnicodeDecodeError) as error:
            raise HTTPException(400, "The body is not JSON that can be read.") from error
        if not isinstance(found, dict):
            raise HTTPException(400, "The body has to be a JSON object, with one operation in it.")
        return found

    async def parse_http_body(
        self, request: AsyncHTTPRequestAdapter
    ) -> GraphQLRequestData | list[GraphQLRequestData]:
        """The operation, whose parts have the types that they have to have."""
        parsed = await super().parse_http_body(request)
        if isinstance(parsed, GraphQLRequestData) and not isinstance(parsed.operation_name, str | None):
            raise HTTPException(400, "The GraphQL operation's `operationName` must be a string or null.")
        return parsed

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        """Without ``data`` where nothing was executed: its errors have no place in the answer."""
        answer = await super().process_result(request, result)
        if result.data is None and result.errors and not any(error.path for error in result.errors):
            del answer["data"]
        return answer

    async def get_sub_response(self, request: Request) -> Response:
        """The answer's media type. Strawberry's own is kept on the router, where requests replace it."""
        media_type = preferred(request.headers.get("accept"), (_JSON, _GRAPHQL_JSON, "text/html"))
        if media_type is None:
            raise HTTPException(406, f"Answers are {_GRAPHQL_JSON} or {_JSON}.")
        return Response(media_type=media_type)

    def create_response(
        self, response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse], sub_response: Response
    ) -> Response:
        """The answer, in the media type that was asked for."""
        media_type = _GRAPHQL_JSON if sub_response.media_type == _GRAPHQL_JSON else _JSON
        refused = media_type == _GRAPHQL_JSON and "data" not in response_data
        return Response(
            self.encode_json(response_data),
            status_code=400 if refused else 200,
            headers={"Content-Type": f"{media_type}; charset=utf-8"},
        )

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
