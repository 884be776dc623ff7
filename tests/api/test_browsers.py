"""What web pages can make browsers do here: nothing, unless they are ours or the operator allows them."""

import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from api.settings import ApiSettings, HttpSettings
from core.errors import ConfigurationError
from core.settings import LinkSettings, read
from tests.graphql_client import Client

SHOP = "https://shop.example"
OURS = "https://darkroom.example"
EVIL = "https://evil.example"
BODY = json.dumps({"query": "{ __typename }"})
MUTATION = json.dumps({"query": 'mutation { requestPasswordReset(email: "a@example.org") { __typename } }'})


@pytest.fixture
def http_settings() -> HttpSettings:
    return HttpSettings(shutdown_seconds=1, allowed_origins=(SHOP,))


@pytest.fixture
def link_settings(link_settings: LinkSettings) -> LinkSettings:
    return link_settings.model_copy(update={"public_url": f"{OURS}/"})


async def post(client: Client, content: Any = BODY, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await client.http.post("/graphql", content=content, headers=sent)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "text/plain;charset=application/json",
        "application/json-seq",
        "application/jsonp",
        "application/graphql",
        "",
    ],
)
@pytest.mark.parametrize("body", [BODY, MUTATION, "query=%7B__typename%7D"])
async def test_what_a_form_can_send_is_refused_with_415(client: Client, content_type: str, body: str) -> None:
    answer = await post(client, body, content_type=content_type)
    assert answer.status_code == 415
    assert answer.json()["errors"] == [
        {"message": "The body has to be application/json.", "extensions": {"code": "BAD_REQUEST"}}
    ]


async def test_a_body_without_a_type_is_refused_with_415(client: Client) -> None:
    answer = await client.http.post("/graphql", content=BODY.encode())
    assert answer.status_code == 415


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_is_taken_however_it_is_written(client: Client, content_type: str) -> None:
    assert (await post(client, content_type=content_type)).json()["data"] == {"__typename": "Query"}


@pytest.mark.parametrize("query", ["{ __typename }", "mutation { signout { message } }", "", None])
@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json"])
async def test_nothing_is_done_for_a_link(client: Client, query: str | None, accept: str) -> None:
    parameters = {} if query is None else {"query": query}
    answer = await client.http.get("/graphql", params=parameters, headers={"accept": accept})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["errors"][0]["message"] == "Operations are sent by POST."


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_other_methods_are_refused(client: Client, method: str) -> None:
    answer = await client.http.request(method, "/graphql", headers={"content-type": "application/json"})
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://shop.example", f"{SHOP}:8443", f"{SHOP}.evil.example", "https://[", ""]
)
async def test_pages_elsewhere_may_neither_post_nor_open_a_socket(client: Client, origin: str) -> None:
    answer = await post(client, origin=origin)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert answer.json()["errors"][0]["message"] == "Pages of this origin may not call the API."
    with pytest.raises(InvalidStatus) as refused:
        await opens(client, origin)
    assert refused.value.response.status_code == 403


async def test_our_own_pages_allowed_ones_and_what_is_no_browser_may(client: Client) -> None:
    own = f"http://127.0.0.1:{client.port}"
    for origin in (own, SHOP, OURS):
        assert (await post(client, origin=origin)).status_code == 200
        await opens(client, origin)
    assert (await post(client)).status_code == 200
    await opens(client, None)


async def opens(client: Client, origin: str | None) -> None:
    url = f"ws://127.0.0.1:{client.port}/graphql"
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(url, subprotocols=protocols, origin=None if origin is None else Origin(origin)):
        pass


async def test_scripts_of_allowed_pages_may_read_answers(client: Client) -> None:
    asked = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    preflight = await client.http.options("/graphql", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == SHOP
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in preflight.headers
    answer = await post(client, origin=SHOP)
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    # Of downloads: without these a script can neither put parts together nor ask whether one has changed.
    assert {"ETag", "Content-Range"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    for name in ("if-none-match", "if-range", "range"):
        asked["Access-Control-Request-Headers"] = name
        assert (await client.http.options("/images/1.png", headers=asked)).status_code == 200
    too_large = await post(client, b" " * 300_000, origin=SHOP)
    assert (too_large.status_code, too_large.headers["access-control-allow-origin"]) == (413, SHOP)


async def test_scripts_of_other_pages_are_not_asked_in(client: Client) -> None:
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    preflight = await client.http.options("/graphql", headers=asked)
    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers


class TestNoOrigins:
    @pytest.fixture
    def http_settings(self) -> HttpSettings:
        return HttpSettings(shutdown_seconds=1)

    async def test_without_the_setting_nothing_is_said_to_browsers(self, client: Client) -> None:
        asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}
        assert (await client.http.options("/graphql", headers=asked)).status_code == 405
        own = f"http://127.0.0.1:{client.port}"
        answer = await post(client, origin=own)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("value", ['["shop.example"]', '["https://shop.example/path"]', '["https://a@b"]'])
def test_what_is_no_origin_ends_the_process(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_ALLOWED_ORIGINS", value)
    with pytest.raises(ConfigurationError, match="DARKROOM_ALLOWED_ORIGINS"):
        read(HttpSettings)


def test_settings_say_origins_as_browsers_do(api_settings: ApiSettings) -> None:
    settings = HttpSettings(allowed_origins=("HTTPS://Shop.Example:443",))
    assert settings.allowed_origins == (SHOP,) == api_settings.http.allowed_origins
