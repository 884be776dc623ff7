"""The one-machine stack, as ``make up`` starts it, with two api processes, and people who use it."""

import asyncio
import email
import email.policy
import itertools
import mailbox
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.websockets import WebsocketsTransport

from infra.observability.receiver import Receiver
from tests.graphql_client import NO_AUTHORITIES

REPOSITORY = Path(__file__).resolve().parents[1]
PASSWORD = "correct horse battery staple"
FLEET = "FLEET" in os.environ
"""Whether it is two api, two batcher and three gpu_worker processes on three brokers (`make fleet`)."""

READY_SECONDS = 200 if FLEET else 90
SMALL = {"width": 64, "height": 64}
"""The least that a picture takes of a processor, where it does not matter what it shows."""

_numbers = itertools.count(1)
SIGNIN = """
mutation ($email: String!, $password: String!) {
  signin(input: { email: $email, password: $password }) {
    __typename ... on Session { accessToken } ... on UserError { message }
  }
}
"""
WATCH = """
subscription ($id: ID!) {
  generationStatus(id: $id) {
    state step totalSteps fraction etaSeconds
    generation {
      state estimatedFinishAt error { message }
      images { url sha256 byteSize width height seed contentType }
    }
  }
}
"""


@dataclass(frozen=True)
class Stack:
    """A running stack: its state folder, its process, the addresses of its api processes, and its traces."""

    home: Path
    process: subprocess.Popen[bytes]
    urls: tuple[str, str]
    traces: Receiver
    _letters: dict[str, EmailMessage] = field(default_factory=dict)

    def pid(self, name: str) -> int:
        return int((self.home / "run" / f"{name}.pid").read_text())

    def darkroom(self, *words: str) -> str:
        """What the ``darkroom`` command prints for an operator of this stack."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("darkroom")), *words],
            env={**os.environ, "DARKROOM_HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    def letters(self, address: str, kind: str) -> list[EmailMessage]:
        """The letters of a kind to an address, oldest first."""
        box = mailbox.Maildir(self.home / "mail", create=False)
        # Those who wait ask for all of them again and again, and what was delivered stays as it is.
        for key in sorted(box.keys() - self._letters.keys()):
            letter = email.message_from_bytes(box.get_bytes(key), policy=email.policy.default)
            assert isinstance(letter, EmailMessage)
            self._letters[key] = letter
        mine = [
            letter
            for letter in self._letters.values()
            if (letter["To"], letter["X-Darkroom-Letter"]) == (address, kind)
        ]
        return sorted(mine, key=lambda letter: letter["Date"].datetime)

    async def letter(self, address: str, kind: str, *, after: int = 0, seconds: float = 20) -> EmailMessage:
        """The letter of a kind to an address that follows the first ``after`` of them, waited for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.letters(address, kind)
            if len(found) > after:
                return found[after]
            await asyncio.sleep(0.2)
        raise AssertionError(f"no {kind} letter to {address} in {seconds} s")

    async def new_customer(self) -> "Customer":
        """Somebody who signed up, followed the link in the letter, and signed in at the first api process."""
        customer = Customer(self.urls[0], f"customer{next(_numbers)}@example.org")
        document = """
        mutation ($email: String!, $password: String!) {
          signup(input: { email: $email, password: $password }) { __typename }
        }
        """
        answer = await customer.execute(document, email=customer.email, password=PASSWORD)
        assert answer["signup"]["__typename"] == "SignupAccepted"
        letter = await self.letter(customer.email, "verify_email")
        body = letter.get_body(("plain",))
        assert body is not None
        token = body.get_content().split("/verify?token=")[1].split()[0]
        document = "mutation ($token: String!) { verifyEmail(token: $token) { __typename } }"
        assert (await customer.execute(document, token=token))["verifyEmail"]["__typename"] == "Account"
        return await customer.sign_in()


