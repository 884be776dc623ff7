"""GraphQL over HTTP and WebSocket, and GraphiQL for browsers."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final

import orjson
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import GraphQL
from strawberry.exceptions import MissingQueryError
from strawberry.http.websocket_origin import is_same_origin, normalize_origin
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from api import assets
from api.addresses import client_address
from api.connections import Connections
from api.media_types import preferred
from api.operations import Operation, RefusedRequestError, decode_json, read_operation
from api.rate_limit_headers import rate_limit_headers
from api.settings import ApiSettings
from api.websocket import WebSocketHandler
from core import tracing
from core.accounts.limits import Standing, touched
from schema.context import Context, Services

PATH: Final = "/graphql"
_JSON: Final = "application/json"
_GRAPHQL_JSON: Final = "application/graphql-response+json"
_KINDS: Final = frozenset((OperationType.QUERY, OperationType.MUTATION))


class GraphQLEndpoint(GraphQL[Context, None]):
    """``/graphql``: POST and WebSocket for clients, GET with ``Accept: text/html`` for browsers.

    Speaks GraphQL over HTTP, https://graphql.github.io/graphql-over-http/draft/: in its own media type an
    answer without data has status 400, or 503 where it took too long; in ``application/json`` every answer
    to a readable request has 200. It is an application of its own: nothing of FastAPI's stands before an
    operation. Sockets are Strawberry's, with a handler of ours.
    """

    def __init__(
        self, schema: Schema, *, services: Services, connections: Connections, settings: ApiSettings
    ) -> None:
        super().__init__(
            schema,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=timedelta(seconds=settings.websocket.websocket_init_seconds),
            max_subscriptions_per_connection=settings.websocket.websocket_operations,
            # Also the address by which customers know us, which a proxy may have replaced in `Host`.
            allowed_origins=(*settings.http.allowed_origins, assets.origin(settings.links.public_url)),
        )
        self.graphql_transport_ws_handler_class = partial(  # type: ignore[assignment] # it is only called
            WebSocketHandler,
            connections=connections,
            timeout_seconds=settings.documents.operation_timeout_seconds,
        )
        self._services = services
        self._explorer = assets.explorer(public_url=settings.links.public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a socket."""
        if scope["type"] == "websocket":
            await self.run(WebSocket(scope, receive, send))
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except RefusedRequestError as error:
            response = _refusal(request, error)
        except ClientDisconnect:
            # In the middle of a body: nobody reads this, and it is no error of ours.
            response = Response(status_code=400)
        await response(scope, receive, send)

    async def get_context(self, request: HTTPConnection, response: object) -> Context:  # noqa: ARG002 - strawberry's hook
        """The context of a connection."""
        return self._context(request)

    def decode_json(self, data: str | bytes) -> object:
        """What a message on a socket says."""
        return decode_json(data)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return self._show_explorer(request)
        self._admit(request)
        media_type = preferred(request.headers.get("accept"), (_JSON, _GRAPHQL_JSON))
        if media_type is None:
            raise RefusedRequestError(HTTPStatus.NOT_ACCEPTABLE, f"Answers are {_GRAPHQL_JSON} or {_JSON}.")
        operation = read_operation(await request.body())
        standings: list[Standing] = []
        touched.set(standings)
        try:
            result = await self._executed(request, operation)
        except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError) as error:
            raise RefusedRequestError.of(error) from error
        return _response(result, media_type, rate_limit_headers(standings))

    async def _executed(self, request: Request, operation: Operation) -> ExecutionResult:
        # Whoever asks has no say in what is sampled here; where they trace it themselves, it is linked.
        theirs = request.headers.get(tracing.HEADER) if tracing.enabled() else None
        with tracing.span("GraphQL", kind=tracing.Kind.SERVER, links=(theirs,) if theirs else ()):
            return await self.schema.execute(
                operation.query,
                variable_values=operation.variables,
                context_value=self._context(request),
                operation_name=operation.name,
                allowed_operation_types=_KINDS,
                operation_extensions=operation.extensions,
            )

    def _show_explorer(self, request: Request) -> Response:
        """GraphiQL for a browser; nothing for a link with an operation."""
        accept = request.headers.get("accept", "")
        if request.method != "GET" or "query" in request.query_params or not _shows_pages(accept):
            raise RefusedRequestError(HTTPStatus.METHOD_NOT_ALLOWED, "Operations are sent by POST.")
        return self._explorer.response()

    def _context(self, connection: HTTPConnection) -> Context:
        return Context(
            services=self._services,
            authorization=connection.headers.get("authorization"),
            address=client_address(connection),
            request_id=connection.scope["state"]["request_id"],
        )

    def _admit(self, request: Request) -> None:
        """Refuse what a page elsewhere could make a browser send: forms and calls."""
        origin = request.headers.get("origin")
        if not (
            origin is None
            or is_same_origin(origin, request.headers.get("host"))
            or "*" in self.allowed_origins
            or normalize_origin(origin) in self.allowed_origins
        ):
            raise RefusedRequestError(HTTPStatus.FORBIDDEN, "Pages of this origin may not call the API.")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != _JSON:
            raise RefusedRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The body has to be {_JSON}.")


class GraphQLMiddleware:
    """Serves ``/graphql``, past FastAPI's routing.

    What routing, its dependencies and its handling of errors hold for as long as a socket is open would be an
    eighth of what a subscription takes, and what they do for a query a tenth of its time.
    """

    def __init__(self, app: ASGIApp, *, endpoint: GraphQLEndpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request or websocket."""
        serves = scope["type"] in ("http", "websocket") and scope["path"] == PATH
        await (self._endpoint if serves else self._app)(scope, receive, send)


def _response(result: ExecutionResult, media_type: str, headers: Mapping[str, str]) -> Response:
    answer: dict[str, object] = {"data": result.data}
    if result.errors:
        answer["errors"] = [error.formatted for error in result.errors]
        if result.data is None and not any(error.path for error in result.errors):
            # Nothing was executed: its errors have no place in the data.
            del answer["data"]
    if result.extensions:
        answer["extensions"] = result.extensions
    return Response(
        orjson.dumps(answer),
        status_code=200 if media_type == _JSON or "data" in answer else _status_without_data(result),
        headers={"Content-Type": f"{media_type}; charset=utf-8", **headers},
    )


def _status_without_data(result: ExecutionResult) -> int:
    """What the request is answered with where it is wrong, and where it was not and we gave it up."""
    given_up = any((error.extensions or {}).get("code") == "TIMEOUT" for error in result.errors or ())
    return 503 if given_up else 400


def _refusal(request: Request, error: RefusedRequestError) -> Response:
    """An unreadable request is answered in the form of all answers too."""
    return JSONResponse(
        {"errors": [{"message": error.reason, "extensions": {"code": "BAD_REQUEST"}}]},
        status_code=error.status.value,
        headers={"Allow": "POST"} if error.status is HTTPStatus.METHOD_NOT_ALLOWED else None,
        media_type=preferred(request.headers.get("accept"), (_JSON, _GRAPHQL_JSON)) or _JSON,
    )


def _shows_pages(accept: str) -> bool:
    return "text/html" in accept or "*/*" in accept
