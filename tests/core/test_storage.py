from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from core.clock import now
from core.errors import ObjectNotFoundError
from core.settings import LinkSettings, StorageSettings
from core.storage import CHUNK, DownloadLinks, Storage


async def test_what_was_put_is_got_whole_and_in_parts(storage: Storage) -> None:
    data = bytes(range(256)) * (CHUNK // 128)
    await storage.put("a/b/c.png", data, content_type="image/png")
    assert await storage.get("a/b/c.png") == data
    parts = [part async for part in storage.stream("a/b/c.png", start=10, end=len(data) - 5)]
    assert b"".join(parts) == data[10:-5]
    assert len(parts) > 1


async def test_a_missing_object_is_an_error_of_its_own(storage: Storage) -> None:
    assert not await storage.exists("a.png")
    with pytest.raises(ObjectNotFoundError):
        await storage.get("a.png")
    with pytest.raises(ObjectNotFoundError):
        await anext(storage.stream("a.png", start=0, end=10))
    await storage.put("a.png", b"x", content_type="image/png")
    assert await storage.exists("a.png")


async def test_a_local_folder_is_made_when_missing(tmp_path: Path) -> None:
    settings = StorageSettings(storage_url=f"file://{tmp_path}/not/there/yet")
    await Storage.open(settings).put("x", b"1", content_type="image/png")
    assert (tmp_path / "not/there/yet/x").read_bytes() == b"1"


async def test_other_stores_take_content_types() -> None:
    storage = Storage.open(StorageSettings(storage_url="memory:///"))
    await storage.put("x.png", b"1", content_type="image/png")
    assert await storage.get("x.png") == b"1"


def test_a_link_is_good_for_its_picture_and_its_time_alone(link_settings: LinkSettings) -> None:
    links, image_id, moment = DownloadLinks(link_settings), uuid4(), now()
    url = urlsplit(links.make(image_id, extension="png", now=moment))
    query = parse_qs(url.query)
    expires, signature = int(query["expires"][0]), query["signature"][0]
    assert url.path == f"/images/{image_id}.png"
    assert links.allows(image_id, expires=expires, signature=signature, now=moment)
    assert not links.allows(uuid4(), expires=expires, signature=signature, now=moment)
    assert not links.allows(image_id, expires=expires + 1, signature=signature, now=moment)
    assert not links.allows(image_id, expires=expires, signature="é", now=moment)
    late = moment + timedelta(seconds=link_settings.download_lifetime_seconds + 1)
    assert not links.allows(image_id, expires=expires, signature=signature, now=late)
