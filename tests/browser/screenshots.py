"""Takes the pictures of both pages for ``docs/images``: ``make screenshots``. Not one of the tests."""

import asyncio
import re
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.test_explorer import Explorer
from tests.browser.test_studio import Studio
from tests.browser.visit import DESKTOP, PHONE, REPOSITORY, Visit, visit
from tests.stack import Customer, Stack

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

_IMAGES: Final = REPOSITORY / "docs" / "images"
_SCENES: Final = (
    ("a red house on grass at sunset", 128, 128),
    ("a blue lighthouse by the sea at night", 96, 128),
    ("an orange balloon over the sea by day", 160, 128),
    ("a green tree on sand by day", 128, 128),
    ("a white boat at sea at sunset", 168, 128),
    ("a purple tent in the snow at night", 128, 128),
    ("a yellow car on sand at sunset", 168, 128),
    ("a pink tree on grass by day", 128, 128),
    ("a red lighthouse in the snow by day", 96, 128),
    ("a blue windmill on grass at sunset", 128, 128),
    ("a white house in the snow at night", 144, 128),
    ("an orange tent on grass at night", 128, 128),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def painter(stack: Stack) -> Customer:
    """A premium customer who has asked for some pictures already."""
    customer = await stack.new_customer()
    stack.darkroom("account", "grant-premium", customer.email, "--days", "365")
    made = [
        await customer.generate(
            prompt=prompt, width=width, height=height, seed=20 + number, delivery="DOWNLOAD"
        )
        for number, (prompt, width, height) in enumerate(_SCENES)
    ]
    await asyncio.gather(*(customer.watch_to_end(generation_id) for generation_id in made))
    return customer


async def _shot(visited: Visit, name: str) -> None:
    page = visited.page
    await page.mouse.move(0, 0)
    await page.evaluate("() => Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")
    await visited.settles()
    await page.screenshot(path=_IMAGES / f"{name}.png")


async def test_the_studio_while_a_picture_develops(browser: Browser, stack: Stack, painter: Customer) -> None:
    async with visit(browser, stack.urls[0], size=(1280, 860), theme="dark") as visited:
        studio = Studio(visited)
        await studio.sign_in(painter.email)
        await studio.ask_for_much("a red boat at sea at sunset")
        await visited.page.get_by_test_id("settings").click()
        await expect(studio.under_way).to_contain_text(re.compile(r"step (2\d|3\d)"))
        await _shot(visited, "studio-dark")


async def test_one_picture_in_the_light_theme(browser: Browser, stack: Stack, painter: Customer) -> None:
    async with visit(browser, stack.urls[0], size=DESKTOP, theme="light") as visited:
        studio = Studio(visited)
        await studio.sign_in(painter.email)
        await visited.page.get_by_alt_text("a red house on grass at sunset").click()
        await studio.viewer.wait_for()
        await _shot(visited, "studio-light")


async def test_the_studio_on_a_phone(browser: Browser, stack: Stack, painter: Customer) -> None:
    async with visit(browser, stack.urls[0], size=PHONE, theme="dark") as visited:
        studio = Studio(visited)
        await studio.sign_in(painter.email)
        await studio.pictures.nth(len(_SCENES)).wait_for()
        await _shot(visited, "studio-phone")


async def test_a_letter_in_the_inbox(browser: Browser, stack: Stack) -> None:
    customer = await stack.new_customer()
    for prompt in (
        "a red house by the sea at sunset",
        "a blue boat at night, full moon",
        "a yellow tent on sand",
    ):
        await customer.generate(prompt=prompt, seed=20, count=2)
    await stack.letter(customer.email, "window_finished", seconds=120)
    async with visit(browser, stack.urls[0], size=(800, 1135), theme="light") as visited:
        await visited.page.goto(f"{visited.url}/inbox")
        await visited.page.get_by_role("link", name="Your 6 pictures are ready").first.click()
        await visited.page.wait_for_load_state("networkidle")
        await _shot(visited, "letter")


async def test_graphiql_after_watching(browser: Browser, stack: Stack) -> None:
    async with visit(browser, stack.urls[0], theme="light") as visited:
        explorer = Explorer(visited)
        await explorer.open()
        await explorer.sign_in()
        await explorer.show("Generate")
        await explorer.run()
        await explorer.show("Watch")
        await explorer.run()
        await visited.page.get_by_test_id("pictures").locator("a img").first.wait_for()
        await _shot(visited, "graphiql")
