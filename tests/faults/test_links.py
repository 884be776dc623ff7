"""Faults that are laid on a link are there, and go away."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.conftest import free_port
from tests.faults.links import Link, Way

SOON = 5.0
LATER = 0.15
"""Seconds: long enough for what is not held up to arrive here."""


class Client:
    """Sends lines to a server that answers each with itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, line: bytes) -> bytes:
        self._writer.write(line)
        return await self.hear()

    async def hear(self, *, seconds: float = SOON) -> bytes:
        async with asyncio.timeout(seconds):
            return await self._reader.readline()

    def send(self, line: bytes) -> None:
        self._writer.write(line)

    def leave(self) -> None:
        self._writer.close()


@pytest.fixture
async def heard() -> list[bytes]:
    """What the server has received."""
    return []


@pytest.fixture
async def link(heard: list[bytes]) -> AsyncIterator[Link]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link("client>server", server.sockets[0].getsockname()[1])
    await link.listen(free_port())
    yield link
    await link.close()
    server.close()


async def connect(link: Link) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", link.port))


async def test_a_link_without_faults_carries_both_ways(link: Link) -> None:
    client = await connect(link)
    assert await client.say(b"one\n") == b"one\n"
    assert await client.say(b"two\n") == b"two\n"
    client.leave()


async def test_latency_is_added_in_each_direction(link: Link) -> None:
    client = await connect(link)
    await client.say(b"at once\n")
    link.slow_down(0.2)
    begun = time.monotonic()
    await client.say(b"late\n")
    assert time.monotonic() - begun >= 0.4
    client.leave()


async def test_a_black_hole_holds_everything_and_lets_it_go_when_healed(
    link: Link, heard: list[bytes]
) -> None:
    client = await connect(link)
    await client.say(b"before\n")
    link.swallow()
    client.send(b"during\n")
    newcomer = await connect(link)
    newcomer.send(b"newcomer\n")
    with pytest.raises(TimeoutError):
        await client.hear(seconds=LATER)
    assert heard == [b"before\n"]
    link.heal()
    assert await client.hear() == b"during\n"
    assert await newcomer.hear() == b"newcomer\n"
    client.leave()
    newcomer.leave()


@pytest.mark.parametrize(("way", "arrives"), [(Way.TO_CLIENT, True), (Way.TO_SERVER, False)])
async def test_one_direction_can_be_cut(link: Link, heard: list[bytes], way: Way, *, arrives: bool) -> None:
    client = await connect(link)
    await client.say(b"before\n")
    link.swallow(way)
    client.send(b"during\n")
    with pytest.raises(TimeoutError):
        await client.hear(seconds=LATER)
    assert (b"during\n" in heard) is arrives
    link.heal()
    assert await client.hear() == b"during\n"
    client.leave()


async def test_a_reset_breaks_what_stands_and_nothing_else(link: Link) -> None:
    client = await connect(link)
    await client.say(b"before\n")
    assert link.reset() == 1
    with pytest.raises(ConnectionResetError):
        await client.hear()
    again = await connect(link)
    assert await again.say(b"again\n") == b"again\n"
    again.leave()


async def test_a_link_that_is_down_breaks_every_connection_until_it_is_healed(link: Link) -> None:
    standing = await connect(link)
    await standing.say(b"before\n")
    link.take_down()
    with pytest.raises(ConnectionResetError):
        await standing.hear()
    newcomer = await connect(link)
    with pytest.raises(ConnectionResetError):
        await newcomer.hear()
    link.heal()
    again = await connect(link)
    assert await again.say(b"again\n") == b"again\n"
    again.leave()
