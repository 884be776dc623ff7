"""The object store, and the signed links under which the api serves what is in it."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final, Self
from urllib.parse import urlencode
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.exceptions import NotFoundError as MissingObjectError
from obstore.store import ObjectStore, from_url

from core.errors import ObjectNotFoundError, ServiceUnavailableError
from core.settings import LinkSettings, StorageSettings
from core.telemetry import STORAGE_SECONDS

CHUNK: Final = 256 * 1024
"""Bytes handed out at a time by :meth:`Storage.stream`."""

_CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_RETRIES: Final = 3


class Storage:
    """Objects by key. Keys are paths such as ``generations/<id>/<attempt>/0.png``."""

    def __init__(self, *, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, settings: StorageSettings) -> Self:
        """The store at the configured address; a local folder is created when missing."""
        options = dict(settings.storage_options)
        if settings.storage_url.startswith("file://"):
            # Folders that deleting has emptied go too: a cloud store has none.
            return cls(store=from_url(settings.storage_url, mkdir=True, automatic_cleanup=True))
        patience = timedelta(seconds=settings.storage_timeout_seconds)
        store = from_url(  # type: ignore[call-overload] # options are the operator's own words
            settings.storage_url,
            config=options,
            client_options={
                "timeout": patience,
                "connect_timeout": min(patience, _CONNECT_TIMEOUT),
                "allow_http": options.pop("allow_http", "false") == "true",
            },
            # Its own way would be ten times within three minutes.
            retry_config={"max_retries": _RETRIES, "retry_timeout": patience},
        )
        return cls(store=store)

    async def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Store an object whole; a reader never sees half of it.

        Raises:
            ServiceUnavailableError: the store did not take it.
        """
        with _asked("put", key):
            await obstore.put_async(self._store, key, data, attributes=self._attributes(content_type))

    async def get(self, key: str) -> bytes:
        """Read an object whole.

        Raises:
            ObjectNotFoundError: nothing is stored under this key.
            ServiceUnavailableError: the store did not answer.
        """
        with _asked("get", key, reads=True):
            response = await obstore.get_async(self._store, key)
            return bytes(await response.bytes_async())

    async def stream(self, key: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive) in chunks; raises as :meth:`get`, before the first chunk."""
        for offset in range(start, end, CHUNK):
            with _asked("get", key, reads=True):
                part = await obstore.get_range_async(
                    self._store, key, start=offset, end=min(offset + CHUNK, end)
                )
            yield bytes(part)

    async def exists(self, key: str) -> bool:
        """Whether something is stored under this key.

        Raises:
            ServiceUnavailableError: the store did not answer.
        """
        try:
            with _asked("head", key, reads=True):
                await obstore.head_async(self._store, key)
        except ObjectNotFoundError:
            return False
        return True

    async def delete_under(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """Delete every object whose key begins with ``prefix``, which ends with a slash; returns how many.

        Args:
            prefix: where.
            keep: keys that stay.

        Raises:
            ServiceUnavailableError: the store did not answer, or somebody else deletes there; what is left
                goes at the next call.
        """
        deleted = 0
        with _asked("delete", prefix):
            async for found in obstore.list(self._store, prefix=prefix):
                keys = [item["path"] for item in found if item["path"] not in keep]
                if keys:
                    await obstore.delete_async(self._store, keys)
                deleted += len(keys)
        return deleted

    def _attributes(self, content_type: str) -> dict[str, str] | None:
        # A folder has nowhere to keep them.
        local = isinstance(self._store, obstore.store.LocalStore)
        return None if local else {"Content-Type": content_type}


@contextmanager
def _asked(operation: str, key: str, *, reads: bool = False) -> Iterator[None]:
    """Measure a request to the store, and turn its errors into ours; one that reads may find nothing.

    Raises:
        ObjectNotFoundError: it found nothing.
        ServiceUnavailableError: the store did not answer.
    """
    begun, outcome = time.perf_counter(), "answered"
    try:
        yield
    except (BaseError, OSError) as error:
        if reads and isinstance(error, (MissingObjectError, FileNotFoundError)):
            outcome = "missing"
            raise ObjectNotFoundError(key) from error
        outcome = "failed"
        raise ServiceUnavailableError(f"object store, {operation} {key}: {error}") from error
    finally:
        STORAGE_SECONDS.labels(operation=operation, outcome=outcome).observe(time.perf_counter() - begun)


class DownloadLinks:
    """Makes and checks links to pictures: whoever holds one may download until it expires, nobody else."""

    def __init__(self, settings: LinkSettings) -> None:
        self._base = settings.public_url.rstrip("/")
        secrets = (settings.download_secret, *settings.download_other_secrets)
        self._secrets = [secret.get_secret_value().encode() for secret in secrets]
        self._lifetime = timedelta(seconds=settings.download_lifetime_seconds)

    def make(self, image_id: UUID, *, extension: str, now: datetime) -> str:
        """A link to one picture, good for the configured lifetime from ``now``."""
        expires = int((now + self._lifetime).timestamp())
        signature = _signature(self._secrets[0], image_id, expires)
        query = urlencode({"expires": expires, "signature": signature})
        return f"{self._base}/images/{image_id}.{extension}?{query}"

    def allows(self, image_id: UUID, *, expires: int, signature: str, now: datetime) -> bool:
        """Whether a link's parts belong together and its time is not over."""
        genuine = any(
            hmac.compare_digest(_signature(secret, image_id, expires).encode(), signature.encode())
            for secret in self._secrets
        )
        return genuine and now.timestamp() < expires


def _signature(secret: bytes, image_id: UUID, expires: int) -> str:
    return hmac.new(secret, f"image:{image_id}:{expires}".encode(), hashlib.sha256).hexdigest()
