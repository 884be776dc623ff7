"""A hub that the tests serve on this machine: one repository over real HTTP."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


def git_hash(content: bytes) -> str:
    """What git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class HubServer:
    """A hub on this machine with one repository, which can be told to fail."""

    files: dict[str, bytes]
    repository: str = "studio/model"
    revision: str = REVISION
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and ``Range`` of every request so far."""
    cuts: dict[str, int] = field(default_factory=dict)
    """After how many bytes to break off the next answer with this file."""
    failures: dict[str, list[HTTPStatus]] = field(default_factory=dict)
    """What to answer to the next requests for this file instead of it."""
    corrupted: set[str] = field(default_factory=set)
    """Files whose next answer has a wrong byte."""
    listed: list[dict[str, Any]] | None = None
    """What the listing says, where that is not what the files are."""
    tokens: set[str | None] = field(default_factory=set)
    """What stood in ``Authorization``."""
    address: str = ""

    @property
    def fetched(self) -> list[str]:
        marker = f"/resolve/{self.revision}/"
        return [path.partition(marker)[2] for path, _ in self.requests if marker in path]

    @property
    def names(self) -> set[str]:
        """What the revision may be called."""
        return {self.revision, "main"}

    def listing(self) -> list[dict[str, Any]]:
        """What the hub says of its files."""
        if self.listed is not None:
            return self.listed
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
            for folder in sorted({path.partition("/")[0] for path in self.files if "/" in path})
        ]
        for path, content in self.files.items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": git_hash(content),
            }
            if path.endswith((".safetensors", ".bin")):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Stay quiet."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.hub.requests.append((path, self.headers["Range"]))
        self.hub.tokens.add(self.headers["Authorization"])
        tree = f"/api/models/{self.hub.repository}/tree/{self.hub.revision}"
        files = f"/{self.hub.repository}/resolve/{self.hub.revision}/"
        commit = f"/api/models/{self.hub.repository}"
        if path in (commit, *(f"{commit}/revision/{name}" for name in self.hub.names)):
            self._answer(HTTPStatus.OK, json.dumps({"id": "…", "sha": self.hub.revision}).encode(), {})
        elif path == tree:
            self._listing(last="cursor" in query)
        elif path.startswith(files) and path.removeprefix(files) in self.hub.files:
            self._file(path.removeprefix(files))
        elif path.startswith(f"/api/models/{self.hub.repository}/"):
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        else:
            self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")

    def _listing(self, *, last: bool) -> None:
        """Two pages, as a hub answers for many files."""
        entries = self.hub.listing()
        page = entries[5:] if last else entries[:5]
        following = f'<{self.hub.address}{self.path}&cursor=5>; rel="next"'
        self._answer(HTTPStatus.OK, json.dumps(page).encode(), {} if last else {"Link": following})

    def _file(self, name: str) -> None:
        if waiting := self.hub.failures.get(name):
            self._refuse(waiting.pop(0), "")
            return
        content = self.hub.files[name]
        if name in self.hub.corrupted:
            self.hub.corrupted.discard(name)
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(re.sub(r"\D", "", self.headers["Range"] or "0"))
        status = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
        self._answer(status, content[start:], {}, cut=self.hub.cuts.pop(name, None))

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code} if code else {})

    def _answer(
        self, status: HTTPStatus, body: bytes, headers: dict[str, str], *, cut: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = cut is not None


@pytest.fixture
def hub_server(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The demo model on a hub, beside files that nobody should fetch."""
    files = {
        str(file.relative_to(model_folder)): file.read_bytes()
        for file in sorted(model_folder.rglob("*"))
        if file.is_file()
    }
    files |= {
        "README.md": b"# A model",
        "model.safetensors": b"the whole model in one file",
        "unet/diffusion_pytorch_model.bin": b"a pickle",
        "unet/diffusion_pytorch_model.non_ema.safetensors": b"for training",
        "vae_old/diffusion_pytorch_model.safetensors": b"no component of the index",
    }
    hub = HubServer(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    # The hub's client is made once per process: make it anew, now that nothing goes through a proxy.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    server.shutdown()
    thread.join()
    server.server_close()
