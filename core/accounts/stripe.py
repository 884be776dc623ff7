"""Stripe: payment pages (Checkout), and the webhooks that tell what became of them.

What Stripe is told of a customer is the account's id: who pays types an address there, if at all.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final, Self
from uuid import UUID

import stripe
import structlog
from pydantic import BaseModel, Field, ValidationError

from core.accounts.payments import PaymentEvent, PaymentNotice, PaymentPage
from core.errors import InvalidWebhookError, PaymentUnavailableError, ServiceUnavailableError
from core.settings import Offer, PaymentSettings

_RETRIES: Final = 2
_CHECKOUT: Final = "darkroom_checkout"
_ACCOUNT: Final = "darkroom_account"
_OF_PAYMENTS: Final = (PaymentEvent.REFUNDED, PaymentEvent.DISPUTED)
_MAY_PASS: Final = (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError, TimeoutError)
"""What may be otherwise the next time; any other error is about our settings."""

log = structlog.get_logger(__name__)


class _Thing(BaseModel):
    """What we read of a Checkout session, a charge or a dispute."""

    id: str
    metadata: dict[str, str] | None = None
    payment_intent: str | None = None
    payment_status: str | None = None
    refunded: bool | None = None

    @property
    def payment(self) -> str:
        """The payment's name; a page on which nothing had to be paid has none but its own."""
        return self.payment_intent or self.id


class _Data(BaseModel):
    thing: dict[str, Any] = Field(alias="object")


class _Event(BaseModel):
    """What every event has; its thing is read only if the event is one that we know."""

    id: str
    type: str
    data: _Data


