"""Whom we believe to be our database. The wheel's PostgreSQL has no TLS: a proxy before it does that."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from pydantic import SecretStr, ValidationError
from tortoise import connections

from core.errors import ServiceUnavailableError
from core.repository.database import database as open_database
from core.repository.database import migrate, require_schema
from core.settings import DatabaseSettings

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


@dataclass(frozen=True)
class EncryptedServer:
    """A server that lets in over TLS alone, with a certificate for `localhost`."""

    url: str
    authority: Path
    another_authority: Path

    def settings(self, ca_file: Path, *, host: str = "localhost") -> DatabaseSettings:
        url = self.url.replace("127.0.0.1", host)
        return DatabaseSettings(database_url=SecretStr(url), database_ca_file=ca_file)


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def encrypted_server(
    database_settings: DatabaseSettings, tmp_path: Path
) -> AsyncIterator[EncryptedServer]:
    authority, another = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    another.cert_pem.write_to_path(tmp_path / "another-ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    url = database_settings.database_url.get_secret_value()
    port = urlsplit(url).port

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        if await reader.readexactly(8) != SSL_REQUEST:
            writer.close()
            return
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except OSError:
            return
        there, here = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass_on(reader, here), _pass_on(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        encrypted = url.replace(f":{port}/", f":{server.sockets[0].getsockname()[1]}/")
        yield EncryptedServer(encrypted, tmp_path / "ca.pem", tmp_path / "another-ca.pem")


async def test_migrating_and_asking_verify_the_server(encrypted_server: EncryptedServer) -> None:
    settings = encrypted_server.settings(encrypted_server.authority)
    await migrate(settings)
    async with open_database(settings):
        await require_schema()
        [row] = await connections.get("default").execute_query_dict("SELECT 1 AS one")
    assert row == {"one": 1}


@pytest.mark.parametrize(("named", "host"), [("another_authority", "localhost"), ("authority", "127.0.0.1")])
async def test_a_server_of_another_authority_or_another_name_is_not_our_database(
    encrypted_server: EncryptedServer, named: str, host: str
) -> None:
    settings = encrypted_server.settings(getattr(encrypted_server, named), host=host)
    with pytest.raises(ServiceUnavailableError, match="certificate"):
        await migrate(settings)
    async with open_database(settings):
        with pytest.raises(ServiceUnavailableError, match="certificate"):
            await require_schema()


def test_an_authority_that_is_not_there_is_named() -> None:
    with pytest.raises(ValidationError, match="database_ca_file"):
        DatabaseSettings(database_url=SecretStr("postgres://h/d"), database_ca_file=Path("/none/ca.pem"))
