"""Somebody at one of our pages, and everything that the page asked for and complained about."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page, expect

REPOSITORY = Path(__file__).resolve().parents[2]
DESKTOP = (1280, 800)
PHONE = (360, 740)
Theme = Literal["dark", "light"]
_PLACES: Mapping[Theme, tuple[int, int]] = {"light": PHONE, "dark": DESKTOP}
_AXE = REPOSITORY / "api" / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
_PATIENCE_MS = 60_000
"""Pages wait for pictures, which two busy cores take their time for."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Visit:
    """A page in a profile of its own."""

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

    def keeps_to_itself(self) -> None:
        """Nothing was asked of another origin, no token is in an address, and the console is empty."""
        hosts = {urlsplit(url).netloc for url in self.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(self.url).netloc}
        assert not [url for url in [*self.requests, self.page.url] if "eyJ" in url]
        assert self.complaints == []

    async def settles(self) -> None:
        """Every transition has come to its end."""
        await self.page.evaluate(_SETTLED)

    async def passes_axe_everywhere(self, state: str, *, upstream: Mapping[str, str] = _NOTHING) -> None:
        """As :meth:`passes_axe`, in the light on a phone and then in the dark on a desk."""
        for theme, (width, height) in _PLACES.items():
            await self.page.emulate_media(color_scheme=theme)
            await self.page.set_viewport_size({"width": width, "height": height})
            await self.passes_axe(f"{state}, {theme}", upstream=upstream)

    async def passes_axe(self, state: str, *, upstream: Mapping[str, str] = _NOTHING) -> None:
        """Axe has nothing to say of what is on the page now, and nothing is wider than the page.

        Args:
            state: what is on the page.
            upstream: by the name of a rule, a selector of others' elements for which it is not asked.
        """
        if not await self.page.evaluate("() => 'axe' in window"):
            await self.page.evaluate(_AXE.read_text())
        await self.settles()
        found: list[dict[str, Any]] = await self.page.evaluate(
            """async ([upstream, tags]) => (await axe.run('body', {
              runOnly: tags,
              resultTypes: ['violations'],
              elementRef: true,
            })).violations.map(({ id, help, nodes }) => ({
              id,
              help,
              nodes: nodes.filter(n => !n.element.matches(upstream[id] ?? '_')).map(n => n.html),
            })).filter(({ nodes }) => nodes.length > 0)""",
            [dict(upstream), _WCAG],
        )
        assert found == [], f"{state}: {found}"
        wide = await self.page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{state} is {wide} pixels wider than the page"


# Colours in the middle of a transition are nobody's.
_SETTLED = """() => Promise.all(
  document.getAnimations()
    .filter(one => one.effect.getTiming().iterations !== Infinity)
    .map(one => one.finished)
).catch(() => undefined)"""


@asynccontextmanager
async def visit(
    browser: Browser, url: str, *, size: tuple[int, int] = DESKTOP, theme: Theme = "dark"
) -> AsyncIterator[Visit]:
    """A visit with a window of a size in pixels, on a system with a theme."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, locale="en-GB"
    )
    context.set_default_timeout(_PATIENCE_MS)
    expect.set_options(timeout=_PATIENCE_MS)
    try:
        yield Visit(await context.new_page(), url)
    finally:
        await context.close()
