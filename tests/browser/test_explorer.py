"""GraphiQL, as somebody meets it at ``/graphql``."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.stack import PASSWORD, Stack

pytestmark = pytest.mark.browser


class Explorer:
    """A GraphiQL page, and everything it asked for and complained about."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.frames: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type in {"error", "warning"} else None,
        )
        page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda frame: self.frames.append(str(frame))),
        )

    async def open(self) -> None:
        await self.page.goto(f"{self.url}/graphql")
        await self.page.locator(".graphiql-query-editor .view-lines").wait_for()

    async def sign_in(self, email: str = "premium@darkroom.local") -> None:
        await self.page.get_by_test_id("sign-in-email").fill(email)
        await self.page.get_by_test_id("sign-in-password").fill(PASSWORD)
        await self.page.get_by_test_id("sign-in").click()
        await expect(self.page.get_by_test_id("session-account")).to_contain_text(email)

    async def show(self, tab: str) -> None:
        await self.page.locator(".graphiql-tab-button", has_text=re.compile(f"^{tab}$")).click()

    async def run(self) -> dict[str, Any]:
        """Run the operation of the tab, and wait until it has ended."""
        await self.page.get_by_role("button", name=re.compile("^Execute query")).click()
        await self.page.get_by_role("button", name=re.compile("^Execute query")).wait_for(timeout=60_000)
        await self.page.wait_for_function(
            """() => {
              const model = __MONACO.editor.getModels().find(m => m.uri.path.endsWith('response.json'));
              try { return Boolean(JSON.parse(model.getValue()).data); } catch { return false; }
            }"""
        )
        text = await self.page.evaluate(
            "() => __MONACO.editor.getModels().find(m => m.uri.path.endsWith('response.json')).getValue()"
        )
        answer: dict[str, Any] = json.loads(text)
        return answer


@pytest.fixture
async def explorer(browser: Browser, stack: Stack) -> AsyncIterator[Explorer]:
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    explorer = Explorer(page, stack.urls[0])
    await explorer.open()
    yield explorer
    await page.close()


async def test_the_ready_tabs_lead_from_signing_in_to_a_picture(explorer: Explorer) -> None:
    await explorer.sign_in()
    await explorer.show("Generate")
    made = await explorer.run()
    assert made["data"]["generate"]["__typename"] == "Generation", made
    await explorer.show("Watch")
    await explorer.run()
    await explorer.page.wait_for_function(
        """() => __MONACO.editor.getModels()
          .find(m => m.uri.path.endsWith('response.json')).getValue().includes('SUCCEEDED')"""
    )
    last = explorer.frames[-1]
    assert '"complete"' in last, "the server ends the subscription"
    picture = explorer.page.get_by_test_id("pictures").locator("img").first
    await picture.wait_for()
    await explorer.page.wait_for_function(
        "() => document.querySelector('[data-testid=pictures] img')?.naturalWidth > 0"
    )
    assert explorer.complaints == []


async def test_nothing_is_asked_of_another_origin_and_no_token_is_in_an_address(explorer: Explorer) -> None:
    await explorer.sign_in()
    await explorer.show("Generate")
    await explorer.run()
    hosts = {urlsplit(url).netloc for url in explorer.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(explorer.url).netloc}
    assert not [url for url in [*explorer.requests, explorer.page.url] if "eyJ" in url]


async def test_a_typed_password_is_not_kept_by_the_browser(explorer: Explorer) -> None:
    await explorer.show("SignIn")
    await explorer.page.evaluate(
        """(password) => {
          const model = __MONACO.editor.getModels().find(m => m.uri.path.endsWith('variables.json'));
          const variables = JSON.parse(model.getValue());
          variables.input.password = password;
          model.setValue(JSON.stringify(variables, null, 2));
        }""",
        PASSWORD,
    )
    answer = await explorer.run()
    assert answer["data"]["signin"]["__typename"] == "Session", answer
    await expect(explorer.page.get_by_test_id("session-account")).to_contain_text("premium@darkroom.local")
    await explorer.page.wait_for_timeout(2_000)
    kept = await explorer.page.evaluate("() => JSON.stringify(localStorage)")
    assert PASSWORD not in kept
    assert "eyJ" not in kept


async def test_a_wrong_password_is_said_in_words(explorer: Explorer) -> None:
    await explorer.page.get_by_test_id("sign-in-email").fill("premium@darkroom.local")
    await explorer.page.get_by_test_id("sign-in-password").fill("not this one")
    await explorer.page.get_by_test_id("sign-in").click()
    notice = explorer.page.get_by_test_id("session-notice")
    await expect(notice).to_contain_text("do not belong together")
