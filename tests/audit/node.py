"""Node with the packages of the pages' build, among which are the audits' own."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.audit.target import Customer, Target

FRONTEND: Final = Path(__file__).parents[2] / "api" / "frontend"
_BRIDGE: Final = Path(__file__).with_name("graphql_ws_bridge.mjs")


def node(package: str) -> str:
    """The program, as ``infra/local/build_frontend.sh`` finds it; skips the test without the package."""
    if not (FRONTEND / "node_modules" / package).is_dir():
        pytest.skip(f"`make frontend` installs {package}")
    path = f"{os.environ['PATH']}:{Path(sys.executable).parent}"
    program = shutil.which("node", path=path)
    assert program is not None, "no node, though there are its packages"
    return program


@dataclass
class GraphqlWs:
    """A client of the npm package graphql-ws in a process of its own."""

    target: Target
    process: asyncio.subprocess.Process
    told: list[dict[str, Any]] = field(default_factory=list)

    async def do(self, action: str, **values: Any) -> None:
        """Have it do something."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"action": action, **values}).encode() + b"\n")
        await self.process.stdin.drain()

    async def create(self, customer: Customer | None, **options: Any) -> None:
        """Make the client; it connects with its first subscription."""
        parameters = customer.init["payload"] if customer else None
        await self.do("create", url=self.target.socket_url, connectionParams=parameters, options=options)

    async def subscribe(self, key: str, query: str, **payload: Any) -> None:
        """Start an operation."""
        await self.do("subscribe", key=key, payload={"query": query, **payload})

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """The next event with these values; those before it are passed over and kept in ``told``."""
        assert self.process.stdout
        async with asyncio.timeout(20):
            while line := await self.process.stdout.readline():
                event: dict[str, Any] = json.loads(line)
                self.told.append(event)
                if all(event.get(name) == value for name, value in wanted.items()):
                    return event
        raise AssertionError(self.told)

    def count(self, **wanted: Any) -> int:
        """How many such events were told."""
        return sum(all(event.get(name) == value for name, value in wanted.items()) for event in self.told)


@asynccontextmanager
async def graphql_ws(target: Target) -> AsyncIterator[GraphqlWs]:
    """A client that speaks to the target."""
    process = await asyncio.create_subprocess_exec(
        node("graphql-ws"),
        # Node 20 has a WebSocket only when asked for it.
        "--experimental-websocket",
        "--no-warnings",
        "--input-type=module",
        "-e",
        _BRIDGE.read_text(),
        cwd=FRONTEND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield GraphqlWs(target=target, process=process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
