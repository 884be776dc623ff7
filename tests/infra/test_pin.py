import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from infra import pin
from infra.pin import ImageName, pin_images
from infra.registry import Registry


@dataclass
class RegistryServer:
    """A registry on this machine, which gives a token for one repository to whoever asks."""

    manifests: dict[tuple[str, str], bytes]
    claimed: dict[str, str] = field(default_factory=dict)
    """Digests that are told in place of the right ones, by repository."""
    address: str = ""

    def digest(self, path: str, tag: str) -> str:
        return f"sha256:{hashlib.sha256(self.manifests[path, tag]).hexdigest()}"


@pytest.fixture
def registry_server() -> Iterator[RegistryServer]:
    server = RegistryServer(
        {
            ("library/nats", "2.15.0-alpine"): b'{"manifests": ["nats"]}',
            ("library/python", "3.11-slim"): b'{"manifests": ["python"]}',
            ("studio/gateway", "v1.8.0"): b'{"manifests": ["gateway"]}',
        }
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            if path == "/token":
                self._answer(
                    200, json.dumps({"token": f"for {query['scope'][0]} at {query['service'][0]}"}).encode()
                )
                return
            name, _, tag = path.removeprefix("/v2/").partition("/manifests/")
            scope = f"repository:{name}:pull"
            if self.headers["Authorization"] != f"Bearer for {scope} at here":
                realm = f'Bearer realm="http://{server.address}/token",service="here",scope="{scope}"'
                self._answer(401, b"{}", **{"WWW-Authenticate": realm})
                return
            manifest = server.manifests.get((name, tag))
            # Without the list of platforms the digest would be that of one platform alone.
            if manifest is None or "image.index.v1+json" not in self.headers["Accept"]:
                self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
                return
            claimed = server.claimed.get(name, server.digest(name, tag))
            self._answer(200, manifest, **{"Docker-Content-Digest": claimed})

        def _answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def registry(registry_server: RegistryServer) -> Registry:
    return Registry(default_host=registry_server.address)


def test_a_digest_is_written_beside_each_tag_and_all_else_stays(
    registry: Registry, registry_server: RegistryServer, tmp_path: Path
) -> None:
    dockerfile, manifest = tmp_path / "Dockerfile", tmp_path / "nats.yaml"
    dockerfile.write_text(
        "FROM python:3.11-slim AS process\nRUN echo image: nats:2.15.0-alpine\nFROM process AS api\n"
    )
    manifest.write_text(
        f"spec:\n  imageName: {registry_server.address}/studio/gateway:v1.8.0\n"
        "  containers:\n    - image: nats:2.15.0-alpine # the broker\n    - image: darkroom-api\n"
    )
    assert pin_images([dockerfile, manifest], registry=registry) == 0
    python = registry_server.digest("library/python", "3.11-slim")
    nats = registry_server.digest("library/nats", "2.15.0-alpine")
    gateway = registry_server.digest("studio/gateway", "v1.8.0")
    assert dockerfile.read_text() == (
        f"FROM python:3.11-slim@{python} AS process\n"
        "RUN echo image: nats:2.15.0-alpine\nFROM process AS api\n"
    )
    assert manifest.read_text() == (
        f"spec:\n  imageName: {registry_server.address}/studio/gateway:v1.8.0@{gateway}\n"
        f"  containers:\n    - image: nats:2.15.0-alpine@{nats} # the broker\n    - image: darkroom-api\n"
    )


def test_pinning_again_follows_the_tag_and_writes_nothing_while_it_stays(
    registry: Registry, registry_server: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("image: nats:2.15.0-alpine\n")
    pin_images([file], registry=registry)
    before = file.stat().st_mtime_ns
    pin_images([file], registry=registry)
    assert file.stat().st_mtime_ns == before
    assert "unchanged" in capsys.readouterr().out
    first = registry_server.digest("library/nats", "2.15.0-alpine")
    registry_server.manifests["library/nats", "2.15.0-alpine"] = b'{"manifests": ["rebuilt"]}'
    assert pin_images([file], registry=registry) == 0
    assert (
        file.read_text()
        == f"image: nats:2.15.0-alpine@{registry_server.digest('library/nats', '2.15.0-alpine')}\n"
    )
    assert f"was {first}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("nats:0.0.1", "404"),
        ("127.0.0.1:1/nats:2.15.0-alpine", "127.0.0.1:1"),
        ("studio/gateway:v1.8.0", "the manifest is sha256:"),
    ],
)
def test_an_image_that_cannot_be_pinned_is_named_and_the_others_are_pinned(
    image: str,
    why: str,
    registry: Registry,
    registry_server: RegistryServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry_server.claimed["studio/gateway"] = f"sha256:{'0' * 64}"
    file = tmp_path / "compose.yaml"
    file.write_text(f"image: {image}\nimage: nats:2.15.0-alpine\n")
    assert pin_images([file], registry=registry) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{image}: ")
    assert why in said
    nats = registry_server.digest("library/nats", "2.15.0-alpine")
    assert file.read_text() == f"image: {image}\nimage: nats:2.15.0-alpine@{nats}\n"


def test_every_image_of_the_repository_is_found() -> None:
    files = [path for place in pin._PLACES for path in pin.REPOSITORY.glob(place)]
    named = {found[2] for path in files for found in pin._NAMED.finditer(path.read_text())}
    images = {image.path for name in named if (image := ImageName.parse(name))}
    assert images == {
        "python",
        "node",
        "nats",
        "natsio/nats-server-config-reloader",
        "postgres",
        "axllent/mailpit",
        "versity/versitygw",
        "cloudnative-pg/postgresql",
    }
