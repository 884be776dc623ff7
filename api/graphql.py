"""GraphQL over HTTP and WebSocket, and GraphiQL for browsers."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from json import JSONDecodeError
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cross_web import AsyncHTTPRequestAdapter, HTTPException, StarletteRequestAdapter
from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry import Schema
from strawberry.fastapi import GraphQLRouter
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.http.websocket_origin import is_same_origin, normalize_origin
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.unset import UNSET

from api.addresses import client_address
from api.connections import Connections
from api.media_types import preferred
from api.rate_limit_headers import rate_limit_headers
from api.settings import ApiSettings
from api.websocket import WebSocketHandler
from core.accounts.limits import Standing, touched
from schema.context import Context, Services

PATH: Final = "/graphql"
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
_HALF_PAIR: Final = b"\\ud"
"""How an escape begins that may be half of a surrogate pair; no database and no hash takes one alone."""


class _Request(StarletteRequestAdapter):
    @property
    def content_type(self) -> str:
        """In small letters, as strawberry expects it."""
        return (super().content_type or "").lower()


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class _Router(GraphQLRouter[Context, None]):
    """Speaks GraphQL over HTTP, https://graphql.github.io/graphql-over-http/draft/.

    In its own media type an answer without data, one that nothing was done for, has status 400; in
    ``application/json`` every answer to a readable request has 200.
    """

    request_adapter_class = _Request

    async def run(  # type: ignore[override] # its overloads say the same of more kinds of requests
        self, request: Request | WebSocket, context: Context = UNSET, root_value: None = None
    ) -> Response | WebSocket:
        """Answers an unreadable request in the form of all answers too, and tells where limits stand."""
        if isinstance(request, WebSocket):
            return await super().run(request, context, root_value)
        standings: list[Standing] = []
        touched.set(standings)
        try:
            self._admit(request)
            response = await super().run(request, context, root_value)
        except HTTPException as error:
            return JSONResponse(
                {"errors": [{"message": error.reason, "extensions": {"code": "BAD_REQUEST"}}]},
                status_code=error.status_code,
                headers={"Allow": "POST"} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else None,
                media_type=preferred(request.headers.get("accept"), (_JSON, _GRAPHQL_JSON)) or _JSON,
            )
        response.headers.update(rate_limit_headers(standings))
        return response

    def _admit(self, request: Request) -> None:
        """Refuse what a page elsewhere could make a browser send: links, forms and calls."""
        if request.method == "GET":
            if not self.should_render_graphql_ide(self.request_adapter_class(request)):
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, "Operations are sent by POST.")
            return
        origin = request.headers.get("origin")
        if not (
            origin is None
            or is_same_origin(origin, request.headers.get("host"))
            or "*" in self.allowed_origins
            or normalize_origin(origin) in self.allowed_origins
        ):
            raise HTTPException(HTTPStatus.FORBIDDEN, "Pages of this origin may not call the API.")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != _JSON:
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The body has to be {_JSON}.")

    def parse_json(self, data: str | bytes) -> object:
        """One operation: an object."""
        found = super().parse_json(data)
        if not isinstance(found, dict):
            raise HTTPException(400, "The body has to be a JSON object, with one operation in it.")
        return found

    def decode_json(self, data: str | bytes) -> object:
        """What is nested without end, has a number without end or is no text is no JSON either."""
        try:
            found = json.loads(data, parse_constant=_no_number)
            if _HALF_PAIR in (data if isinstance(data, bytes) else data.encode()).lower():
                json.dumps(found, ensure_ascii=False).encode()
        except (RecursionError, ValueError) as error:
            raise JSONDecodeError("not JSON that can be read", "", 0) from error
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

    async def render_graphql_ide(self, request: Request) -> HTMLResponse:  # noqa: ARG002 - strawberry's hook
        """Our own build of GraphiQL, from our own origin."""
        page = EXPLORER_FOLDER / "index.html"
        if not page.is_file():
            return HTMLResponse(
                "GraphiQL is not built here: run <code>make explorer</code>.", status_code=503
            )
        return HTMLResponse(page.read_text(), headers=_HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLEndpoint:
    """``/graphql``: a router for POST, and for GET with ``Accept: text/html``; and WebSocket beside it."""

    router: APIRouter
    serve_websocket: Callable[[WebSocket], Awaitable[None]]


def graphql_endpoint(
    schema: Schema, *, services: Services, connections: Connections, settings: ApiSettings
) -> GraphQLEndpoint:
    """GraphQL over HTTP and WebSocket."""

    async def context(connection: HTTPConnection) -> Context:
        return Context(
            services=services,
            authorization=connection.headers.get("authorization"),
            address=client_address(connection),
            request_id=connection.scope["state"]["request_id"],
        )

    router = _Router(
        schema,
        path=PATH,
        graphql_ide="graphiql",
        allow_queries_via_get=False,
        context_getter=context,
        subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
        connection_init_wait_timeout=timedelta(seconds=settings.websocket.websocket_init_seconds),
        max_subscriptions_per_connection=settings.websocket.websocket_operations,
        # Also the address by which customers know us, which a proxy may have replaced in `Host`.
        allowed_origins=(*settings.http.allowed_origins, _origin(settings.links.public_url)),
    )
    router.graphql_transport_ws_handler_class = partial(  # type: ignore[assignment] # it is only called
        WebSocketHandler,
        connections=connections,
        timeout_seconds=settings.documents.operation_timeout_seconds,
    )

    async def serve_websocket(websocket: WebSocket) -> None:
        await router.run(websocket, context=await context(websocket), root_value=None)

    return GraphQLEndpoint(router=router, serve_websocket=serve_websocket)


class WebSocketMiddleware:
    """Serves the websockets at ``/graphql``, past FastAPI's routing.

    What routing, its dependencies and its handling of errors hold for as long as a socket is open would be an
    eighth of what a subscription takes.
    """

    def __init__(self, app: ASGIApp, *, endpoint: GraphQLEndpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request or websocket."""
        if scope["type"] == "websocket" and scope["path"] == PATH:
            await self._endpoint.serve_websocket(WebSocket(scope, receive, send))
        else:
            await self._app(scope, receive, send)


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
