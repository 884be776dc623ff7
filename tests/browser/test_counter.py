"""The studio over an api of the test's own, without workers: what it refuses, lists, sells and gives up."""

import re
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest
from playwright.async_api import Browser, expect
from pydantic import SecretStr

from core.clock import now
from core.lifecycle import Delivery, GenerationState, ImageFormat
from core.models import Account, Image
from core.settings import LimitSettings, LinkSettings
from core.storage import Storage
from tests.browser.conftest import chromium
from tests.browser.test_studio import Studio
from tests.browser.visit import PHONE, REPOSITORY, visit
from tests.conftest import NewAccount, NewGeneration
from tests.graphql_client import PASSWORD, Client
from tests.served_api import api_settings, client, listener, parts, password_hash
from tests.stripe_server import StripeServer, payment_settings, stripe_server

__all__ = [
    "api_settings",
    "client",
    "listener",
    "parts",
    "password_hash",
    "payment_settings",
    "stripe_server",
]

pytestmark = pytest.mark.browser

EMAIL: Final = "normal@example.org"
_SAMPLES: Final = REPOSITORY / "api" / "frontend" / "studio" / "samples.webp"


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(max_open_normal=2, pictures_per_day_normal=4)


@pytest.fixture
def link_settings(listener: socket.socket) -> LinkSettings:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return LinkSettings(download_secret=SecretStr("d" * 20), public_url=url)


@pytest.fixture
async def account(new_account: NewAccount, password_hash: str) -> Account:
    return await new_account(EMAIL, password_hash=password_hash)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest.fixture
async def studio(browser: Browser, client: Client, account: Account) -> AsyncIterator[Studio]:
    """The account's owner, signed in."""
    async with visit(browser, f"http://127.0.0.1:{client.port}") as visited:
        studio = Studio(visited)
        await studio.sign_in(account.email)
        yield studio


async def test_limits_are_said_in_words_below_what_asks_for_too_much(studio: Studio) -> None:
    refusal = studio.page.get_by_role("form", name="Ask for pictures").get_by_test_id("refusal")
    await studio.ask("a red house by the sea at sunset")
    await expect(studio.under_way).to_have_count(1)
    await studio.page.get_by_role("button", name="4 pictures").click()
    await studio.send.click()
    await expect(refusal).to_contain_text("At most 4 pictures a day: 3 are left, this asks for 4.")
    await expect(refusal).to_have_text(re.compile(r"Try again in 6\sh\.$"))
    await expect(refusal).to_have_role("alert")

    await studio.page.get_by_role("button", name="1 picture").click()
    await studio.send.click()
    await expect(studio.under_way).to_have_count(2)
    await expect(refusal).to_be_empty()
    await studio.send.click()
    await expect(refusal).to_contain_text("At most 2 generations may be waiting or running")
    studio.visit.keeps_to_itself()


async def test_a_session_that_has_ended_is_said_in_words_of_people(
    studio: Studio, client: Client, account: Account
) -> None:
    elsewhere = await client.signed_in(account.email)
    await elsewhere.data("mutation { signoutEverywhere { __typename } }")
    await studio.page.reload()
    notice = studio.page.get_by_role("alert").filter(has_text="sign in again")
    await expect(notice).to_have_text("The session has ended. Please sign in again.")


async def test_a_letter_is_not_promised_to_an_address_that_may_have_no_account(studio: Studio) -> None:
    page, email = studio.page, "nobody@example.org"
    await page.get_by_test_id("account").click()
    await page.get_by_test_id("sign-out").click()
    await page.get_by_role("button", name="Forgotten password").click()
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_role("button", name="Send me a letter").click()
    await expect(page.get_by_role("main")).to_contain_text(
        f"If {email} has an account, a letter is on its way"
    )


async def test_older_pictures_come_as_they_are_scrolled_to(
    browser: Browser, client: Client, account: Account, new_generation: NewGeneration, storage: Storage
) -> None:
    await storage.put("sample.webp", _SAMPLES.read_bytes(), content_type="image/webp")
    made = [
        await new_generation(
            account,
            prompt=f"picture {number}",
            format=ImageFormat.WEBP,
            delivery=Delivery.DOWNLOAD,
            state=GenerationState.SUCCEEDED,
            created_at=now() - timedelta(hours=number),
            finished_at=now(),
        )
        for number in range(60)
    ]
    await Image.bulk_create(
        [
            Image(
                generation_id=generation.id,
                index=0,
                key="sample.webp",
                width=128,
                height=128,
                seed=number,
                content_type="image/webp",
                byte_size=_SAMPLES.stat().st_size,
                sha256="0" * 64,
            )
            for number, generation in enumerate(made)
        ]
    )
    async with visit(browser, f"http://127.0.0.1:{client.port}", size=PHONE) as visited:
        studio = Studio(visited)
        await studio.sign_in(account.email)
        for count in (24, 48, 60):
            await expect(studio.pictures).to_have_count(count)
            await studio.pictures.last.scroll_into_view_if_needed()
        await expect(studio.pictures.last.locator("img")).to_have_js_property("complete", value=True)
        names = [await picture.get_attribute("alt") for picture in await studio.pictures.locator("img").all()]
        assert names == [generation.prompt for generation in made]
        await expect(visited.page.get_by_role("button", name="Show older pictures")).to_have_count(0)
        visited.keeps_to_itself()


async def test_premium_is_bought_on_the_page_of_the_payment_provider(
    studio: Studio, client: Client, stripe_server: StripeServer
) -> None:
    page = studio.page
    stripe_server.webhook = f"{studio.visit.url}/webhooks/stripe"
    await page.get_by_test_id("account").click()
    await page.get_by_role("button", name="30 days · €9.00").click()
    await page.get_by_role("link", name="Back").click()
    await expect(page.get_by_role("heading", name="You did not pay")).to_be_visible()
    await page.get_by_role("link", name="Open the studio").click()
    await page.get_by_test_id("account").click()
    await expect(page.get_by_test_id("tier")).to_have_text("normal")

    await page.get_by_role("button", name="30 days · €9.00").click()
    await page.get_by_role("button", name="Pay").click()
    await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    await page.get_by_role("link", name="Open the studio").click()
    await page.get_by_test_id("account").click()
    await expect(page.get_by_test_id("tier")).to_have_text("premium")
    await expect(page.get_by_test_id("premium-until")).to_contain_text("at once, until")
    assert studio.visit.complaints == []


async def test_an_account_is_given_up_by_its_password_and_with_what_that_means(
    studio: Studio, account: Account
) -> None:
    page, password = studio.page, studio.page.get_by_label("Your password")
    await studio.ask("a red house by the sea at sunset")
    await expect(studio.under_way).to_have_count(1)
    await page.get_by_test_id("account").click()
    await page.get_by_text("Pictures", exact=True).wait_for()
    await page.get_by_role("button", name="Delete account").press("Enter")
    dialog = page.get_by_test_id("account-dialog")
    await expect(dialog).to_contain_text("prompts and pictures are deleted here within minutes")
    await expect(dialog).to_contain_text("1 request under way is canceled")
    await expect(password).to_be_in_viewport()
    await studio.visit.passes_axe_everywhere("deletion")

    await password.fill("not this one")
    await password.press("Enter")
    await expect(password).to_have_accessible_description("That is not your present password.")
    await password.fill(PASSWORD)
    await password.press("Enter")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_focused()
    await expect(page.get_by_role("alert").filter(has_text="Your account is closed")).to_be_visible()
    await account.refresh_from_db()
    assert not account.email
    assert await page.evaluate("() => localStorage.getItem('darkroom.session')") is None
    studio.visit.keeps_to_itself()
