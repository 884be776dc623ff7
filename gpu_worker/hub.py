"""Downloads a model from a hub: the files that inference needs, resumed at the byte, checked by their hashes.

The hub's HTTP interface is used as it is, with the session, headers and errors of huggingface_hub: that
library's own snapshot download starts a file anew after a restart, and compares sizes only.
"""

import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import quote

import httpx2
import structlog
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from core.catalogue import HubSource
from core.errors import WeightsError
from core.pins import RemoteFile, Revision
from gpu_worker.layout import INDEX, components

_TIMEOUT_SECONDS: Final = 30.0
_PROGRESS_SECONDS: Final = 10.0
_LONGEST_DELAY_SECONDS: Final = 60.0
_SERVER_ERROR: Final = 500
_BUSY: Final = frozenset({408, 429})

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")


class _LargeFile(BaseModel):
    oid: str = Field(pattern=r"^[0-9a-f]{64}$")


class _RepositoryEntry(BaseModel):
    type: Literal["file", "directory"]
    path: str
    size: int = Field(default=0, ge=0)
    oid: str = Field(pattern=r"^[0-9a-f]{40}$")
    lfs: _LargeFile | None = None


class _Commit(BaseModel):
    sha: Revision


_LISTING: Final[TypeAdapter[list[_RepositoryEntry]]] = TypeAdapter(list[_RepositoryEntry])
_COMMIT: Final = TypeAdapter(_Commit)


class _CorruptedError(Exception):
    """What arrived is not what the pin or the listing promised."""


def needed_files(
    listing: Sequence[RemoteFile], names: Collection[str], variant: str | None
) -> list[RemoteFile]:
    """What inference reads: each named component's configuration and weights as safetensors.

    Weights of the ``variant`` are taken where a component has them and its plain ones otherwise; never both,
    never a pickle, never the single-file checkpoints beside the components.
    """
    chosen: list[RemoteFile] = []
    for name in sorted(names):
        files = [file for file in listing if re.fullmatch(rf"{re.escape(name)}/\w[\w.-]*", file.path)]
        weights = {file.path: _variant_of(file.path) for file in files if file.path.endswith(".safetensors")}
        wanted = variant if variant in weights.values() else None
        chosen += [file for file in files if file.path.endswith((".json", ".txt"))]
        chosen += [file for file in files if file.path in weights and weights[file.path] == wanted]
    return chosen


def _variant_of(path: str) -> str | None:
    """``fp16`` for ``unet/model.fp16.safetensors`` and its shards, none for ``unet/model.safetensors``."""
    found = re.fullmatch(r"[^.]+\.(.+?)(?:-\d+-of-\d+)?\.safetensors", path.rpartition("/")[2])
    return found[1] if found else None