@dataclass
class Customer:
    """Somebody who uses the API with the ``gql`` client."""

    url: str
    email: str
    token: str | None = None

    async def execute(self, document: str, **variables: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        transport = AIOHTTPTransport(url=f"{self.url}/graphql", headers=headers)
        async with Client(transport=transport) as session:
            request = GraphQLRequest(document, variable_values=variables)
            answer: dict[str, Any] = await session.execute(request)
            return answer

    async def sign_in(self, password: str = PASSWORD) -> "Customer":
        answer = await self.execute(SIGNIN, email=self.email, password=password)
        self.token = answer["signin"]["accessToken"]
        return self

    async def generate(self, **fields: Any) -> str:
        """An accepted generation's id."""
        document = """
        mutation ($input: GenerateInput!) {
          generate(input: $input) { __typename ... on Generation { id } ... on UserError { message } }
        }
        """
        result = (await self.execute(document, input=fields))["generate"]
        assert result["__typename"] == "Generation", result
        generation_id: str = result["id"]
        return generation_id

    async def next_window_at(self) -> datetime:
        answer = await self.execute("{ service { nextWindowAt } }")
        return datetime.fromisoformat(answer["service"]["nextWindowAt"])

    async def watch(self, generation_id: str) -> AsyncGenerator[dict[str, Any]]:
        """The events of a generation, to their end."""
        async for event in self.subscribe(WATCH, id=generation_id):
            yield event["generationStatus"]

    async def subscribe(self, document: str, **variables: Any) -> AsyncGenerator[dict[str, Any]]:
        """The answers of a subscription, to its end."""
        transport = WebsocketsTransport(
            url=f"{self.url.replace('http', 'ws', 1)}/graphql",
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
            init_payload={"authorization": f"Bearer {self.token}"},
        )
        async with Client(transport=transport) as session:
            request = GraphQLRequest(document, variable_values=variables)
            async for event in session.subscribe(request):
                yield event

    async def watch_to_end(self, generation_id: str) -> list[dict[str, Any]]:
        return [event async for event in self.watch(generation_id)]


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2, verify=NO_AUTHORITIES).status_code == 200
    except httpx.TransportError:
        return False


async def download(url: str) -> httpx.Response:
    """What a signed link gives."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
        return await client.get(url)


@pytest.fixture(scope="session")
def traces() -> Iterator[Receiver]:
    """Where the stack sends its traces."""
    with Receiver().serving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def stack(server_folder: Path, traces: Receiver) -> Iterator[Stack]:
    home = server_folder / "stack"
    home.mkdir()
    [port] = _free_ports(1)
    environment = {
        **os.environ,
        "DARKROOM_HOME": str(home),
        "DARKROOM_PORT": str(port),
        "DARKROOM_API_PROCESSES": "2",
        "DARKROOM_BATCHERS": "2" if FLEET else "1",
        "DARKROOM_GPU_WORKERS": "3" if FLEET else "1",
        "DARKROOM_BROKERS": "3" if FLEET else "1",
        "DARKROOM_WINDOW": "*/6 * * * * *",
        "DARKROOM_DEMO_PASSWORD": PASSWORD,
        "DARKROOM_BCRYPT_ROUNDS": "4",
        "DARKROOM_SIGNIN_ATTEMPTS_PER_MINUTE": "1000",
        "DARKROOM_SIGNUP_ATTEMPTS_PER_HOUR": "1000",
        "DARKROOM_TRACES_URL": traces.url,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    log = (home / "stack.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local"], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
    )
    try:
        urls = (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}")
        deadline = time.monotonic() + READY_SECONDS
        while not all(_is_ready(url) for url in urls):
            assert process.poll() is None, (home / "stack.log").read_text()
            assert time.monotonic() < deadline, (home / "stack.log").read_text()
            time.sleep(0.2)
        yield Stack(home=home, process=process, urls=urls, traces=traces)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, (home / "stack.log").read_text()
        log.close()
    # Each process had a user of its own at the broker, and nothing that it did was too much for it.
    refused = [line for path in (home / "logs").glob("*.log") for line in _refusals(path)]
    assert not refused, refused


def _refusals(log: Path) -> list[str]:
    """What the broker did not allow, as the processes and the broker itself say it."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if '"broker_refuses"' in line or "Violation" in line]
