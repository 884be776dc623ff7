"""Coming by premium time."""

from typing import Annotated

import strawberry

from schema.context import Context
from schema.errors import InvalidInput, InvalidVoucher, PaymentUnavailable, RateLimited
from schema.types.account import Account
from schema.types.premium import Checkout


@strawberry.input(description="What to buy.")
class BuyPremiumInput:
    """One of the offers."""

    offer: strawberry.ID = strawberry.field(description="The id of one of `offers`.")


BuyPremiumResult = Annotated[
    Checkout | InvalidInput | PaymentUnavailable | RateLimited,
    strawberry.union("BuyPremiumResult", description="What came of `buyPremium`."),
]
RedeemVoucherResult = Annotated[
    Account | InvalidVoucher | RateLimited,
    strawberry.union("RedeemVoucherResult", description="What came of `redeemVoucher`."),
]


@strawberry.type
class PremiumMutation:
    """Mutations about premium time."""

    @strawberry.mutation(
        description="Open a page to pay for premium time, which is added after what you already have."
    )
    async def buy_premium(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[BuyPremiumInput, strawberry.argument(description="What to buy.")],  # noqa: A002 - the contract's name
    ) -> BuyPremiumResult:
        """Costs nothing until somebody pays on the page."""
        viewer = await info.context.viewer()
        page, offer = await info.context.services.payments.open_checkout(
            viewer.account, offer_id=input.offer, address=info.context.address
        )
        return Checkout.of(page, offer)

    @strawberry.mutation(description="Turn a voucher into premium time, added after what you already have.")
    async def redeem_voucher(
        self,
        info: strawberry.Info[Context, None],
        code: Annotated[str, strawberry.argument(description="The voucher's code.")],
    ) -> RedeemVoucherResult:
        """A code works once."""
        viewer = await info.context.viewer()
        account = await info.context.services.vouchers.redeem(
            viewer.account, code=code, address=info.context.address
        )
        return Account.of(account)
