"""What goes wrong outside GraphQL: told to programs as JSON, and to people as a page."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.media_types import preferred
from api.pages import Pages
from core.errors import ObjectNotFoundError, ServiceUnavailableError


def answer_errors(app: FastAPI, pages: Pages) -> None:
    """Have ``app`` answer errors so."""

    def say(
        request: Request, message: str, *, status: int, headers: Mapping[str, str] | None = None
    ) -> Response:
        if not _from_browser(request):
            return JSONResponse({"detail": message}, status_code=status, headers=headers)
        page = pages.refuse(request, message, status=status)
        page.headers.update(headers or {})
        return page

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        message = "There is nothing here." if error.detail == "Not Found" else error.detail
        return say(request, message, status=error.status_code, headers=error.headers)

    async def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
        if not _from_browser(request):
            return await request_validation_exception_handler(request, error)
        return say(request, "This link is not whole. Open it from the letter, or copy all of it.", status=400)

    async def unavailable(request: Request, error: Exception) -> Response:  # noqa: ARG001 - FastAPI's hook
        message = "A backing service does not answer. Try again."
        return say(request, message, status=503, headers={"Retry-After": "2"})

    async def gone(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as above
        return say(request, "There is no such picture.", status=404)

    async def left(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as above
        # In the middle of a body: nobody reads this, and it is no error of ours.
        return Response(status_code=400)

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(ServiceUnavailableError, unavailable)
    app.add_exception_handler(ObjectNotFoundError, gone)
    app.add_exception_handler(ClientDisconnect, left)


def _from_browser(request: Request) -> bool:
    """Whether somebody has followed a link or sent a form, and would rather read a page."""
    return preferred(request.headers.get("accept"), ("application/json", "text/html")) == "text/html"