class Hub:
    """A hub that serves models over HTTP.

    Args:
        endpoint: its address; by default ``HF_ENDPOINT``, else the public one.
        token: for private and gated models; by default ``HF_TOKEN`` or the token file of the hub's own tool.
        attempts: how often each file is asked for before the download is given up.
        first_delay: seconds before the second attempt; doubled for each further one.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | None = None,
        attempts: int = 8,
        first_delay: float = 1.0,
    ) -> None:
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._token = token
        self._attempts = attempts
        self._first_delay = first_delay

    def download(self, source: HubSource, folder: Path) -> None:
        """Fill ``folder`` with the model in diffusers' layout; good files that lie there already are kept.

        Blocks for as long as it takes. Every file has to have the digest of the pin, or where the source has
        none the one that the hub lists; only complete and good files carry their names.

        Args:
            source: with its revision.
            folder: where to.

        Raises:
            WeightsError: the repository, revision or a file is missing or closed to us, a file is not what it
                has to be, or the network failed ``attempts`` times.
            OSError: the folder cannot be written.
        """
        transfer = _Transfer(hub=self, source=source, folder=folder)
        transfer.fetch(source.files or transfer.needed())

    def commit_of(self, repository: str, revision: str | None = None) -> str:
        """The commit that ``revision`` (a branch, tag or commit) is now; by default the default branch's.

        Raises:
            WeightsError: there is no such repository or revision, it is closed to us, or the network failed.
        """
        path = f"api/models/{repository}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
        name = f"{repository}@{revision}" if revision else repository
        return self.retrying(name, lambda: self.answer(self.address(path), _COMMIT)[0].sha)

    def files_of(self, source: HubSource) -> list[RemoteFile]:
        """Every file that inference needs of ``source`` at its revision, as the hub lists them.

        Raises:
            WeightsError: as for ``download``.
        """
        with tempfile.TemporaryDirectory(prefix="darkroom-pin-") as folder:
            return _Transfer(hub=self, source=source, folder=Path(folder)).needed()

    def answer(self, address: str, kind: TypeAdapter[_Answer]) -> tuple[_Answer, str | None]:
        """What ``address`` answers, and the address of the next page where there is one.

        Raises:
            WeightsError: the answer is not of that kind.
            HTTPError: there is none.
        """
        response = get_session().get(address, headers=self.headers(), timeout=_TIMEOUT_SECONDS)
        hf_raise_for_status(response)
        try:
            return kind.validate_json(response.content), response.links.get("next", {}).get("url")
        except ValidationError as error:
            raise WeightsError(f"{response.url} does not answer as a hub does") from error

    def address(self, path: str) -> str:
        """The address of ``path`` on this hub."""
        return f"{self._endpoint}/{path}"

    def headers(self) -> dict[str, str]:
        """What every request carries; bodies come uncompressed, so that a byte's position means something."""
        return {**build_hf_headers(token=self._token), "Accept-Encoding": "identity"}

    def retrying(self, name: str, action: Callable[[], _Answer]) -> _Answer:
        """Do ``action``, again after failures that may pass, with growing pauses.

        Raises:
            WeightsError: it failed for good; the message has ``name`` and the cause.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError):
                # What these say of a request may hold the token.
                raise WeightsError(f"{name}: the hub's address or token is malformed") from None
            except (httpx2.HTTPError, _CorruptedError) as error:
                reason = str(error).partition("\n")[0] or type(error).__name__
                if not _may_pass(error):
                    raise WeightsError(f"{name}: {reason}") from error
                if attempt == self._attempts:
                    raise WeightsError(f"{name}: given up after {attempt} attempts: {reason}") from error
                delay = min(self._first_delay * 2 ** (attempt - 1), _LONGEST_DELAY_SECONDS)
                _log.warning("weights.retry", source=name, attempt=attempt, delay=delay, reason=reason)
                time.sleep(delay)
        raise AssertionError("attempts is at least 1")


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= _SERVER_ERROR or error.response.status_code in _BUSY
    return True


class _Transfer:
    """One model on its way from a hub into a folder."""

    def __init__(self, *, hub: Hub, source: HubSource, folder: Path) -> None:
        self.name = f"{source.repository}@{source.revision}"
        self._hub = hub
        self._source = source
        self._folder = folder
        self._bytes = 0
        self._wrong: dict[str, str] = {}
        self._logged_at = time.monotonic()

    def needed(self) -> list[RemoteFile]:
        """The index, which this brings into the folder, and the files of the components that it names."""
        listing = self._hub.retrying(self.name, self._listing)
        index = next((file for file in listing if file.path == INDEX), None)
        if index is None:
            raise WeightsError(f"{self.name} has no {INDEX}: it is not in diffusers' layout")
        self.fetch([index])
        return [index, *needed_files(listing, components(self._folder), self._source.variant)]

    def _listing(self) -> list[RemoteFile]:
        """Every file of the repository at the revision."""
        return [
            RemoteFile(entry.path, entry.size, entry.lfs.oid if entry.lfs else entry.oid)
            for page in self._pages()
            for entry in page
            if entry.type == "file"
        ]

    def _pages(self) -> Iterator[list[_RepositoryEntry]]:
        path = f"api/models/{self._source.repository}/tree/{self._source.revision}?recursive=true"
        address: str | None = self._hub.address(path)
        while address:
            page, address = self._hub.answer(address, _LISTING)
            yield page

    def fetch(self, files: Sequence[RemoteFile]) -> None:
        """Bring ``files`` into the folder, one after the other."""
        total = sum(file.size for file in files)
        _log.info("weights.download", source=self.name, files=len(files), bytes=total)
        for number, file in enumerate(files, start=1):
            target = self._folder / file.path
            if not (target.exists() and file.digest_of(target) == file.digest):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._hub.retrying(f"{self.name}/{file.path}", partial(self._fetch_one, file, target))
            _log.info("weights.file", source=self.name, file=file.path, number=number, files=len(files))

    def _fetch_one(self, file: RemoteFile, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        have = part.stat().st_size if part.exists() else 0
        if have < file.size or not file.size:
            self._append(file, part, have)
        found = file.digest_of(part)
        if found != file.digest:
            part.unlink()
            problem = f"expected the hash {file.digest}, found {found}"
            # The network does not make the same mistake twice: this is what the hub has.
            if found == self._wrong.get(file.path):
                raise WeightsError(f"{self.name}/{file.path}: {problem}")
            self._wrong[file.path] = found
            raise _CorruptedError(problem)
        part.rename(target)

    def _append(self, file: RemoteFile, part: Path, have: int) -> None:
        path = f"{self._source.repository}/resolve/{self._source.revision}/{file.path}"
        headers = self._hub.headers() | ({"Range": f"bytes={have}-"} if have else {})
        with get_session().stream(
            "GET", self._hub.address(path), headers=headers, timeout=_TIMEOUT_SECONDS
        ) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            resumed = response.status_code == httpx2.codes.PARTIAL_CONTENT
            with part.open("ab" if resumed else "wb") as output:
                # As they come: pieces of a fixed size would keep the last ones back when the line breaks.
                for chunk in response.iter_bytes():
                    output.write(chunk)
                    self._tell(file, len(chunk))

    def _tell(self, file: RemoteFile, count: int) -> None:
        self._bytes += count
        if time.monotonic() - self._logged_at >= _PROGRESS_SECONDS:
            self._logged_at = time.monotonic()
            _log.info("weights.progress", source=self.name, file=file.path, received_bytes=self._bytes)
