"""The pages that letters link to, and those that a customer comes back to from paying."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse

from api import assets
from api.addresses import client_address
from api.rate_limit_headers import rate_limit_headers
from core.accounts.limits import Standing, touched
from core.accounts.password_rules import MAX_LENGTH, MIN_LENGTH
from core.accounts.registration import Registration
from core.accounts.reminders import Reminders
from core.errors import ClientError, InvalidTokenError, RateLimitedError

Token = Annotated[str, Query(max_length=200, description="From the link in the letter.")]
FormToken = Annotated[str, Form(max_length=200)]

# The token is in the address, so the address must not travel on as a referrer.
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; font-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}


def _registration(request: Request) -> Registration:
    registration: Registration = request.app.state.services.registration
    return registration


def _reminders(request: Request) -> Reminders:
    reminders: Reminders = request.app.state.services.reminders
    return reminders


Service = Annotated[Registration, Depends(_registration)]
ReminderService = Annotated[Reminders, Depends(_reminders)]


def pages_router(pages: "Pages") -> APIRouter:
    """The pages. A GET only shows them, so that a mail scanner which follows links uses nothing up."""
    router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
    _add_verifying(router, pages)
    _add_resetting(router, pages)
    _add_paying(router, pages)
    _add_unsubscribing(router, pages)
    return router


class Pages:
    """The templates."""

    def __init__(self) -> None:
        self._templates = assets.templates()

    def show(self, request: Request, name: str, *, status: int = 200, **values: object) -> HTMLResponse:
        """A template, with what it asks for."""
        return self._templates.TemplateResponse(
            request, f"{name}.html", values, status_code=status, headers=_HEADERS
        )

    def say(self, request: Request, title: str, message: str, *, status: int = 200) -> HTMLResponse:
        """A page with a message and the way to the studio."""
        return self.show(request, "message", status=status, title=title, message=message)

    def refuse(self, request: Request, problem: str, *, status: int = 400) -> HTMLResponse:
        """A page with what is wrong."""
        return self.say(request, "That did not work", problem, status=status)


def _add_verifying(router: APIRouter, pages: Pages) -> None:
    @router.get("/verify")
    async def show_verify(request: Request, token: Token) -> HTMLResponse:
        return pages.show(request, "verify", token=token)

    @router.post("/verify")
    async def verify(request: Request, token: FormToken, registration: Service) -> HTMLResponse:
        try:
            account = await registration.verify_email(token)
        except ClientError as error:
            return pages.refuse(request, str(error))
        message = f"{account.email} is verified. You can sign in now."
        return pages.say(request, "Welcome to Darkroom", message)


def _add_resetting(router: APIRouter, pages: Pages) -> None:
    def ask(request: Request, token: str, *, problem: str | None = None, status: int = 200) -> HTMLResponse:
        bounds = {"least": MIN_LENGTH, "most": MAX_LENGTH}
        return pages.show(request, "reset_password", status=status, token=token, problem=problem, **bounds)

    @router.get("/reset-password")
    async def show_reset(request: Request, token: Token) -> HTMLResponse:
        return ask(request, token)

    @router.post("/reset-password")
    async def reset(
        request: Request, token: FormToken, registration: Service, password: Annotated[str, Form()] = ""
    ) -> HTMLResponse:
        standings: list[Standing] = []
        touched.set(standings)
        try:
            account = await registration.reset_password(
                token=token, password=password, address=client_address(request)
            )
        except RateLimitedError as error:
            refused = ask(request, token, problem=str(error), status=429)
            refused.headers.update(rate_limit_headers(standings))
            return refused
        except InvalidTokenError as error:
            # No password could mend it, so none is asked for.
            return pages.refuse(request, str(error))
        except ClientError as error:
            return ask(request, token, problem=str(error), status=400)
        message = f"{account.email} has a new password, and every session was signed out."
        return pages.say(request, "Your password is changed", message)


def _add_paying(router: APIRouter, pages: Pages) -> None:
    @router.get("/premium/thanks")
    async def thanks(request: Request) -> HTMLResponse:
        # Coming here proves nothing: the time is given when the payment is told by webhook.
        message = (
            "As soon as your payment is confirmed, your premium time is added and a letter says until when. "
            "With a card that takes moments, with a bank transfer or debit it can take days."
        )
        return pages.say(request, "Thank you", message)

    @router.get("/premium/canceled")
    async def canceled(request: Request) -> HTMLResponse:
        message = "Nothing was paid. You can buy premium time whenever you like."
        return pages.say(request, "You did not pay", message)


def _add_unsubscribing(router: APIRouter, pages: Pages) -> None:
    @router.get("/unsubscribe")
    async def show_unsubscribe(request: Request, token: Token, reminders: ReminderService) -> HTMLResponse:
        try:
            reminders.read(token)
        except ClientError as error:
            return pages.refuse(request, str(error))
        return pages.show(request, "unsubscribe", token=token)

    # The token stays in the address: mail programs that unsubscribe by themselves (RFC 8058) send no form of
    # ours.
    @router.post("/unsubscribe")
    async def unsubscribe(
        request: Request, token: Token, reminders: ReminderService, wanted: bool = False
    ) -> HTMLResponse:
        try:
            await reminders.choose(reminders.read(token), wanted=wanted)
        except ClientError as error:
            return pages.refuse(request, str(error))
        return pages.show(request, "unsubscribed", token=token, wanted=wanted)
