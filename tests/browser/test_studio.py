"""The studio, as customers of both tiers meet it at ``/``."""

import os
import re
import signal
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Route, expect

from tests.browser.visit import Visit, visit
from tests.stack import PASSWORD, Stack

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

PREMIUM: Final = "premium@darkroom.local"
_JPEG: Final = re.compile("^data:image/jpeg")


class Studio:
    """Somebody at the studio."""

    def __init__(self, visited: Visit) -> None:
        self.visit = visited
        self.page = visited.page
        self.prompt = self.page.get_by_label("Prompt", exact=True)
        self.send = self.page.get_by_test_id("generate")
        self.seed = self.page.get_by_label("Seed", exact=True)
        self.under_way = self.page.get_by_test_id("open")
        self.pictures = self.page.get_by_test_id("picture")
        self.viewer = self.page.get_by_test_id("viewer")
        self.announced = self.page.get_by_test_id("announcement")

    async def fill_in(self, email: str, password: str = PASSWORD) -> None:
        await self.page.get_by_label("E-mail").fill(email)
        await self.page.get_by_label("Password", exact=True).fill(password)

    async def sign_in(self, email: str) -> None:
        await self.page.goto(self.visit.url)
        await self.fill_in(email)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.prompt.wait_for()

    async def ask(self, prompt: str) -> None:
        await self.prompt.fill(prompt)
        await self.send.click()

    async def ask_for_much(self, prompt: str) -> None:
        """Ask for what keeps a worker on two cores busy for some seconds."""
        await self.page.get_by_role("button", name="2 pictures").click()
        await self.page.get_by_test_id("settings").click()
        await self.page.get_by_role("slider", name="Steps").press("End")
        await self.ask(prompt)

    async def shows(self, picture: Locator) -> None:
        """The picture itself is there, not only a place for it."""
        await expect(picture.locator("img")).to_have_js_property("naturalWidth", 128)

    async def fact(self, name: str) -> str:
        return await self.viewer.locator("dt", has_text=name).locator("+ dd").inner_text()


@pytest_asyncio.fixture(loop_scope="module")
async def studio(browser: Browser, stack: Stack) -> AsyncIterator[Studio]:
    async with visit(browser, stack.urls[0]) as visited:
        yield Studio(visited)


def link_in(letter: EmailMessage) -> str:
    body = letter.get_body(("plain",))
    assert body is not None
    return next(word for word in str(body.get_content()).split() if "?token=" in word)


async def test_a_normal_customer_comes_by_letter_and_gets_pictures_by_letter(
    stack: Stack, studio: Studio
) -> None:
    page, email = studio.page, "walker@example.org"
    await page.goto(studio.visit.url)
    await page.get_by_role("button", name="Create an account").click()
    await studio.fill_in(email, "password")
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_text("most used")).to_be_visible()
    await studio.fill_in(email)
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_role("heading", name="Look into your mail")).to_be_focused()

    await page.goto(link_in(await stack.letter(email, "verify_email")))
    await page.get_by_role("button", name="Verify my address").click()
    await page.get_by_role("link", name="Open the studio").click()
    await studio.fill_in(email)
    await page.get_by_role("button", name="Sign in").click()

    await page.get_by_test_id("next-window").get_by_test_id("countdown").wait_for()
    await studio.ask("a red house by the sea at sunset")
    await studio.under_way.get_by_test_id("countdown").wait_for()
    await expect(page.get_by_test_id("letter")).to_contain_text(f"In your letter to {email}")
    letter = await stack.letter(email, "window_finished")
    assert [part.get_content_type() for part in letter.iter_attachments()] == ["image/png"]
    studio.visit.keeps_to_itself()


