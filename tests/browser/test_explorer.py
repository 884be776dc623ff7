"""GraphiQL, as somebody meets it at ``/graphql``."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.visit import Visit, visit
from tests.stack import PASSWORD, Stack

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


# The tabs of GraphiQL 5 are drawn by itself, each with two buttons inside; those of version 6 are a list.
UPSTREAM: Final = {"nested-interactive": ".graphiql-tab"}


class Explorer:
    """Somebody at GraphiQL."""

    def __init__(self, visited: Visit) -> None:
        self.visit = visited
        self.page = visited.page

    async def open(self) -> None:
        await self.page.goto(f"{self.visit.url}/graphql")
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


@pytest_asyncio.fixture(loop_scope="module")
async def explorer(browser: Browser, stack: Stack) -> AsyncIterator[Explorer]:
    async with visit(browser, stack.urls[0]) as visited:
        explorer = Explorer(visited)
        await explorer.open()
        yield explorer


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
    assert '"complete"' in explorer.visit.frames[-1], "the server ends the subscription"
    assert any("data:image/jpeg" in frame for frame in explorer.visit.frames), "previews come"
    picture = explorer.page.get_by_test_id("pictures").locator("a img").first
    await picture.wait_for()
    await explorer.page.wait_for_function(
        "() => document.querySelector('[data-testid=pictures] a img')?.naturalWidth > 0"
    )
    await explorer.show("MyPictures")
    listed = await explorer.run()
    assert listed["data"]["generations"]["edges"][0]["node"]["id"] == made["data"]["generate"]["id"]
    explorer.visit.keeps_to_itself()


async def test_a_page_full_of_pictures_leaves_the_editors_their_room(explorer: Explorer) -> None:
    page, editor = explorer.page, explorer.page.locator(".graphiql-query-editor")
    await explorer.show("MyPictures")
    before = await editor.bounding_box()
    images = [{"url": f"{explorer.visit.url}/?{seed}", "seed": seed} for seed in range(40)]
    answer = {"data": {"generations": {"edges": [{"node": {"images": images}}]}}}
    await page.route("**/graphql", lambda route: route.fulfill(json=answer))
    await explorer.run()
    await expect(page.get_by_test_id("pictures").get_by_role("listitem")).to_have_count(40)
    assert await editor.bounding_box() == before


async def test_pictures_stay_with_the_tab_whose_answer_had_them(explorer: Explorer) -> None:
    page, shown = explorer.page, explorer.page.get_by_test_id("pictures")
    answer = {"data": {"generations": {"edges": [{"node": {"images": [{"url": explorer.visit.url}]}}]}}}
    await page.route("**/graphql", lambda route: route.fulfill(json=answer))
    await explorer.show("MyPictures")
    await explorer.run()
    await expect(shown.get_by_role("listitem")).to_have_count(1)
    await explorer.show("Generate")
    await expect(shown).to_have_count(0)
    await explorer.show("MyPictures")
    await expect(shown.get_by_role("listitem")).to_have_count(1)
    await page.get_by_test_id("hide-pictures").click()
    await explorer.show("Generate")
    await explorer.show("MyPictures")
    await expect(shown).to_have_count(0)


async def test_the_editors_have_no_complaints_about_the_ready_tabs(explorer: Explorer) -> None:
    for tab in ("SignUp", "SignIn", "Generate", "Watch", "MyPictures", "BuyPremium"):
        await explorer.show(tab)
        # What is wrong in an editor is found a moment after it was written.
        await explorer.page.wait_for_timeout(1_000)
        found = await explorer.page.evaluate(
            "() => __MONACO.editor.getModelMarkers({}).map(({ message }) => message)"
        )
        assert found == [], tab


async def test_graphiql_is_for_everybody_in_both_themes(explorer: Explorer) -> None:
    page = explorer.page
    await page.get_by_role("button", name="Show Documentation Explorer").click()
    await page.get_by_role("link", name="Mutation").wait_for()
    await explorer.visit.passes_axe_everywhere("documentation", upstream=UPSTREAM)
    await page.get_by_role("link", name="Mutation").click()
    await page.get_by_role("link", name="DeleteAccountInput").wait_for()
    await explorer.visit.passes_axe_everywhere("a type", upstream=UPSTREAM)
    await page.get_by_role("button", name="Hide Documentation Explorer").click()
    await explorer.visit.passes_axe_everywhere("editors", upstream=UPSTREAM)


async def test_a_typed_password_is_not_kept_by_the_browser(explorer: Explorer) -> None:
    await explorer.show("SignIn")
    await explorer.page.evaluate(
        """(password) => {
          const model = __MONACO.editor.getModels().find(m => m.uri.path.endsWith('variables.json'));
          const variables = JSON.parse(model.getValue());
          variables.input.password = password;
          variables.marker = 'kept';
          model.setValue(JSON.stringify(variables, null, 2));
        }""",
        PASSWORD,
    )
    answer = await explorer.run()
    assert answer["data"]["signin"]["__typename"] == "Session", answer
    await expect(explorer.page.get_by_test_id("session-account")).to_contain_text("premium@darkroom.local")
    await explorer.page.wait_for_function(
        "() => localStorage.getItem('graphiql:tabState').includes('marker')"
    )
    kept = await explorer.page.evaluate("() => JSON.stringify(localStorage)")
    assert PASSWORD not in kept
    assert "eyJ" not in kept


async def test_a_wrong_password_is_said_in_words(explorer: Explorer) -> None:
    await explorer.page.get_by_test_id("sign-in-email").fill("premium@darkroom.local")
    await explorer.page.get_by_test_id("sign-in-password").fill("not this one")
    await explorer.page.get_by_test_id("sign-in").click()
    notice = explorer.page.get_by_test_id("session-notice")
    await expect(notice).to_contain_text("do not belong together")
