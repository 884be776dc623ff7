"""Buying premium time: what is for sale and the page to pay on, from a stand-in for Stripe."""

import asyncio
import time
from http import HTTPStatus
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from core.models import Account, Checkout
from core.settings import LimitSettings, PaymentSettings
from tests.graphql_client import Client
from tests.stripe_server import StripeServer, payment_settings, stripe_server

__all__ = ["payment_settings", "stripe_server"]

OFFERS = "{ offers { id days price currency } }"
BUY = """
mutation ($offer: ID!) {
  buyPremium(input: { offer: $offer }) {
    __typename
    ... on Checkout { url expiresAt offer { id days price currency } }
    ... on InvalidInput { fields { field message } }
    ... on RateLimited { retryAfter }
    ... on UserError { message }
  }
}
"""


async def buy(customer: Client, offer: str = "month") -> dict[str, Any]:
    answer: dict[str, Any] = (await customer.data(BUY, offer=offer))["buyPremium"]
    return answer


async def code_of_buying(customer: Client) -> str:
    [error] = (await customer.execute(BUY, offer="month"))["errors"]
    return str(error["extensions"]["code"])


async def test_everybody_sees_what_is_for_sale(client: Client) -> None:
    assert (await client.data(OFFERS))["offers"] == [
        {"id": "week", "days": 7, "price": 300, "currency": "EUR"},
        {"id": "month", "days": 30, "price": 900, "currency": "EUR"},
    ]


async def test_buying_opens_a_page_and_gives_nothing_yet(normal: Client, stripe_server: StripeServer) -> None:
    checkout = await buy(normal)

    assert checkout["__typename"] == "Checkout"
    assert checkout["offer"] == {"id": "month", "days": 30, "price": 900, "currency": "EUR"}
    [session] = stripe_server.sessions.values()
    assert checkout["url"] == session["url"]
    assert (session["mode"], session["amount_total"], session["currency"]) == ("payment", 900, "eur")
    assert session["success_url"] == "http://127.0.0.1:8000/premium/thanks"
    assert session["cancel_url"] == "http://127.0.0.1:8000/premium/canceled"
    account, row = await Account.get(), await Checkout.get()
    assert session["metadata"] == {"darkroom_checkout": str(row.id), "darkroom_account": str(account.id)}
    assert UUID(session["client_reference_id"]) == row.id
    assert (row.days, row.price, row.currency, row.paid_at) == (30, 900, "eur", None)
    assert account.premium_until is None


async def test_stripe_is_not_told_who_the_customer_is_nor_what_this_machine_is(
    normal: Client, stripe_server: StripeServer
) -> None:
    await buy(normal)
    [session] = stripe_server.sessions.values()
    [(_, _, headers)] = stripe_server.requests
    assert "normal@example.org" not in str(session)
    assert "platform" not in headers["X-Stripe-Client-User-Agent"]
    assert "telemetry" not in headers["X-Stripe-Client-User-Agent"]


async def test_an_answer_that_was_lost_is_asked_for_again_and_opens_no_second_page(
    normal: Client, stripe_server: StripeServer
) -> None:
    stripe_server.lost = 1
    checkout = await buy(normal)
    assert checkout["__typename"] == "Checkout"
    keys = [headers["Idempotency-Key"] for _, _, headers in stripe_server.requests]
    assert keys == [str((await Checkout.get()).id)] * 2
    assert len(stripe_server.sessions) == 1


async def test_every_purchase_has_a_page_of_its_own(normal: Client, stripe_server: StripeServer) -> None:
    pages = await asyncio.gather(*(buy(normal, "week") for _ in range(5)))
    assert len({page["url"] for page in pages}) == 5 == await Checkout.all().count()


@pytest.mark.parametrize("offer", ["year", "", "Month", "x" * 1000])
async def test_an_offer_that_there_is_not_is_refused_with_those_that_there_are(
    normal: Client, stripe_server: StripeServer, offer: str
) -> None:
    refused = await buy(normal, offer)
    assert refused["__typename"] == "InvalidInput"
    assert refused["fields"] == [{"field": "offer", "message": "has to be one of: week, month"}]
    assert stripe_server.requests == []
    assert await Checkout.all().count() == 0


async def test_only_who_is_signed_in_can_buy(client: Client, stripe_server: StripeServer) -> None:
    assert await code_of_buying(client) == "UNAUTHENTICATED"
    assert stripe_server.requests == []


@pytest.mark.parametrize("status", [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.TOO_MANY_REQUESTS])
async def test_while_stripe_fails_nothing_is_written_and_trying_again_helps(
    normal: Client, stripe_server: StripeServer, status: HTTPStatus
) -> None:
    stripe_server.failures = [(status, {"error": {"type": "api_error", "message": "Ouch."}})] * 3
    assert await code_of_buying(normal) == "SERVICE_UNAVAILABLE"
    assert await Checkout.all().count() == 0
    stripe_server.failures = []
    assert (await buy(normal))["__typename"] == "Checkout"


async def test_a_slow_stripe_is_given_up_in_time_and_keeps_nobody_else_waiting(
    normal: Client, client: Client, stripe_server: StripeServer
) -> None:
    stripe_server.delay = 5
    begun = time.monotonic()
    buying = asyncio.create_task(code_of_buying(normal))
    while not stripe_server.requests:  # noqa: ASYNC110 - the stand-in runs in a thread
        await asyncio.sleep(0.01)
    await client.data(OFFERS)
    assert not buying.done()
    assert await buying == "SERVICE_UNAVAILABLE"
    assert time.monotonic() - begun < 4
    assert await Checkout.all().count() == 0


async def test_what_stripe_refuses_is_said_to_be_unavailable(
    normal: Client, stripe_server: StripeServer
) -> None:
    reason = {"type": "invalid_request_error", "message": "Amount is too small.", "param": "line_items"}
    stripe_server.failures = [(HTTPStatus.BAD_REQUEST, {"error": reason})]
    refused = await buy(normal)
    assert refused["__typename"] == "PaymentUnavailable"
    assert "too small" not in refused["message"]
    assert len(stripe_server.requests) == 1
    assert await Checkout.all().count() == 0


class TestWithAKeyThatStripeDoesNotKnow:
    @pytest.fixture
    def payment_settings(self, payment_settings: PaymentSettings) -> PaymentSettings:
        return payment_settings.model_copy(update={"stripe_secret_key": SecretStr("sk_test_other")})

    async def test_paying_is_unavailable_and_the_key_is_not_shown(self, normal: Client) -> None:
        refused = await buy(normal)
        assert refused["__typename"] == "PaymentUnavailable"
        assert "sk_test_other" not in str(refused)


class TestWithoutStripe:
    @pytest.fixture
    def payment_settings(self) -> PaymentSettings:
        return PaymentSettings()

    async def test_nothing_is_for_sale_and_buying_says_so(self, normal: Client) -> None:
        assert (await normal.data(OFFERS))["offers"] == []
        refused = await buy(normal)
        assert refused["__typename"] == "PaymentUnavailable"
        assert "redeemVoucher" in refused["message"]


class TestLimited:
    @pytest.fixture
    def limit_settings(self) -> LimitSettings:
        return LimitSettings(checkouts_per_hour=2)

    async def test_pages_are_counted_and_mistakes_are_not(
        self, normal: Client, stripe_server: StripeServer
    ) -> None:
        offers = ["year", "month", "month", "month"]
        kinds = [(await buy(normal, offer))["__typename"] for offer in offers]
        assert kinds == ["InvalidInput", "Checkout", "Checkout", "RateLimited"]
        assert len(stripe_server.requests) == 2
