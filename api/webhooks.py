"""``/webhooks/…``: what payment providers tell us."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Request

from core.accounts.payments import Payments
from core.errors import InvalidWebhookError


def _payments(request: Request) -> Payments:
    payments: Payments = request.app.state.services.payments
    return payments


Service = Annotated[Payments, Depends(_payments)]

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("/stripe")
async def stripe(
    request: Request, payments: Service, stripe_signature: Annotated[str, Header()] = ""
) -> dict[str, str]:
    """Stripe delivers again, for days, what is not answered with 2xx: 400 is for what cannot be trusted."""
    # The bytes as they came: the signature is over them.
    body = await request.body()
    try:
        return {"outcome": await payments.take_webhook(body, signature=stripe_signature)}
    except InvalidWebhookError as error:
        raise HTTPException(400, "This is not a webhook of Stripe's that we can trust.") from error