async def test_a_voucher_makes_premium_and_a_premium_customer_watches_a_picture_come(
    stack: Stack, studio: Studio
) -> None:
    page, customer = studio.page, await stack.new_customer()
    await studio.sign_in(customer.email)
    await page.get_by_test_id("account").click()
    await page.get_by_label("Voucher").fill("NOT-A-VOUCHER")
    await page.get_by_role("button", name="Redeem").click()
    await expect(page.get_by_label("Voucher")).to_have_accessible_description(re.compile("unknown"))
    await page.get_by_label("Voucher").fill(stack.darkroom("voucher", "create", "--days", "30"))
    await page.get_by_role("button", name="Redeem").click()
    await expect(page.get_by_test_id("tier")).to_have_text("premium")
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("account")).to_be_focused()

    await studio.ask_for_much("a blue lighthouse by the sea at night")
    await expect(studio.under_way).to_contain_text("Developing, step")
    await expect(studio.under_way.get_by_test_id("preview")).to_have_attribute("src", _JPEG)
    await expect(studio.announced).to_contain_text("Finished: 2 pictures")
    await expect(studio.pictures).to_have_count(2)
    await studio.shows(studio.pictures.first)

    await studio.pictures.nth(1).click()
    seed = await studio.fact("Seed")
    async with page.expect_download() as downloading:
        await studio.viewer.get_by_test_id("download").click()
    download = await downloading.value
    assert re.fullmatch("darkroom-[-0-9a-f]+.png", download.suggested_filename)
    assert (await download.path()).read_bytes().startswith(b"\x89PNG")

    await studio.viewer.get_by_test_id("again").click()
    await expect(studio.prompt).to_be_focused()
    await expect(studio.seed).to_have_value(seed)
    await studio.send.click()
    await expect(studio.pictures).to_have_count(3)
    await studio.pictures.first.click()
    assert await studio.fact("Seed") == seed
    studio.visit.keeps_to_itself()


async def test_what_is_under_way_can_be_called_off(studio: Studio) -> None:
    await studio.sign_in(PREMIUM)
    await studio.ask_for_much("a purple tent in the snow")
    await studio.under_way.get_by_role("button", name="Cancel").click()
    await expect(studio.page.get_by_test_id("closed")).to_contain_text("Canceled")
    await expect(studio.announced).to_contain_text("Canceled: a purple tent in the snow")
    studio.visit.keeps_to_itself()


async def test_refusals_are_said_in_words_where_they_belong(studio: Studio) -> None:
    page = studio.page
    await page.goto(studio.visit.url)
    await studio.fill_in(PREMIUM, "not this one")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert").filter(has_text="do not belong together")).to_be_visible()
    await studio.fill_in(PREMIUM)
    await page.get_by_role("button", name="Sign in").click()
    await studio.send.click()
    await expect(studio.prompt).to_have_accessible_description(re.compile("^Must have 1 to 1000 characters"))
    await expect(studio.prompt).to_be_focused()
    await page.get_by_test_id("settings").click()
    width = page.get_by_label("Width", exact=True)
    await width.fill("5000")
    await width.blur()
    await expect(width).to_have_value("256")
    studio.visit.keeps_to_itself()


async def test_too_many_pictures_are_refused_where_it_is_seen(studio: Studio) -> None:
    await studio.sign_in(PREMIUM)
    refusal = {
        "__typename": "InvalidInput",
        "fields": [{"field": "count", "message": "must be 1 to 2, not 4"}],
    }

    async def refuse(route: Route) -> None:
        if "mutation Generate" in (route.request.post_data or ""):
            await route.fulfill(json={"data": {"generate": refusal}})
        else:
            await route.continue_()

    await studio.page.route("**/graphql", refuse)
    await studio.ask("a red house")
    await expect(studio.page.get_by_test_id("refusal")).to_have_text("How many: Must be 1 to 2, not 4.")


async def test_a_picture_whose_model_is_gone_is_made_again_by_another_which_is_said(studio: Studio) -> None:
    page = studio.page

    async def drawn_by_another(route: Route) -> None:
        if "query Gallery" in (route.request.post_data or ""):
            # Over connections that are kept, and may be closed just then.
            answer = await route.fetch(max_retries=2)
            drawn = (await answer.text()).replace('"model":"darkroom-demo"', '"model":"darkroom-first"')
            await route.fulfill(response=answer, body=drawn)
        else:
            await route.continue_()

    await page.route("**/graphql", drawn_by_another)
    await studio.sign_in(PREMIUM)
    await studio.ask("a red house in the snow")
    await expect(studio.announced).to_contain_text("Finished: 1 picture of a red house in the snow")
    await page.reload()
    await studio.pictures.first.click()
    assert await studio.fact("Model") == "darkroom-first"
    await page.get_by_test_id("again").click()
    notice = page.get_by_test_id("other-model")
    await expect(notice).to_contain_text("darkroom-first is not offered any more: Darkroom demo draws this")
    await expect(studio.prompt).to_have_value("a red house in the snow")
    await studio.send.click()
    await expect(studio.announced).to_contain_text("Finished: 1 picture of a red house in the snow")
    await page.get_by_role("button", name="2 pictures").click()
    await expect(notice).to_be_empty()


