"""The harness' object store does for our processes what S3 does."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.processes import running
from core.errors import ObjectNotFoundError, ServiceUnavailableError
from core.settings import StorageSettings
from core.storage import Storage
from infra.local.probes import healthy
from tests.conftest import free_port
from tests.faults.nodes import REPOSITORY


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[Storage]:
    """Objects in the folder ``objects``, over HTTP."""
    port, objects = free_port(), tmp_path / "objects"
    objects.mkdir()
    options = {
        "endpoint": f"http://127.0.0.1:{port}",
        "region": "here",
        "allow_http": "true",
        "access_key_id": "x",
        "secret_access_key": "y",
    }
    settings = StorageSettings(storage_url="s3://darkroom", storage_options=options)
    argv = (sys.executable, "-m", "tests.faults.object_server", str(port), str(objects))
    env = {"PYTHONPATH": str(REPOSITORY)}
    async with running(argv, env=env, log=tmp_path / "log"):
        ready = healthy("127.0.0.1", port, "/darkroom")
        async with asyncio.timeout(30):
            while not await ready():  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.05)
        yield Storage.open(settings)


async def test_objects_are_put_read_in_parts_and_deleted_by_prefix(remote: Storage, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    for key in ("a/1/0.png", "a/1/1.png", "b/1/0.png"):
        await remote.put(key, data, content_type="image/png")
    assert await remote.get("a/1/0.png") == data
    parts = [part async for part in remote.stream("a/1/0.png", start=10, end=300_000)]
    assert b"".join(parts) == data[10:300_000]
    assert await remote.exists("a/1/1.png")
    assert await remote.delete_under("a/", keep=["a/1/1.png"]) == 1
    assert not await remote.exists("a/1/0.png")
    with pytest.raises(ObjectNotFoundError):
        await remote.get("a/1/0.png")
    assert files(tmp_path / "objects") == ["a/1/1.png", "b/1/0.png"]


async def test_what_the_disk_refuses_is_unavailable_and_leaves_nothing(
    remote: Storage, tmp_path: Path
) -> None:
    (tmp_path / "objects" / "a").write_bytes(b"in the way of a folder")
    with pytest.raises(ServiceUnavailableError):
        await remote.put("a/1/0.png", b"x" * 1000, content_type="image/png")
    assert files(tmp_path / "objects") == ["a"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
