"""Coming by premium time."""

from typing import Annotated

import strawberry

from schema.context import Context
from schema.errors import InvalidVoucher, RateLimited
from schema.types.account import Account

RedeemVoucherResult = Annotated[
    Account | InvalidVoucher | RateLimited,
    strawberry.union("RedeemVoucherResult", description="What came of `redeemVoucher`."),
]


@strawberry.type
class PremiumMutation:
    """Mutations about premium time."""

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
