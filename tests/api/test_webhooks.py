"""What is done when Stripe tells of a payment: signed webhooks over HTTP, from a stand-in for Stripe."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from tortoise import connections

from core.accounts.premium import create_voucher
from core.clock import now
from core.models import Account, Checkout, Letter, LetterKind, Purchase
from core.settings import DatabaseSettings, PaymentSettings
from tests.graphql_client import Client
from tests.stripe_server import (
    WEBHOOK_SECRET,
    StripeServer,
    deliver,
    payment_settings,
    signed,
    stripe_server,
)

__all__ = ["payment_settings", "stripe_server"]

BUY = """
mutation ($offer: ID!) { buyPremium(input: { offer: $offer }) { ... on Checkout { url } } }
"""
REDEEM = """
mutation ($code: String!) { redeemVoucher(code: $code) { ... on Account { premiumUntil } } }
"""
ME = "{ me { tier premiumUntil } }"


async def page(customer: Client, offer: str = "month") -> str:
    """The address of a page on which the customer can pay."""
    return str((await customer.data(BUY, offer=offer))["buyPremium"]["url"])


async def outcome(client: Client, event: dict[str, Any]) -> str:
    """What came of an event that is delivered once and taken."""
    response = await deliver(client.http, event)
    assert response.status_code == 200, response.text
    return str(response.json()["outcome"])


async def days_left(customer: Client) -> float:
    until = (await customer.data(ME))["me"]["premiumUntil"]
    return 0 if until is None else (datetime.fromisoformat(until) - datetime.now(UTC)) / timedelta(days=1)


async def open_every_connection() -> None:
    """So that what comes at once meets: otherwise the first is done before a second has connected."""
    sleep = "SELECT pg_sleep(0.2)"
    await asyncio.gather(*(connections.get("default").execute_query(sleep) for _ in range(5)))


async def letters() -> list[LetterKind]:
    return [letter.kind for letter in await Letter.all().order_by("created_at")]


async def test_a_paid_page_gives_its_time_and_a_letter(normal: Client, stripe_server: StripeServer) -> None:
    url = await page(normal)
    assert await outcome(normal, stripe_server.completed(url)) == "paid"

    me = (await normal.data(ME))["me"]
    assert me["tier"] == "PREMIUM"
    assert await days_left(normal) == pytest.approx(30, abs=0.01)
    assert await letters() == [LetterKind.PREMIUM_STARTED]
    purchase, checkout = await Purchase.get(), await Checkout.get()
    assert (purchase.source, purchase.reference, purchase.days) == ("stripe", "stripe:pi_1", 30)
    assert (checkout.payment, checkout.paid_at is not None) == ("pi_1", True)


async def test_one_event_delivered_twenty_times_at_once_counts_once(
    normal: Client, stripe_server: StripeServer
) -> None:
    event = stripe_server.completed(await page(normal))
    await open_every_connection()
    answers = await asyncio.gather(*(deliver(normal.http, event) for _ in range(20)))
    outcomes = sorted(answer.json()["outcome"] for answer in answers)
    assert outcomes == ["paid"] + ["repeated"] * 19
    assert await days_left(normal) == pytest.approx(30, abs=0.01)
    assert await Purchase.all().count() == 1
    assert await letters() == [LetterKind.PREMIUM_STARTED]


async def test_two_events_about_one_session_count_once(normal: Client, stripe_server: StripeServer) -> None:
    url = await page(normal)
    completed = stripe_server.completed(url)
    succeeded = stripe_server.told("async_payment_succeeded", url)
    outcomes = [await outcome(normal, event) for event in (succeeded, completed, completed)]
    assert outcomes == ["paid", "repeated", "repeated"]
    assert await days_left(normal) == pytest.approx(30, abs=0.01)


async def test_purchases_at_the_same_moment_all_count_one_after_the_other(
    normal: Client, stripe_server: StripeServer
) -> None:
    events = [stripe_server.completed(await page(normal, offer)) for offer in ("month", "week", "month")]
    code = await create_voucher(days=5)
    await open_every_connection()
    await asyncio.gather(*(outcome(normal, event) for event in events), normal.data(REDEEM, code=code))
    assert await days_left(normal) == pytest.approx(72, abs=0.01)
    rows = await Purchase.all().order_by("starts_at")
    assert [row.starts_at for row in rows[1:]] == [row.ends_at for row in rows[:-1]]


async def test_time_is_added_at_the_end_of_what_there_is(
    premium: Client, stripe_server: StripeServer
) -> None:
    before = await days_left(premium)
    await outcome(premium, stripe_server.completed(await page(premium, "week")))
    assert await days_left(premium) == pytest.approx(before + 7, abs=0.001)


async def test_a_payment_that_takes_days_counts_when_it_arrives(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    assert await outcome(normal, stripe_server.completed(url, payment_status="unpaid")) == "ignored"
    assert await days_left(normal) == 0
    paid = stripe_server.told("async_payment_succeeded", url, payment_status="paid")
    assert await outcome(normal, paid) == "paid"
    assert await days_left(normal) == pytest.approx(30, abs=0.01)


async def test_a_payment_that_does_not_arrive_gives_nothing_and_is_told_by_letter(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url, payment_status="unpaid"))
    failed = stripe_server.told("async_payment_failed", url)
    assert [await outcome(normal, failed) for _ in range(2)] == ["failed", "ignored"]
    assert await days_left(normal) == 0
    assert await letters() == [LetterKind.PAYMENT_FAILED]


async def test_a_page_that_nobody_used_is_forgotten(normal: Client, stripe_server: StripeServer) -> None:
    expired = stripe_server.told("expired", await page(normal))
    assert [await outcome(normal, expired) for _ in range(2)] == ["expired", "ignored"]
    assert await Checkout.all().count() == 0
    assert await letters() == []


@pytest.mark.parametrize("kind", ["expired", "async_payment_failed"])
async def test_what_was_paid_is_not_forgotten(normal: Client, stripe_server: StripeServer, kind: str) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url))
    assert await outcome(normal, stripe_server.told(kind, url)) == "ignored"
    assert await days_left(normal) == pytest.approx(30, abs=0.01)


async def test_a_refund_ends_the_time_once_and_is_told_by_letter(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url))
    refunded = stripe_server.refunded(url)
    await open_every_connection()
    answers = await asyncio.gather(*(deliver(normal.http, refunded) for _ in range(5)))
    assert sorted(answer.json()["outcome"] for answer in answers) == ["refunded"] + ["repeated"] * 4
    assert (await normal.data(ME))["me"]["tier"] == "NORMAL"
    assert await letters() == [LetterKind.PREMIUM_STARTED, LetterKind.PREMIUM_REVOKED]
    assert (await Letter.get(kind=LetterKind.PREMIUM_REVOKED)).parameters == {"reason": "refund", "days": 30}


async def test_a_refund_takes_only_the_time_of_its_own_purchase(
    normal: Client, stripe_server: StripeServer
) -> None:
    month = await page(normal, "month")
    for url in (month, await page(normal, "week")):
        await outcome(normal, stripe_server.completed(url))
    await normal.data(REDEEM, code=await create_voucher(days=5))
    await outcome(normal, stripe_server.refunded(month))
    assert await days_left(normal) == pytest.approx(12, abs=0.01)
    week, voucher = await Purchase.get(days=7), await Purchase.get(days=5)
    assert abs(week.starts_at - now()) < timedelta(minutes=1)
    assert voucher.starts_at == week.ends_at
    assert voucher.ends_at == (await Account.get()).premium_until


async def test_a_refund_in_part_leaves_the_time_until_all_is_refunded(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url))
    assert await outcome(normal, stripe_server.refunded(url, amount=899)) == "ignored"
    assert await days_left(normal) == pytest.approx(30, abs=0.01)
    assert await outcome(normal, stripe_server.refunded(url)) == "refunded"
    assert (await normal.data(ME))["me"]["tier"] == "NORMAL"


async def test_a_refund_that_is_told_before_its_payment_gives_nothing(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    paid, refunded = stripe_server.completed(url), stripe_server.refunded(url)
    assert [await outcome(normal, event) for event in (refunded, paid, paid)] == [
        "refunded",
        "ignored",
        "repeated",
    ]
    assert await days_left(normal) == 0
    assert await letters() == []


async def test_a_refund_whose_charge_names_no_checkout_is_found_by_its_payment(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url))
    refunded = stripe_server.refunded(url)
    refunded["data"]["object"]["metadata"] = {}
    assert await outcome(normal, refunded) == "refunded"
    refunded["data"]["object"]["payment_intent"] = "pi_of_somebody_else"
    assert await outcome(normal, refunded) == "ignored"


async def test_money_that_a_bank_takes_back_ends_the_time_and_a_question_does_not(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url))
    assert await outcome(normal, stripe_server.disputed(url, "created")) == "ignored"
    assert await outcome(normal, stripe_server.disputed(url)) == "disputed"
    assert await outcome(normal, stripe_server.refunded(url)) == "repeated"
    assert (await normal.data(ME))["me"]["tier"] == "NORMAL"
    assert (await Letter.get(kind=LetterKind.PREMIUM_REVOKED)).parameters["reason"] == "dispute"


async def test_a_dispute_waits_for_stripe_when_it_cannot_be_asked(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await outcome(normal, stripe_server.completed(url))
    stripe_server.failures = [(HTTPStatus.BAD_GATEWAY, {})] * 3
    dispute = stripe_server.disputed(url)
    assert (await deliver(normal.http, dispute)).status_code == 503
    assert await days_left(normal) > 29
    assert await outcome(normal, dispute) == "disputed"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "invoice.paid", "data": {"object": {"id": "in_1", "metadata": None}}},
        {"type": "something.new", "data": {"object": {"metadata": 7}}},
        {"type": "checkout.session.completed", "data": {"object": {"id": "cs_1", "payment_status": "paid"}}},
        {"type": "charge.refunded", "data": {"object": {"id": "ch_1", "refunded": True, "metadata": {}}}},
        {"type": "charge.refunded", "data": {"object": {"id": "x", "metadata": {"darkroom_checkout": "x"}}}},
        {"type": "charge.dispute.funds_withdrawn", "data": {"object": {"id": "dp_1"}}},
    ],
    ids=lambda event: event["type"],
)
async def test_what_is_not_about_us_is_taken_and_ignored(client: Client, event: dict[str, Any]) -> None:
    assert await outcome(client, {"id": "evt_1", "object": "event", **event}) == "ignored"


async def test_what_is_told_of_a_checkout_that_nobody_knows_is_taken(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    await Checkout.all().delete()
    events = [
        stripe_server.told("expired", url),
        stripe_server.completed(url),
        stripe_server.refunded(url),
    ]
    assert [await outcome(normal, event) for event in events] == ["ignored", "ownerless", "ignored"]


async def test_a_payment_for_an_account_that_is_gone_is_taken_and_counted_for_the_operator(
    normal: Client, stripe_server: StripeServer
) -> None:
    url = await page(normal)
    paid, refunded = stripe_server.completed(url), stripe_server.refunded(url)
    await Account.all().delete()
    before = REGISTRY.get_sample_value("darkroom_webhooks_total", {"outcome": "ownerless"}) or 0
    outcomes = [await outcome(normal, event) for event in (paid, paid, refunded, refunded)]
    assert outcomes == ["ownerless", "repeated", "refunded", "repeated"]
    assert REGISTRY.get_sample_value("darkroom_webhooks_total", {"outcome": "ownerless"}) == before + 1
    checkout = await Checkout.get()
    assert (checkout.account_id, checkout.payment, checkout.price) == (None, "pi_1", 900)
    assert await Purchase.all().count() == 0


@pytest.mark.parametrize(
    "how", [{"secret": "whsec_of_somebody_else"}, {"age": 301}], ids=["another secret", "too old"]
)
async def test_a_webhook_that_is_not_from_stripe_changes_nothing(
    normal: Client, stripe_server: StripeServer, how: dict[str, Any]
) -> None:
    event = stripe_server.completed(await page(normal))
    response = await deliver(normal.http, event, **how)
    assert response.status_code == 400
    assert WEBHOOK_SECRET not in response.text
    assert await days_left(normal) == 0


@pytest.mark.parametrize(
    "signature",
    [None, b"", b"t=1", b"t=x,v1=y", b"v1=00", b"t=99999999999,v1=\xe9", b"t=1" * 2000, b",,,=,"],
)
async def test_a_signature_that_is_none_is_refused(client: Client, signature: bytes | None) -> None:
    headers = {} if signature is None else {b"Stripe-Signature": signature}
    response = await client.http.post("/webhooks/stripe", content=b"{}", headers=headers)
    assert response.status_code == 400


async def test_a_body_that_was_changed_on_its_way_is_refused(
    normal: Client, stripe_server: StripeServer
) -> None:
    body, signature = signed(stripe_server.completed(await page(normal), payment_status="unpaid"))
    changed = body.replace('"unpaid"', '"paid"')
    assert changed != body
    headers = {"Stripe-Signature": signature}
    response = await normal.http.post("/webhooks/stripe", content=changed, headers=headers)
    assert response.status_code == 400


@pytest.mark.parametrize("body", [[], 1, "x", {}, {"type": "x"}, {"id": 1, "type": [], "data": {}}])
async def test_a_signed_body_that_is_no_event_is_refused(client: Client, body: Any) -> None:
    assert (await deliver(client.http, body)).status_code == 400


async def test_bytes_that_are_no_text_are_refused(client: Client) -> None:
    headers = {"Stripe-Signature": "t=1,v1=00"}
    response = await client.http.post("/webhooks/stripe", content=b"\xff\xfe", headers=headers)
    assert response.status_code == 400


async def test_a_body_that_is_too_large_is_refused_unread(client: Client) -> None:
    assert (await deliver(client.http, {"type": "x" * 300_000})).status_code == 413


async def test_refused_webhooks_are_counted(client: Client) -> None:
    before = REGISTRY.get_sample_value("darkroom_webhooks_total", {"outcome": "refused"}) or 0
    await deliver(client.http, {}, secret="whsec_of_somebody_else")
    assert REGISTRY.get_sample_value("darkroom_webhooks_total", {"outcome": "refused"}) == before + 1


@pytest.mark.parametrize("name", ["thanks", "canceled"])
async def test_there_is_a_page_to_come_back_to(client: Client, name: str) -> None:
    response = await client.http.get(f"/premium/{name}")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


class TestWithoutStripe:
    @pytest.fixture
    def payment_settings(self) -> PaymentSettings:
        return PaymentSettings()

    async def test_no_webhook_is_trusted(self, client: Client) -> None:
        event = {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "ch_1"}}}
        for secret in (WEBHOOK_SECRET, ""):
            assert (await deliver(client.http, event, secret=secret)).status_code == 400


class Wire:
    """A connection to the database that can be cut and mended, for everybody who uses it."""

    def __init__(self) -> None:
        self._far = self._near = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def join(self, far: int) -> int:
        """Lead to the port ``far``; returns the port to use."""
        self._far = far
        await self.mend()
        return self._near

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._near)
        self._near = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


class TestWhileTheDatabaseIsAway:
    @pytest.fixture
    async def wire(self) -> AsyncIterator[Wire]:
        wire = Wire()
        yield wire
        wire.cut()

    @pytest.fixture
    async def database_settings(self, wire: Wire, database_settings: DatabaseSettings) -> DatabaseSettings:
        url = database_settings.database_url.get_secret_value()
        port = urlsplit(url).port
        assert port is not None
        mine = url.replace(f":{port}/", f":{await wire.join(port)}/")
        return database_settings.model_copy(update={"database_url": SecretStr(mine)})

    async def test_stripe_is_asked_to_deliver_again_and_then_it_counts(
        self, normal: Client, stripe_server: StripeServer, wire: Wire
    ) -> None:
        event = stripe_server.completed(await page(normal))
        wire.cut()
        for _ in range(3):
            response = await deliver(normal.http, event)
            assert response.status_code == 503
            assert response.headers["Retry-After"]
        await wire.mend()
        assert await outcome(normal, event) == "paid"
        assert await days_left(normal) == pytest.approx(30, abs=0.01)
