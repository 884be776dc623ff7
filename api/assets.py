"""The pages: what Vite builds from ``api/frontend``, the studio and GraphiQL, and others' templates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import Scope

BUILT: Final = Path(__file__).parent / "frontend" / "dist"
"""What ``make frontend`` builds; a wheel contains it."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data: {pictures}; "
    "font-src {fonts}; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_ROOT: Final = '<div id="root">'


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page, with the policy that it is shown under.

    Attributes:
        name: its folder in ``api/frontend``.
        public_url: whose signed links its pictures have, which may be another name of this very service.
        styles: whose styles it takes, as a source list of the policy.
        fonts: likewise its fonts.
        inbox: the path of the page with the letters that stay on this machine, where there is one.
    """

    name: str
    public_url: str
    styles: str = "'self'"
    fonts: str = "'self'"
    inbox: str | None = None

    def response(self) -> Response:
        """The page, or 503 where it is not built."""
        path = BUILT / self.name / "index.html"
        if not path.is_file():
            return HTMLResponse("This page is not built: run <code>make frontend</code>.", status_code=503)
        text = path.read_text()
        if self.inbox is not None:
            text = text.replace(_ROOT, f'{_ROOT[:-1]} data-inbox="{self.inbox}">')
        policy = _POLICY.format(styles=self.styles, fonts=self.fonts, pictures=origin(self.public_url))
        return HTMLResponse(text, headers={**_HEADERS, "Content-Security-Policy": policy})


def studio(*, public_url: str, inbox: str | None) -> Page:
    """The page at ``/``."""
    return Page(name="studio", public_url=public_url, inbox=inbox)


def explorer(*, public_url: str) -> Page:
    """GraphiQL, at ``/graphql``."""
    # Monaco, its editor, makes style sheets from script and carries its fonts inside one.
    return Page(name="explorer", public_url=public_url, styles="'self' 'unsafe-inline'", fonts="'self' data:")


def built(name: str) -> str | None:
    """The path of what Vite has built from a file that all pages share, where it is built.

    Args:
        name: with ``*`` for the part that changes with what is in the file.
    """
    found = next((BUILT / "assets").glob(name), None)
    return None if found is None else f"/assets/{found.name}"


def templates() -> Jinja2Templates:
    """The pages that are made here, which find the studio's icon and fonts."""
    environment = Environment(
        loader=PackageLoader("api"), autoescape=select_autoescape(), undefined=StrictUndefined
    )
    environment.globals["built"] = built
    return Jinja2Templates(env=environment)


class BuiltFiles(StaticFiles):
    """Scripts, styles and fonts, whose names change with what is in them."""

    def __init__(self) -> None:
        super().__init__(directory=BUILT / "assets", check_dir=False)

    async def check_config(self) -> None:
        """Nothing: without the folder there is no such file, and the pages say that they are not built."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, to be kept for good."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def origin(address: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
