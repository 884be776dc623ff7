"""Whose address limits are counted for."""

import json
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from api.addresses import client_address
from api.settings import HttpSettings
from core.errors import ConfigurationError
from core.settings import LimitSettings, read
from tests.graphql_client import Client

ATTEMPT = 'mutation { signin(input: { email: "%s@example.org", password: "guess" }) { __typename } }'


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(signin_attempts_per_minute=2)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("x" * 1000, "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_counts_by_what_a_customer_cannot_change(host: str, expected: str) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": [], "client": (host, 1)}
    assert client_address(HTTPConnection(scope)) == expected


def test_without_a_peer_there_is_one_address_for_all() -> None:
    assert client_address(HTTPConnection({"type": "http", "headers": []})) == "unknown"


async def attempt(client: Client, number: int, **headers: str) -> str:
    """Another account each time, so that only the address is counted."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"query": ATTEMPT % f"{number}"}
    answer = await client.http.post("/graphql", json=body, headers=sent)
    kind: str = answer.json()["data"]["signin"]["__typename"]
    return kind


async def test_what_a_stranger_writes_into_the_header_is_not_believed(client: Client) -> None:
    kinds = [await attempt(client, n, X_Forwarded_For=f"192.0.2.{n}") for n in range(3)]
    assert kinds == ["InvalidCredentials", "InvalidCredentials", "RateLimited"]


class TestBehindProxies:
    @pytest.fixture
    def http_settings(self) -> HttpSettings:
        return HttpSettings(shutdown_seconds=1, trusted_proxies=("127.0.0.1", "10.0.0.0/8"))

    async def test_each_client_has_its_own_allowance(self, client: Client) -> None:
        for place, address in enumerate(("192.0.2.1", "192.0.2.2, 10.1.1.1", "[2001:db8::1]:443")):
            kinds = [await attempt(client, 10 * place + n, X_Forwarded_For=address) for n in range(2)]
            assert kinds == ["InvalidCredentials"] * 2
        assert await attempt(client, 99, X_Forwarded_For="192.0.2.1:5123") == "RateLimited"

    async def test_what_a_client_wrote_before_the_proxies_changes_nothing(self, client: Client) -> None:
        headers = [f"198.51.100.{n}, 10.0.0.{n}, 192.0.2.9, 10.1.1.{n}" for n in range(3)]
        kinds = [await attempt(client, n, X_Forwarded_For=value) for n, value in enumerate(headers)]
        assert kinds == ["InvalidCredentials", "InvalidCredentials", "RateLimited"]

    async def test_the_addresses_of_one_ipv6_network_are_one(self, client: Client) -> None:
        kinds = [await attempt(client, n, X_Forwarded_For=f"2001:db8:1:2::{n}") for n in range(3)]
        assert kinds == ["InvalidCredentials", "InvalidCredentials", "RateLimited"]
        assert await attempt(client, 9, X_Forwarded_For="2001:db8:1:3::1") == "InvalidCredentials"

    async def test_a_websocket_counts_for_the_same_address(self, premium: Client) -> None:
        headers = {"X-Forwarded-For": "192.0.2.50"}
        kinds = [await attempt(premium, n, **headers) for n in range(2)]
        assert kinds == ["InvalidCredentials"] * 2
        async with connect(
            f"ws://127.0.0.1:{premium.port}/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=headers,
        ) as socket:
            payload: dict[str, Any] = {"authorization": f"Bearer {premium.token}"}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            await socket.recv()
            payload = {"query": ATTEMPT % "x"}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            answer = json.loads(await socket.recv())
        assert answer["payload"]["data"]["signin"]["__typename"] == "RateLimited"


@pytest.mark.parametrize("value", ['["ingress"]', '["10.0.0.1/8"]', '["10.0.0.0/99"]', '["*"]'])
def test_a_proxy_that_is_no_network_ends_the_process(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TRUSTED_PROXIES", value)
    with pytest.raises(ConfigurationError, match="DARKROOM_TRUSTED_PROXIES"):
        read(HttpSettings)
