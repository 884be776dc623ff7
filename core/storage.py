"""The object store, and the signed links under which the api serves what is in it."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Collection
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
        try:
            await obstore.put_async(self._store, key, data, attributes=self._attributes(content_type))
        except (BaseError, OSError) as error:
            raise ServiceUnavailableError(f"object store, put {key}: {error}") from error

    async def get(self, key: str) -> bytes:
        """Read an object whole.

        Raises:
            ObjectNotFoundError: nothing is stored under this key.
            ServiceUnavailableError: the store did not answer.
        """
        try:
            response = await obstore.get_async(self._store, key)
            return bytes(await response.bytes_async())
        except (MissingObjectError, FileNotFoundError) as error:
            raise ObjectNotFoundError(key) from error
        except (BaseError, OSError) as error:
            raise ServiceUnavailableError(f"object store, get {key}: {error}") from error

    async def stream(self, key: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive) in chunks; raises as :meth:`get`, before the first chunk."""
        try:
            for offset in range(start, end, CHUNK):
                part = await obstore.get_range_async(
                    self._store, key, start=offset, end=min(offset + CHUNK, end)
                )
                yield bytes(part)
        except (MissingObjectError, FileNotFoundError) as error:
            raise ObjectNotFoundError(key) from error
        except (BaseError, OSError) as error:
            raise ServiceUnavailableError(f"object store, get {key}: {error}") from error

    async def exists(self, key: str) -> bool:
        """Whether something is stored under this key."""
        try:
            await obstore.head_async(self._store, key)
        except (MissingObjectError, FileNotFoundError):
            return False
        except (BaseError, OSError) as error:
            raise ServiceUnavailableError(f"object store, head {key}: {error}") from error
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
        try:
            async for found in obstore.list(self._store, prefix=prefix):
                keys = [item["path"] for item in found if item["path"] not in keep]
                if keys:
                    await obstore.delete_async(self._store, keys)
                deleted += len(keys)
        except (BaseError, OSError) as error:
            raise ServiceUnavailableError(f"object store, delete {prefix}: {error}") from error
        return deleted

    def _attributes(self, content_type: str) -> dict[str, str] | None:
        # A folder has nowhere to keep them.
        local = isinstance(self._store, obstore.store.LocalStore)
        return None if local else {"Content-Type": content_type}


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