async def test_what_went_wrong_is_not_said_any_longer_once_it_has_worked(studio: Studio) -> None:
    page = studio.page
    await studio.sign_in(PREMIUM)
    await page.get_by_test_id("account").click()
    reminders, alert = page.get_by_role("switch"), page.get_by_role("alert")
    await page.context.set_offline(True)
    await reminders.click()
    await expect(alert.filter(has_text="cannot be reached")).to_be_visible()
    await page.context.set_offline(False)
    await reminders.click()
    await expect(alert.filter(has_text="cannot be reached")).to_have_count(0)

    fold, present = page.get_by_role("button", name="Change password"), page.get_by_label("Present password")
    await fold.click()
    await present.fill("not this one")
    await page.get_by_label("New password").fill("four words in a row")
    await page.get_by_role("button", name="Set new password").click()
    await expect(present).to_have_accessible_description("That is not your present password.")
    await fold.click()
    await expect(present).to_have_count(0)
    await fold.click()
    await expect(present).to_have_accessible_description("")


async def test_signing_out_leads_the_focus_back_to_the_way_in(studio: Studio) -> None:
    page = studio.page
    await studio.sign_in(PREMIUM)
    await page.get_by_test_id("account").click()
    await page.get_by_test_id("sign-out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_focused()


async def test_the_keyboard_alone_is_enough(studio: Studio) -> None:
    page = studio.page
    await page.goto(studio.visit.url)
    await page.get_by_label("E-mail").focus()
    await page.keyboard.type(PREMIUM)
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await studio.prompt.focus()
    await page.keyboard.type("a green tree on grass by day")
    await page.keyboard.press("Control+Enter")
    await expect(studio.announced).to_contain_text("Finished: 1 picture of a green tree")
    await studio.pictures.first.focus()
    await page.keyboard.press("Enter")
    await studio.viewer.wait_for()
    await page.keyboard.press("Escape")
    await expect(studio.pictures.first).to_be_focused()


async def test_the_page_says_when_nothing_answers_and_goes_on_by_itself(stack: Stack, studio: Studio) -> None:
    page, notice = studio.page, studio.page.get_by_test_id("connection")
    await studio.sign_in(PREMIUM)
    await page.context.set_offline(True)
    await expect(notice).to_contain_text("You are offline")
    await page.context.set_offline(False)
    await expect(notice).to_be_empty()
    await studio.ask_for_much("a yellow car on sand at sunset")
    await expect(studio.under_way).to_contain_text("Developing")
    os.kill(stack.pid("api"), signal.SIGKILL)
    await expect(notice).to_contain_text("does not answer")
    await expect(studio.announced).to_contain_text("Finished: 2 pictures of a yellow car")
    await expect(notice).to_be_empty()
    await page.reload()
    await studio.prompt.wait_for()


async def test_the_studio_is_for_everybody(studio: Studio) -> None:
    visited, page = studio.visit, studio.page
    await page.goto(visited.url)
    await visited.passes_axe_everywhere("signed out")
    await studio.sign_in(PREMIUM)
    await studio.ask("a white boat at sea by day")
    await expect(studio.announced).to_contain_text("Finished")
    await page.get_by_test_id("settings").click()
    await visited.passes_axe_everywhere("settings")
    await page.get_by_test_id("account").click()
    await visited.passes_axe_everywhere("account")
    await page.keyboard.press("Escape")
    await studio.pictures.first.click()
    await studio.viewer.wait_for()
    await visited.passes_axe_everywhere("a picture")
    visited.keeps_to_itself()