class StripePayments:
    """Implements :class:`core.accounts.payments.PaymentProvider` over the ``stripe`` library."""

    name: Final = "stripe"

    def __init__(
        self, *, secret_key: str, webhook_secret: str, url: str, timeout_seconds: float, public_url: str
    ) -> None:
        # It would send the platform's name along, and keep an id of this machine in the home folder.
        stripe.enable_telemetry = False
        self._webhook_secret = webhook_secret
        self._timeout = timeout_seconds
        self._public_url = public_url.rstrip("/")
        self._http = stripe.HTTPXClient(timeout=timeout_seconds / (_RETRIES + 1))
        client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": url.rstrip("/")},
            http_client=self._http,
            max_network_retries=_RETRIES,
        )
        # The library imports when it is first used, for a tenth of a second in which nobody else is served.
        self._sessions = client.v1.checkout.sessions
        self._payment_intents = client.v1.payment_intents
        for kind in ("checkout.session", "payment_intent"):
            stripe.StripeObject.construct_from({"found": {"object": kind}}, None)

    @classmethod
    def of(cls, settings: PaymentSettings, *, public_url: str) -> Self | None:
        """Stripe as it is configured, or none where it is not."""
        if settings.stripe_secret_key is None or settings.stripe_webhook_secret is None:
            return None
        return cls(
            secret_key=settings.stripe_secret_key.get_secret_value(),
            webhook_secret=settings.stripe_webhook_secret.get_secret_value(),
            url=settings.stripe_url,
            timeout_seconds=settings.payment_timeout_seconds,
            public_url=public_url,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # it has no annotations

    async def open_page(self, offer: Offer, *, checkout_id: UUID, account_id: UUID) -> PaymentPage:
        """See :class:`core.accounts.payments.PaymentProvider`. The page expires as Stripe's do, in a day."""
        names = {_CHECKOUT: str(checkout_id), _ACCOUNT: str(account_id)}
        try:
            async with asyncio.timeout(self._timeout):
                session = await self._sessions.create_async(
                    {
                        "mode": "payment",
                        "client_reference_id": str(checkout_id),
                        "metadata": names,
                        # So that a refund or a dispute of the payment can be told apart.
                        "payment_intent_data": {"metadata": names},
                        "line_items": [
                            {
                                "quantity": 1,
                                "price_data": {
                                    "currency": offer.currency,
                                    "unit_amount": offer.price,
                                    "product_data": {"name": f"Darkroom premium, {offer.days} days"},
                                },
                            }
                        ],
                        "success_url": f"{self._public_url}/premium/thanks",
                        "cancel_url": f"{self._public_url}/premium/canceled",
                    },
                    {"idempotency_key": str(checkout_id)},
                )
        except _MAY_PASS as error:
            raise _unavailable(error) from error
        except stripe.StripeError as error:
            log.error("stripe_refused", error=str(error), code=error.code)  # noqa: TRY400 - a setting, not a bug
            raise PaymentUnavailableError(
                "Paying by card does not work at the moment. A voucher does: redeemVoucher."
            ) from error
        if session.url is None:
            raise ServiceUnavailableError("stripe: the session has no page")
        return PaymentPage(
            session=session.id,
            url=session.url,
            expires_at=datetime.fromtimestamp(session.expires_at, tz=UTC),
        )

    async def read_webhook(self, body: bytes, *, signature: str) -> PaymentNotice | None:
        """See :class:`core.accounts.payments.PaymentProvider`."""
        try:
            stripe.WebhookSignature.verify_header(
                body, signature, self._webhook_secret, stripe.Webhook.DEFAULT_TOLERANCE
            )
            event = _Event.model_validate_json(body)
            found = _told(event)
        except stripe.SignatureVerificationError as error:
            raise InvalidWebhookError(f"the signature: {error.user_message}") from error
        except ValidationError as error:
            raise InvalidWebhookError(f"not an event: {error.errors(include_input=False)}") from error
        except (TypeError, UnicodeDecodeError) as error:
            # The library compares and decodes before it looks.
            raise InvalidWebhookError(f"the signature or the body: {error!r}") from error
        if found is None:
            return None
        kind, thing = found
        metadata = thing.metadata or {}
        if kind in _OF_PAYMENTS and _CHECKOUT not in metadata and thing.payment_intent is not None:
            metadata = await self._metadata_of(thing.payment_intent)
        checkout_id = _uuid(metadata.get(_CHECKOUT))
        if checkout_id is None:
            return None
        return PaymentNotice(event=kind, checkout_id=checkout_id, payment=thing.payment)

    async def _metadata_of(self, payment_intent: str) -> dict[str, str]:
        """A dispute does not carry what its payment was for, a charge only what it had when it was made."""
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._payment_intents.retrieve_async(payment_intent)
        except stripe.InvalidRequestError:
            return {}  # it is not of this account of Stripe's
        except (stripe.StripeError, TimeoutError) as error:
            log.warning("webhook_postponed", payment=payment_intent, error=repr(error))
            raise _unavailable(error) from error
        return dict(found.metadata.to_dict()) if found.metadata else {}


def _told(event: _Event) -> tuple[PaymentEvent, _Thing] | None:
    """What an event is to us, or none: there are hundreds of kinds."""
    kind = {
        "checkout.session.completed": PaymentEvent.PAID,
        "checkout.session.async_payment_succeeded": PaymentEvent.PAID,
        "checkout.session.async_payment_failed": PaymentEvent.FAILED,
        "checkout.session.expired": PaymentEvent.EXPIRED,
        "charge.refunded": PaymentEvent.REFUNDED,
        # When the money leaves: a dispute that only asks a question never gets there.
        "charge.dispute.funds_withdrawn": PaymentEvent.DISPUTED,
    }.get(event.type)
    if kind is None:
        return None
    thing = _Thing.model_validate(event.data.thing)
    waits = kind is PaymentEvent.PAID and thing.payment_status == "unpaid"
    in_part = kind is PaymentEvent.REFUNDED and not thing.refunded
    return None if waits or in_part else (kind, thing)


def _unavailable(error: Exception) -> ServiceUnavailableError:
    # Around an error of the network the library puts a paragraph for people who call its support.
    reason = error.__cause__ or error
    return ServiceUnavailableError(f"stripe: {type(reason).__name__}: {reason}")


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
