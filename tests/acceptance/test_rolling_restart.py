"""Both api processes are restarted, one after the other, while customers use them."""

import asyncio
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp
import httpx
import pytest
from gql.transport.exceptions import TransportError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.graphql_client import NO_AUTHORITIES
from tests.stack import FLEET, WATCH, Customer, Stack

pytestmark = pytest.mark.acceptance

# Three workers leave little of two cores for a process that starts.
PATIENCE = 3 if FLEET else 1
RESTART = 1012
TERMINAL = {"SUCCEEDED", "FAILED", "REJECTED", "CANCELED"}
LISTING = """
query ($after: String) {
  generations(first: 100, after: $after) {
    edges { node { prompt state } } pageInfo { endCursor hasNextPage }
  }
}
"""


class Traffic:
    """Customers that ask and watch, each time at the next api process, and try again where one is away."""

    def __init__(self, stack: Stack, customer: Customer) -> None:
        self._customer = customer
        self._urls = itertools.cycle(stack.urls)
        self._numbers = itertools.count(1)
        self._watchers: list[asyncio.Task[str]] = []
        self.closing = asyncio.Event()
        self.asked: list[str] = []
        self.failures = 0
        self.close_codes: Counter[int] = Counter()

    async def ask(self) -> None:
        """Ask for small pictures, one after the other, until told to stop."""
        while not self.closing.is_set():
            prompt = f"a small house, number {next(self._numbers)}"
            self.asked.append(prompt)
            await self.watch(prompt, width=64, height=64, steps=2)
            await asyncio.sleep(0.8)

    async def watch(self, prompt: str, **fields: Any) -> None:
        """Ask for one, and watch it beside."""
        generation_id = await self._generate(prompt, **fields)
        self._watchers.append(asyncio.create_task(self._end_of(generation_id)))

    async def ends(self) -> list[str]:
        """The terminal state that each watcher was told."""
        return await asyncio.gather(*self._watchers)

    async def _generate(self, prompt: str, **fields: Any) -> str:
        while True:
            customer = Customer(next(self._urls), self._customer.email, self._customer.token)
            try:
                return await customer.generate(prompt=prompt, idempotencyKey=prompt, **fields)
            except (aiohttp.ClientError, TransportError, OSError):
                self.failures += 1
                await asyncio.sleep(0.1)

    async def _end_of(self, generation_id: str) -> str:
        while True:
            try:
                async for state in self._states(generation_id):
                    if state in TERMINAL:
                        return state
            except ConnectionClosed as closed:
                self.close_codes[closed.rcvd.code if closed.rcvd else 0] += 1
            except (OSError, InvalidHandshake):
                await asyncio.sleep(0.1)

    async def _states(self, generation_id: str) -> AsyncGenerator[str]:
        url = next(self._urls).replace("http", "ws", 1)
        async with connect(
            f"{url}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")], open_timeout=5
        ) as socket:
            payload: dict[str, Any] = {"authorization": f"Bearer {self._customer.token}"}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            await socket.recv()
            payload = {"query": WATCH, "variables": {"id": generation_id}}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            while (message := json.loads(await socket.recv()))["type"] == "next":
                yield message["payload"]["data"]["generationStatus"]["state"]
            assert message["type"] == "error", message
            # Answered, because a backing service was away for this process: as good as no answer.
            assert message["payload"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE", message


async def restarted(stack: Stack, name: str, url: str) -> None:
    """Stop an api process as an orchestrator does, and wait until its successor serves."""
    before = stack.pid(name)
    os.kill(before, signal.SIGTERM)

    def again() -> bool:
        try:
            return (
                stack.pid(name) != before
                and httpx.get(f"{url}/health/serving", timeout=2, verify=NO_AUTHORITIES).is_success
            )
        except (FileNotFoundError, ValueError, httpx.TransportError):
            return False

    await until(again, seconds=30 * PATIENCE)


async def until(holds: Callable[[], bool], *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.1)


async def generations_of(customer: Customer, prompts: set[str]) -> Counter[str]:
    """How many generations there are for each of these prompts."""
    found: Counter[str] = Counter()
    after: str | None = None
    while True:
        page = (await customer.execute(LISTING, after=after))["generations"]
        nodes = [edge["node"] for edge in page["edges"]]
        found.update(node["prompt"] for node in nodes if node["prompt"] in prompts)
        assert all(node["state"] in TERMINAL for node in nodes if node["prompt"] in prompts)
        if not page["pageInfo"]["hasNextPage"] or found.keys() == prompts:
            return found
        after = page["pageInfo"]["endCursor"]


@pytest.mark.timeout(180 * PATIENCE)
async def test_a_rolling_restart_loses_no_mutation_and_no_terminal_event(
    stack: Stack, premium: Customer
) -> None:
    traffic = Traffic(stack, premium)
    # These are watched all the time: more work than the first restart leaves time for.
    long = [f"a long road, number {number}" for number in range(2)]
    for prompt in long:
        await traffic.watch(prompt, steps=50)
    asking = [asyncio.create_task(traffic.ask()) for _ in range(2)]
    for name, url in zip(("api", "api-2"), stack.urls, strict=True):
        await restarted(stack, name, url)
    traffic.closing.set()
    await asyncio.gather(*asking)

    async with asyncio.timeout(120 * PATIENCE):
        ends = await traffic.ends()

    prompts = {*traffic.asked, *long}
    # Every one that was answered has ended, and each watcher was told so, wherever it was connected.
    assert len(ends) == len(prompts)
    assert set(ends) == {"SUCCEEDED"}, ends
    # However often it was asked for, because an answer did not come, each was made once.
    assert await generations_of(premium, prompts) == Counter(prompts)
    # Sockets were told to come back; none was cut.
    assert set(traffic.close_codes) == {RESTART}, traffic.close_codes
