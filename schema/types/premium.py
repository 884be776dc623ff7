"""Premium time that is for sale."""

from datetime import datetime
from typing import Self

import strawberry

from core import settings
from core.accounts.payments import PaymentPage


@strawberry.type(description="Premium time that is for sale.")
class Offer:
    """Days and their price."""

    id: strawberry.ID = strawberry.field(description="What `buyPremium` calls it.")
    days: int = strawberry.field(description="Days of premium time, added after what you already have.")
    price: int = strawberry.field(description="In the currency's minor unit: 900 is 9.00 EUR, or 900 JPY.")
    currency: str = strawberry.field(description="ISO 4217, in capitals.")

    @classmethod
    def of(cls, offer: settings.Offer) -> Self:
        """The offer as the operator set it."""
        return cls(
            id=strawberry.ID(offer.id), days=offer.days, price=offer.price, currency=offer.currency.upper()
        )


@strawberry.type(
    description="A page on which you pay. Your premium time begins when the payment is confirmed."
)
class Checkout:
    """Where to go, and until when."""

    url: str = strawberry.field(description="Open it in a browser; whoever pays there pays for your account.")
    expires_at: datetime = strawberry.field(
        description="When the page closes unpaid; ask for a new one then."
    )
    offer: Offer = strawberry.field(description="What is paid for.")

    @classmethod
    def of(cls, page: PaymentPage, offer: settings.Offer) -> Self:
        """The page of an offer."""
        return cls(url=page.url, expires_at=page.expires_at, offer=Offer.of(offer))
