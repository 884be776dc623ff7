"""Whatever is asked of the routes beside GraphQL, none of them fails: schemathesis over their description."""

import warnings
from datetime import timedelta
from typing import Any, Final

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from api import downloads, health, webhooks
from api.app import Parts
from api.pages import Pages, pages_router
from core.clock import now
from core.lifecycle import GenerationState
from core.models import Image
from core.settings import LinkSettings
from core.storage import DownloadLinks
from tests.audit.application import Application, application
from tests.audit.cases import TEXTS, cases
from tests.conftest import NewAccount, NewGeneration, NewWorker

__all__ = ["application"]


def described() -> dict[str, Any]:
    """The routes in OpenAPI, which the service itself does not publish; the letters' pages among them."""
    app = FastAPI(title="Darkroom")
    for router in (health.router, downloads.router, webhooks.router, pages_router(Pages())):
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.include_in_schema = True
        app.include_router(router)
    with warnings.catch_warnings():
        # GET and HEAD of a picture are one function.
        warnings.filterwarnings("ignore", "Duplicate Operation ID")
        return app.openapi()


OPERATIONS: Final = {
    one.ok().label: one.ok()
    for one in schemathesis.openapi.from_dict(described()).get_all_operations()
    if isinstance(one, Ok)
}
PLAIN: Final = sorted(label for label in OPERATIONS if label.startswith(("GET /health/", "GET /premium/")))
OTHERS: Final = sorted(set(OPERATIONS) - set(PLAIN))
MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


async def send(application: Application, case: schemathesis.Case[Any]) -> int:
    """The status with which a case is answered."""
    request = case.as_transport_kwargs(base_url="http://api")
    answer = await application.send(request.pop("method"), request.pop("url"), **request)
    return answer.status_code


@pytest.mark.parametrize("label", OTHERS)
@cases(150)
@given(data=st.data())
async def test_cases_of_a_route(application: Application, label: str, data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(MODES))
    await send(application, data.draw(OPERATIONS[label].as_strategy(mode)))


@pytest.mark.parametrize("label", PLAIN)
@cases(1)
@given(data=st.data())
async def test_what_takes_nothing_answers(
    application: Application, new_worker: NewWorker, label: str, data: st.DataObject
) -> None:
    await new_worker()
    assert await send(application, data.draw(OPERATIONS[label].as_strategy())) == 200


@pytest.fixture
async def link(
    parts: Parts, new_account: NewAccount, new_generation: NewGeneration, link_settings: LinkSettings
) -> str:
    """To a picture of 1,000 bytes."""
    generation = await new_generation(await new_account(), state=GenerationState.SUCCEEDED)
    await parts.storage.put("a.png", b"x" * 1000, content_type="image/png")
    image = await Image.create(
        generation=generation,
        index=0,
        key="a.png",
        width=8,
        height=8,
        seed=1,
        content_type="image/png",
        byte_size=1000,
        sha256="0" * 64,
    )
    url = DownloadLinks(link_settings).make(image.id, extension="png", now=now() + timedelta(days=1))
    return url.removeprefix(link_settings.public_url)


RANGES = st.one_of(
    st.from_regex(r"\Abytes=[0-9]{0,4}-[0-9]{0,4}\Z"),
    st.builds("bytes={}-{}".format, st.integers(0), st.integers(0) | st.just("")),
    st.sampled_from(
        ["bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000, "bytes=0-1,3-4", "bytes=-0", "bytes=\xb2-"]
    ),
    TEXTS,
)


@cases(700)
@given(method=st.sampled_from(["GET", "HEAD"]), asked=RANGES, known=TEXTS, conditional=st.booleans())
async def test_parts_of_a_picture(
    application: Application, link: str, method: str, asked: str, known: str, conditional: bool
) -> None:
    headers = {"Range": _header(asked)}
    if conditional:
        headers |= {"If-None-Match": _header(known), "If-Range": _header(known)}
    answer = await application.send(method, link, headers=headers)
    assert answer.status_code in (200, 206, 304, 416)


def _header(text: str) -> bytes:
    """What of a text can stand in a header."""
    return bytes(one for one in text.encode("utf-8", "surrogatepass") if one not in b"\r\n\x00")
