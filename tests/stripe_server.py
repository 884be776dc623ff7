"""A stand-in for Stripe that the tests serve on this machine, over real HTTP.

It knows what we use of Stripe's API (opening Checkout sessions with idempotency, reading payment intents),
it has the page to pay on, and it writes the events that Stripe would deliver, signed as the ``stripe``
library signs.
"""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
import stripe
from pydantic import SecretStr

from core.settings import Offer, PaymentSettings

SECRET_KEY = "sk_test_darkroom"
WEBHOOK_SECRET = "whsec_darkroom"
WEEK = Offer(id="week", days=7, price=300, currency="eur")
MONTH = Offer(id="month", days=30, price=900, currency="eur")
_PAGES = "/c/pay/"
_PAGE = """<!doctype html>
<html lang="en">
<title>Pay</title>
<link rel="icon" href="data:,">
<p>{amount_total} {currency}</p>
<form method="post"><button>Pay</button></form>
<a href="{cancel_url}">Back</a>
</html>
"""


@dataclass
class StripeServer:
    """Sessions and payments of one Stripe account, which can be told to fail."""

    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of every request so far."""
    failures: list[tuple[HTTPStatus, dict[str, Any]]] = field(default_factory=list)
    """What to answer to the next requests instead, which are then not carried out."""
    lost: int = 0
    """How many of the next requests are carried out without their answer arriving."""
    delay: float = 0
    """Seconds that every answer takes."""
    address: str = ""
    webhook: str = ""
    """Where the events of what is paid on its pages go."""
    _answers: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open_session(self, key: str, form: str) -> tuple[HTTPStatus, dict[str, Any]]:
        """Answers a key that it has seen with what it answered then, and refuses it with another body."""
        with self._lock:
            if key in self._answers:
                first_form, answer = self._answers[key]
                if first_form != form:
                    return HTTPStatus.BAD_REQUEST, _error(
                        "idempotency_error", "Keys need the same parameters."
                    )
                return HTTPStatus.OK, answer
            asked = _unfold(form)
            [line] = asked["line_items"].values()
            price = line["price_data"]
            number = next(self._numbers)
            session = {
                "id": f"cs_test_{number}",
                "object": "checkout.session",
                "mode": asked["mode"],
                "client_reference_id": asked["client_reference_id"],
                "metadata": asked["metadata"],
                "amount_total": int(price["unit_amount"]) * int(line["quantity"]),
                "currency": price["currency"],
                "url": f"{self.address}/c/pay/cs_test_{number}",
                "success_url": asked["success_url"],
                "cancel_url": asked["cancel_url"],
                "expires_at": int(time.time()) + 24 * 3600,
                "status": "open",
                "payment_status": "unpaid",
                "payment_intent": None,
            }
            self.sessions[session["id"]] = session
            self.payments[f"pi_{number}"] = {
                "id": f"pi_{number}",
                "object": "payment_intent",
                "metadata": asked["payment_intent_data"]["metadata"],
            }
            self._answers[key] = (form, session)
            return HTTPStatus.OK, session

    def completed(self, url: str, *, payment_status: str = "paid") -> dict[str, Any]:
        """The event after somebody went through the page at ``url``."""
        session = self._session(url)
        session |= {"status": "complete", "payment_status": payment_status}
        session["payment_intent"] = f"pi_{session['id'].removeprefix('cs_test_')}"
        return self.event("checkout.session.completed", session)

    def told(self, kind: str, url: str, **fields: Any) -> dict[str, Any]:
        """Another event about the page at ``url``."""
        session = self._session(url)
        session |= fields
        return self.event(f"checkout.session.{kind}", session)

    def refunded(self, url: str, *, amount: int | None = None) -> dict[str, Any]:
        """The event after all that was paid, or ``amount`` of it, went back."""
        session = self._session(url)
        number, total = session["id"].removeprefix("cs_test_"), session["amount_total"]
        charge = {
            "id": f"ch_{number}",
            "object": "charge",
            "amount": total,
            "amount_refunded": total if amount is None else amount,
            "refunded": amount is None,
            "payment_intent": f"pi_{number}",
            "metadata": self.payments[f"pi_{number}"]["metadata"],
        }
        return self.event("charge.refunded", charge)

    def disputed(self, url: str, kind: str = "funds_withdrawn") -> dict[str, Any]:
        """The event after the customer's bank took the money back; it does not say what was paid for."""
        number = self._session(url)["id"].removeprefix("cs_test_")
        dispute = {
            "id": f"dp_{number}",
            "object": "dispute",
            "charge": f"ch_{number}",
            "payment_intent": f"pi_{number}",
            "metadata": {},
            "status": "needs_response",
        }
        return self.event(f"charge.dispute.{kind}", dispute)

    def event(self, kind: str, thing: dict[str, Any]) -> dict[str, Any]:
        """An event as it stands at this moment."""
        return {
            "id": f"evt_{next(self._numbers)}",
            "object": "event",
            "api_version": stripe.api_version,
            "created": int(time.time()),
            "livemode": False,
            "type": kind,
            "data": {"object": json.loads(json.dumps(thing))},
        }

    def _session(self, url: str) -> dict[str, Any]:
        return self.sessions[url.rpartition("/")[2]]


