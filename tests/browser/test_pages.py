"""The small pages, which are made without the studio's scripts and look like it all the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from api.settings import HttpSettings
from tests.browser.conftest import chromium
from tests.browser.visit import visit
from tests.graphql_client import Client
from tests.served_api import api_settings, client, listener, parts, payment_settings

__all__ = ["api_settings", "client", "listener", "parts", "payment_settings"]

pytestmark = pytest.mark.browser


@pytest.fixture
def http_settings(tmp_path: Path) -> HttpSettings:
    return HttpSettings(inbox_maildir=tmp_path / "mail")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest.mark.parametrize("path", ["/verify?token=x", "/reset-password?token=x", "/premium/thanks", "/inbox"])
async def test_a_small_page_has_the_studios_fonts(browser: Browser, client: Client, path: str) -> None:
    async with visit(browser, f"http://127.0.0.1:{client.port}") as visited:
        await visited.page.goto(f"{visited.url}{path}")
        fonts = await visited.page.evaluate(
            """() => document.fonts.ready.then(fonts => [...fonts]
              .filter(({ status }) => status === 'loaded')
              .map(({ family }) => family.replaceAll('"', '')))"""
        )
        assert sorted(fonts) == ["Instrument Sans", "Instrument Serif"]
        await visited.passes_axe_everywhere(path)
        visited.keeps_to_itself()


async def test_the_head_of_the_inbox_is_one_line_on_a_phone(browser: Browser, client: Client) -> None:
    async with visit(browser, f"http://127.0.0.1:{client.port}", size=(390, 844)) as visited:
        await visited.page.goto(f"{visited.url}/inbox")
        links = await visited.page.get_by_role("banner").get_by_role("link").all()
        boxes = [box for link in links if (box := await link.bounding_box())]
        tops = [box["y"] for box in boxes]
        assert len(boxes) == 3
        assert max(tops) - min(tops) < 10
        assert max(box["height"] for box in boxes) < 40
