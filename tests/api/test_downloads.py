import hashlib
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import Parts
from api.downloads import parse_range
from core.clock import now
from core.models import Image
from core.settings import LinkSettings
from core.storage import CHUNK, DownloadLinks
from schema.types.node import key_of
from tests.graphql_client import Client
from tests.served_api import succeed

GENERATE = """
mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }
"""
IMAGES = "query ($id: ID!) { generation(id: $id) { images { url sha256 byteSize contentType } } }"
CONTENT = hashlib.shake_256(b"picture").digest(2 * CHUNK + 1000)


@pytest.fixture
async def image(premium: Client, parts: Parts) -> dict[str, Any]:
    """A finished picture, as its owner sees it."""
    generation_id = (await premium.data(GENERATE, input={"prompt": "x"}))["generate"]["id"]
    key = key_of(generation_id, "Generation")
    assert key is not None
    await succeed(parts, key, CONTENT)
    found: dict[str, Any] = (await premium.data(IMAGES, id=generation_id))["generation"]["images"][0]
    found["path"] = found["url"].removeprefix("http://127.0.0.1:8000")
    return found


async def test_a_signed_link_gives_the_whole_picture(client: Client, image: dict[str, Any]) -> None:
    response = await client.http.get(image["path"])
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert int(response.headers["content-length"]) == image["byteSize"] == len(CONTENT)
    assert hashlib.sha256(response.content).hexdigest() == image["sha256"]
    assert response.headers["etag"] == f'"{image["sha256"]}"'
    head = await client.http.head(image["path"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]
    part = await client.http.head(image["path"], headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (200, str(len(CONTENT)))


async def test_a_known_etag_is_not_sent_again(client: Client, image: dict[str, Any]) -> None:
    etag = f'"{image["sha256"]}"'
    response = await client.http.get(image["path"], headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")
    other = await client.http.get(image["path"], headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, len(CONTENT)),
        ("bytes=-50", len(CONTENT) - 50, len(CONTENT)),
        (f"bytes=10-{len(CONTENT) * 2}", 10, len(CONTENT)),
    ],
)
async def test_a_range_gives_that_part(
    client: Client, image: dict[str, Any], asked: str, start: int, stop: int
) -> None:
    response = await client.http.get(image["path"], headers={"Range": asked})
    assert response.status_code == 206
    assert response.content == CONTENT[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"


async def test_a_range_beyond_the_end_is_416_and_a_strange_one_is_ignored(
    client: Client, image: dict[str, Any]
) -> None:
    beyond = await client.http.get(image["path"], headers={"Range": f"bytes={len(CONTENT)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(CONTENT)}"
    strange = await client.http.get(image["path"], headers={"Range": "lines=1-2"})
    assert strange.status_code == 200
    changed = await client.http.get(image["path"], headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert changed.status_code == 200


async def test_a_link_that_was_tampered_with_or_expired_is_refused(
    client: Client, image: dict[str, Any], link_settings: LinkSettings
) -> None:
    parts = urlsplit(image["path"])
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    later = {**query, "expires": str(int(query["expires"]) + 60)}
    forged = {**query, "signature": "0" * 64}
    for changed in (later, forged):
        assert (await client.http.get(parts.path, params=changed)).status_code == 403
    key = (await Image.get()).id
    expired = DownloadLinks(link_settings).make(key, extension="png", now=now() - timedelta(days=1))
    assert (
        await client.http.get(urlsplit(expired)._replace(scheme="", netloc="").geturl())
    ).status_code == 403
    missing = DownloadLinks(link_settings).make(UUID(int=1), extension="png", now=now())
    assert (
        await client.http.get(urlsplit(missing)._replace(scheme="", netloc="").geturl())
    ).status_code == 404
    assert (await client.http.get(parts.path)).status_code == 422


async def test_a_picture_whose_object_is_gone_is_404(
    client: Client, image: dict[str, Any], parts: Parts
) -> None:
    await Image.all().update(key="generations/gone/0.png")
    assert (await client.http.get(image["path"])).status_code == 404


@given(st.text(alphabet="bytes=0123456789-, ", max_size=20), st.integers(1, 10_000))
def test_a_range_is_always_within_the_picture(header: str, size: int) -> None:
    part = parse_range(header, size=size)
    assert part is None or part.start >= part.stop or (part.start >= 0 and part.stop <= size)