def signed(event: dict[str, Any], *, secret: str = WEBHOOK_SECRET, age: float = 0) -> tuple[str, str]:
    """An event's body, and what stands in ``Stripe-Signature`` of a delivery made ``age`` seconds ago."""
    body = json.dumps(event)
    made = int(time.time() - age)
    return body, stripe.WebhookSignature.generate_signature_header(body, secret, made)


async def deliver(http: httpx.AsyncClient, event: dict[str, Any], **how: Any) -> httpx.Response:
    """Deliver an event to the served api."""
    body, signature = signed(event, **how)
    headers = {"Stripe-Signature": signature, "Content-Type": "application/json; charset=utf-8"}
    return await http.post("/webhooks/stripe", content=body, headers=headers)


def _error(kind: str, message: str, **more: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, **more}}


def _unfold(form: str) -> dict[str, Any]:
    """``a[b][0]=x`` as nested tables, as Stripe's forms have it."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(form, strict_parsing=True):
        *path, last = name.replace("]", "").split("[")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return found


class _Handler(BaseHTTPRequestHandler):
    stripe: StripeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Stay quiet."""

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.startswith(_PAGES):
            self._pay()
        elif self._may_go_on():
            assert self.path == "/v1/checkout/sessions"
            assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            self._answer(*self.stripe.open_session(self.headers["Idempotency-Key"], form))

    def do_GET(self) -> None:
        if self.path.startswith(_PAGES):
            session = self.stripe.sessions[self.path.removeprefix(_PAGES)]
            self._send(HTTPStatus.OK, _PAGE.format(**session).encode(), content_type="text/html")
        elif self._may_go_on():
            payment = self.stripe.payments.get(self.path.removeprefix("/v1/payment_intents/"))
            if payment is None:
                error = _error("invalid_request_error", "No such payment_intent", code="resource_missing")
                self._answer(HTTPStatus.NOT_FOUND, error)
            else:
                self._answer(HTTPStatus.OK, payment)

    def _pay(self) -> None:
        event = self.stripe.completed(self.path)
        body, signature = signed(event)
        httpx.post(self.stripe.webhook, content=body, headers={"Stripe-Signature": signature})
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", event["data"]["object"]["success_url"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _may_go_on(self) -> bool:
        self.stripe.requests.append((self.command, self.path, dict(self.headers)))
        time.sleep(self.stripe.delay)
        if self.headers["Authorization"] != f"Bearer {SECRET_KEY}":
            self._answer(HTTPStatus.UNAUTHORIZED, _error("invalid_request_error", "Invalid API Key provided"))
            return False
        if self.stripe.failures:
            self._answer(*self.stripe.failures.pop(0))
            return False
        return True

    def _answer(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        if self.stripe.lost:
            self.stripe.lost -= 1
            self.close_connection = True
            return
        self._send(status, json.dumps(answer).encode(), content_type="application/json")

    def _send(self, status: HTTPStatus, body: bytes, *, content_type: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Request-Id", "req_test")
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # whoever asked did not wait


@pytest.fixture
def stripe_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeServer]:
    """Stripe, on this machine."""
    standin = StripeServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stripe": standin}))
    standin.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield standin
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def payment_settings(stripe_server: StripeServer) -> PaymentSettings:
    """Two offers, sold through the stand-in."""
    return PaymentSettings(
        stripe_secret_key=SecretStr(SECRET_KEY),
        stripe_webhook_secret=SecretStr(WEBHOOK_SECRET),
        stripe_url=stripe_server.address,
        payment_timeout_seconds=3,
        offers=(WEEK, MONTH),
    )
