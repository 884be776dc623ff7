"""Buying premium time by card: what is for sale, a page to pay on, and what is done once it was paid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID, uuid4

import structlog

from core.accounts.limits import Action, RateLimiter
from core.accounts.premium import RevocationReason, give_premium, take_back_premium
from core.clock import now
from core.errors import (
    DarkroomError,
    FieldProblem,
    InvalidInputError,
    InvalidWebhookError,
    PaymentUnavailableError,
)
from core.models import Account, Checkout, LetterKind
from core.outbox import write_letter
from core.repository import purchases
from core.repository.database import in_transaction
from core.settings import Offer
from core.telemetry import CHECKOUTS, WEBHOOKS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentPage:
    """Where a customer pays. ``session`` is the provider's name for it."""

    session: str
    url: str
    expires_at: datetime


class PaymentEvent(StrEnum):
    """What became of a payment page or of its payment.

    A page that nobody used is EXPIRED; a payment that was begun there and did not arrive has FAILED.
    REFUNDED is the whole price, at once or in parts; DISPUTED, that the customer's bank took it back.
    """

    PAID = "paid"
    EXPIRED = "expired"
    FAILED = "failed"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentNotice:
    """What the provider tells of one of our checkouts. ``payment`` is its name for what was paid."""

    event: PaymentEvent
    checkout_id: UUID
    payment: str


class PaymentProvider(Protocol):
    """Whoever takes the money."""

    @property
    def name(self) -> str:
        """The source of the purchases that it is paid for."""

    async def open_page(self, offer: Offer, *, checkout_id: UUID, account_id: UUID) -> PaymentPage:
        """A new page to pay an offer on; a second call with the same checkout opens no second one.

        Raises:
            ServiceUnavailableError: the provider does not answer; nothing was paid or promised.
            PaymentUnavailableError: it does not take the offer; a person has to act.
        """

    async def read_webhook(self, body: bytes, *, signature: str) -> PaymentNotice | None:
        """What a webhook says; none when it is not about a checkout of ours or changes nothing.

        Raises:
            InvalidWebhookError: it is not from the provider, too old, or cannot be read.
            ServiceUnavailableError: the provider has to be asked and does not answer; it will deliver again.
        """


_REASONS: Final = {
    PaymentEvent.REFUNDED: RevocationReason.REFUND,
    PaymentEvent.DISPUTED: RevocationReason.DISPUTE,
}


class Payments:
    """Sells premium time. Without a provider nothing is for sale."""

    def __init__(
        self, *, provider: PaymentProvider | None, offers: Sequence[Offer], limiter: RateLimiter
    ) -> None:
        self._provider = provider
        self.offers: Final = tuple(offers) if provider else ()
        self._limiter = limiter

    async def open_checkout(
        self, account: Account, *, offer_id: str, address: str
    ) -> tuple[PaymentPage, Offer]:
        """A page on which the account can pay for an offer.

        Raises:
            PaymentUnavailableError: nothing is for sale here, or the provider does not take the offer.
            InvalidInputError: there is no such offer.
            RateLimitedError: too many pages for this account or from this network address.
            ServiceUnavailableError: the provider does not answer.
        """
        if self._provider is None:
            raise PaymentUnavailableError("Nothing is sold by card here. A voucher works: redeemVoucher.")
        offer = next((offer for offer in self.offers if offer.id == offer_id), None)
        if offer is None:
            known = ", ".join(offer.id for offer in self.offers)
            raise InvalidInputError([FieldProblem("offer", f"has to be one of: {known}")])
        await self._limiter.spend(Action.CHECKOUT, address=address, account=account.email_key)
        checkout_id = uuid4()
        try:
            page = await self._provider.open_page(offer, checkout_id=checkout_id, account_id=account.id)
        except DarkroomError as error:
            CHECKOUTS.labels(outcome="unavailable" if error.retryable else "refused").inc()
            raise
        # Only now: nobody has seen the page yet, so that it cannot be paid before there is this row.
        await Checkout.create(
            id=checkout_id,
            account_id=account.id,
            session=page.session,
            days=offer.days,
            price=offer.price,
            currency=offer.currency,
        )
        CHECKOUTS.labels(outcome="opened").inc()
        log.info("checkout_opened", checkout=str(checkout_id), account=str(account.id), offer=offer.id)
        return page, offer

    async def take_webhook(self, body: bytes, *, signature: str) -> str:
        """Do what a webhook asks for, once, however often it comes; returns what came of it.

        Raises:
            InvalidWebhookError: it is not from the provider, too old, or cannot be read.
            ServiceUnavailableError: the provider has to be asked and does not answer; it will deliver again.
        """
        if self._provider is None:
            raise InvalidWebhookError("nothing is sold by card here")
        try:
            notice = await self._provider.read_webhook(body, signature=signature)
        except InvalidWebhookError as error:
            WEBHOOKS.labels(outcome="refused").inc()
            log.warning("webhook_refused", error=str(error))
            raise
        if notice is None:
            outcome = "ignored"
        else:
            async with in_transaction():
                outcome = await self._apply(notice, source=self._provider.name)
            log.info(
                "webhook_applied",
                event_kind=notice.event.value,
                outcome=outcome,
                checkout=str(notice.checkout_id),
                payment=notice.payment,
            )
        WEBHOOKS.labels(outcome=outcome).inc()
        return outcome

    async def _apply(self, notice: PaymentNotice, *, source: str) -> str:
        found = await purchases.lock_checkout(notice.checkout_id)
        if found is None:
            return _ownerless(notice) if notice.event is PaymentEvent.PAID else "ignored"
        checkout, account = found
        match notice.event:
            case PaymentEvent.PAID:
                return await _pay(checkout, account, notice, source=source)
            case PaymentEvent.EXPIRED | PaymentEvent.FAILED:
                return await _forget(checkout, account, notice.event)
            case PaymentEvent.REFUNDED | PaymentEvent.DISPUTED:
                return await _reverse(checkout, account, notice.event, source=source)


async def _pay(checkout: Checkout, account: Account | None, notice: PaymentNotice, *, source: str) -> str:
    if checkout.paid_at is not None:
        return "repeated"
    checkout.paid_at = now()
    checkout.payment = notice.payment
    await checkout.save(update_fields=["paid_at", "payment"])
    if checkout.reversed_at is not None:
        return "ignored"
    if account is None:
        return _ownerless(notice)
    await give_premium(account, days=checkout.days, source=source, reference=f"{source}:{notice.payment}")
    return PaymentEvent.PAID.value


def _ownerless(notice: PaymentNotice) -> str:
    # The account was deleted while somebody paid. Nobody can be given the time: the money has to go back.
    log.error("payment_without_account", payment=notice.payment, checkout=str(notice.checkout_id))
    return "ownerless"


async def _forget(checkout: Checkout, account: Account | None, event: PaymentEvent) -> str:
    if checkout.paid_at is not None:
        return "ignored"
    await checkout.delete()
    if account is not None and event is PaymentEvent.FAILED:
        await write_letter(account.id, LetterKind.PAYMENT_FAILED, {"days": checkout.days})
    return event.value


async def _reverse(checkout: Checkout, account: Account | None, event: PaymentEvent, *, source: str) -> str:
    if checkout.reversed_at is not None:
        return "repeated"
    checkout.reversed_at = now()
    await checkout.save(update_fields=["reversed_at"])
    purchase = await purchases.find_purchase(f"{source}:{checkout.payment}")
    if account is not None and purchase is not None and purchase.revoked_at is None:
        await take_back_premium(account, purchase, reason=_REASONS[event])
    return event.value
