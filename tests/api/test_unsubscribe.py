"""The page behind the link of a reminder, for people and for mail programs."""

from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from core.accounts.reminders import Reminders
from core.models import Account
from core.settings import LinkSettings
from tests.conftest import NewAccount
from tests.graphql_client import Client
from tests.served_api import BROWSER


@pytest.fixture
async def account(client: Client, new_account: NewAccount) -> Account:
    return await new_account("ada@example.org")


@pytest.fixture
def path(account: Account, link_settings: LinkSettings) -> str:
    parts = urlsplit(Reminders(link_settings).link(account.id))
    return f"{parts.path}?{parts.query}"


async def reminders_are_on() -> bool:
    return (await Account.get()).reminders_off_at is None


async def test_the_page_shows_a_button_and_only_that_changes_anything(
    client: Client, account: Account, path: str
) -> None:
    shown = await client.http.get(path)
    assert shown.status_code == 200
    assert f'<form method="post" action="{path}">' in shown.text
    assert shown.headers["referrer-policy"] == "no-referrer"
    assert await reminders_are_on()

    done = await client.http.post(path)
    assert (done.status_code, await reminders_are_on()) == (200, False)
    assert "Reminders are off" in done.text

    again = await client.http.post(f"{path}&wanted=true")
    assert f'action="{path}&amp;wanted=true"' in done.text
    assert "Reminders are on" in again.text
    assert await reminders_are_on()


@pytest.mark.parametrize("kind", ["form", "multipart"])
async def test_a_mail_program_unsubscribes_with_one_click(client: Client, path: str, kind: str) -> None:
    fields = {"List-Unsubscribe": "One-Click"}
    done = await client.http.post(
        path, **({"data": fields} if kind == "form" else {"files": {k: (None, v) for k, v in fields.items()}})
    )
    assert done.status_code == 200
    assert not await reminders_are_on()


async def test_a_link_that_is_not_whole_does_nothing_and_tells_nothing(
    client: Client, account: Account, link_settings: LinkSettings
) -> None:
    forged = [account.id.hex + "0" * 64, '"><script>', "x" * 201, "\x00"]
    for token in forged:
        for method in ("GET", "POST"):
            refused = await client.http.request(
                method, "/unsubscribe", params={"token": token}, headers=BROWSER
            )
            assert refused.status_code == 400
            assert "<script>" not in refused.text
    assert await reminders_are_on()
    # One that is genuine and whose account is gone answers as any other.
    gone = urlsplit(Reminders(link_settings).link(uuid4()))
    assert (await client.http.post(f"{gone.path}?{gone.query}")).status_code == 200


async def test_a_customer_chooses_in_the_api_too_and_sees_that_letters_bounce(normal: Client) -> None:
    choose = "mutation ($on: Boolean!) { setReminders(enabled: $on) { account { reminders } } }"
    assert (await normal.data("{ me { reminders bounce { at reason } } }"))["me"] == {
        "reminders": True,
        "bounce": None,
    }
    for on in (False, True):
        assert await normal.data(choose, on=on) == {"setReminders": {"account": {"reminders": on}}}
        assert await reminders_are_on() is on
    at = datetime(2031, 3, 9, 14, 5, tzinfo=UTC)
    await Account.all().update(bounced_at=at, bounce_reason="550 nobody")
    assert (await normal.data("{ me { bounce { at reason } } }"))["me"]["bounce"] == {
        "at": "2031-03-09T14:05:00+00:00",
        "reason": "550 nobody",
    }
    signed_out = Client(http=normal.http, port=normal.port)
    answer = await signed_out.execute(choose, on=False)
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
