"""Another's things, forged tokens, and paths that lead elsewhere."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core.accounts.tokens import AccessTokens
from core.clock import now
from core.lifecycle import GenerationState
from core.messages import StoredImage
from core.storage import Storage
from schema.types.node import to_global_id
from tests.audit.report import Report
from tests.audit.target import Customer, Target, receive, uuid_of

OPERATIONS = {
    "node": "query ($id: ID!) { node(id: $id) { id ... on Generation { prompt } } }",
    "generation": "query ($id: ID!) { generation(id: $id) { id prompt images { url } } }",
    "cancelGeneration": "mutation ($id: ID!) { "
    "cancelGeneration(id: $id) { __typename ... on UserError { message } } }",
    "generationStatus": "subscription ($id: ID!) { "
    "generationStatus(id: $id) { state generation { prompt } } }",
}
UNKNOWN = to_global_id("Generation", UUID(int=7))


async def over_http(target: Target, customer: Customer, query: str, **variables: Any) -> Any:
    async with target.http() as http:
        answer = await http.post(
            "/graphql", json={"query": query, "variables": variables}, headers=customer.headers
        )
    return answer.json()


async def over_socket(target: Target, customer: Customer, query: str, **variables: Any) -> Any:
    """The type and the payload of the first message that answers."""
    async with target.socket(customer) as socket:
        payload = {"query": query, "variables": variables}
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        message = await receive(socket)
    return message["type"], message.get("payload")


@pytest.mark.parametrize("field", OPERATIONS)
async def test_anothers_generation_answers_as_one_that_there_is_not(
    target: Target, field: str, calm: None, report: Report
) -> None:
    theirs = await target.generate(target.premium)
    for transport, ask in (("HTTP", over_http), ("WebSocket", over_socket)):
        if (field, transport) == ("generationStatus", "HTTP"):
            continue
        told = await ask(target, target.normal, OPERATIONS[field], id=theirs)
        unknown = await ask(target, target.normal, OPERATIONS[field], id=UNKNOWN)
        assert told == unknown
        assert "red house" not in json.dumps(told)
        report.add(f"IDOR through {field}", transport, "as unknown", verdict="not told apart")
    mine = await over_http(target, target.premium, OPERATIONS["generation"], id=theirs)
    assert mine["data"]["generation"]["prompt"] == "a red house"


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "\x00",
        "1",
        "' OR 1=1 --",
        "../../etc/passwd",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "A" * 10_000,
        "R2VuZXJhdGlvbjo=",
        base64.urlsafe_b64encode(b"Generation:1; DROP TABLE account").decode(),
        base64.urlsafe_b64encode(b"Account:" + b"\xff" * 16).decode(),
        base64.urlsafe_b64encode(b"Letter:00000000-0000-0000-0000-000000000007").decode(),
        "аdmin",  # noqa: RUF001 - a Cyrillic letter
    ],
)
async def test_what_is_no_id_is_unknown(target: Target, identifier: str, calm: None) -> None:
    for field in ("node", "generation"):
        answer = await over_http(target, target.normal, OPERATIONS[field], id=identifier)
        assert answer["data"] == {field: None}
        assert "errors" not in answer


async def test_another_account_is_not_found_by_its_id(target: Target, calm: None, report: Report) -> None:
    me = (await over_http(target, target.premium, "{ me { id } }"))["data"]["me"]["id"]
    query = "query ($id: ID!) { node(id: $id) { id ... on Account { email } } }"
    assert (await over_http(target, target.premium, query, id=me))["data"]["node"]["id"] == me
    assert (await over_http(target, target.normal, query, id=me))["data"] == {"node": None}
    report.add("IDOR of an account through node", "HTTP", 200, verdict="null")


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def _forgeries(target: Target) -> dict[str, str]:
    genuine = target.normal.token
    header, body, signature = genuine.split(".")
    claims = jwt.decode(genuine, options={"verify_signature": False})
    stolen = jwt.decode(target.premium.token, options={"verify_signature": False})
    signed_header = jwt.get_unverified_header(genuine)
    foreign = secrets.token_hex(32)
    secret = target.backing.tokens.jwt_secret.get_secret_value()
    confused = f"{_encoded({**signed_header, 'alg': 'HS384'})}.{body}"
    return {
        "alg none": f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "alg None, capitals": f"{_encoded({'alg': 'NoNe', 'typ': 'JWT'})}.{body}.{signature}",
        "no signature": f"{header}.{body}.",
        "tampered subject": f"{header}.{_encoded({**claims, 'sub': stolen['sub']})}.{signature}",
        "tampered expiry": f"{header}.{_encoded({**claims, 'exp': claims['exp'] + 999})}.{signature}",
        "foreign key": jwt.encode(claims, foreign, algorithm="HS256", headers=signed_header),
        "empty key": jwt.encode(claims, "\x00" * 32, algorithm="HS256", headers=signed_header),
        "key id that is a path": jwt.encode(
            claims, "\x00" * 32, algorithm="HS256", headers={"kid": "../../../../dev/null"}
        ),
        "key id that is SQL": jwt.encode(
            claims, foreign, algorithm="HS256", headers={"kid": "x' UNION SELECT 'k"}
        ),
        "key at another's address": jwt.encode(
            claims,
            foreign,
            algorithm="HS256",
            headers={"jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1"},
        ),
        "key in the token": jwt.encode(
            claims, foreign, algorithm="HS256", headers={"jwk": {"kty": "oct", "k": "AAAA"}}
        ),
        "other algorithm, our key": confused
        + "."
        + base64.urlsafe_b64encode(hmac.digest(secret.encode(), confused.encode(), hashlib.sha384))
        .decode()
        .rstrip("="),
        "huge": "A" * 20_000,
        "null bytes": f"{header}.{body}.\x00",
        "JSON": json.dumps(claims),
        "empty": "",
        "refresh token": target.normal.refresh_token,
    }


FORGERIES = (
    "alg none",
    "alg None, capitals",
    "no signature",
    "tampered subject",
    "tampered expiry",
    "foreign key",
    "empty key",
    "key id that is a path",
    "key id that is SQL",
    "key at another's address",
    "key in the token",
    "other algorithm, our key",
    "huge",
    "null bytes",
    "JSON",
    "empty",
    "refresh token",
)


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_is_nobodys(target: Target, name: str, calm: None, report: Report) -> None:
    token = _forgeries(target)[name]
    forger = Customer(email="", token=token, refresh_token="")
    if token and "\x00" not in token:
        answer = await over_http(target, forger, "{ me { email } generations { edges { cursor } } }")
        assert answer["data"] is None
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]
        report.add(f"JWT: {name}", "HTTP", 200, verdict="refused: UNAUTHENTICATED")
    async with target.socket() as socket:
        await socket.send(json.dumps(forger.init))
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 4403
    report.add(f"JWT: {name}", "WebSocket", 4403, verdict="refused")


@pytest.fixture
async def picture(target: Target) -> tuple[str, str]:
    """The path with which its owner downloads a picture, and the id of another's picture."""
    paths = []
    for customer in (target.normal, target.premium):
        generation_id = await target.generate(customer)
        key = f"generations/{uuid_of(generation_id)}/1/0.png"
        await Storage.open(target.backing.storage).put(key, b"picture", content_type="image/png")
        stored = StoredImage(
            key=key, width=8, height=8, seed=1, content_type="image/png", byte_size=7, sha256="0" * 64
        )
        async with target.recorder() as recorder:
            await recorder.finish(
                uuid_of(generation_id), GenerationState.SUCCEEDED, at=now(), images=[stored]
            )
        paths.append(generation_id)
    query = "query ($id: ID!) { generation(id: $id) { images { url } } }"
    answer = await over_http(target, target.premium, query, id=paths[1])
    url = urlsplit(answer["data"]["generation"]["images"][0]["url"])
    return f"{url.path}?{url.query}", paths[0]


async def test_a_link_is_good_for_its_own_picture_alone(
    target: Target, picture: tuple[str, str], calm: None, report: Report
) -> None:
    link, _ = picture
    path, query = link.split("?")
    values = {name: found[0] for name, found in parse_qs(query).items()}
    attacks = {
        "another picture": (f"/images/{UUID(int=9)}.png", values),
        "another extension": (path.replace(".png", ".webp"), values),
        "path after the id": (path.replace(".png", "/../../secrets.png"), values),
        "null byte": (path.replace(".png", ".png%00.html"), values),
        "later expiry": (path, {**values, "expires": str(int(values["expires"]) + 1)}),
        "expiry with a sign": (path, {**values, "expires": f"+{values['expires']}"}),
        "huge expiry": (path, {**values, "expires": "9" * 5000}),
        "no signature": (path, {**values, "signature": ""}),
        "signature in capitals": (path, {**values, "signature": values["signature"].upper()}),
        "signature not ASCII": (path, {**values, "signature": "é" * 64}),
        "two signatures": (f"{path}?signature=0", values),
    }
    async with target.http() as http:
        assert (await http.get(link)).content == b"picture"
        for name, (where, parameters) in attacks.items():
            answer = await http.get(where, params=parameters)
            if name in ("two signatures", "expiry with a sign"):
                assert answer.status_code in (200, 403, 422), (name, answer.text)
            else:
                assert answer.status_code in (403, 404, 422), (name, answer.text)
                assert answer.content != b"picture"
            report.add(f"download: {name}", "HTTP", answer.status_code, verdict="refused")
        for header in (
            "bytes=" + "9" * 5000 + "-",
            "bytes=0-" + "9" * 5000,
            "bytes=-" + "9" * 5000,
            "bytes=\u0660-\u0663",
        ):
            answer = await http.get(link, headers={b"Range": header.encode()})
            assert answer.status_code in (200, 206, 416)
            report.add(f"download: range {header[:12]}…", "HTTP", answer.status_code, verdict="harmless")


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../settings.py",
        "/assets/..%2f..%2fsettings.py",
        "/assets/%2e%2e/%2e%2e/settings.py",
        "/assets/....//....//settings.py",
        "/assets//etc/passwd",
        "/assets/%00",
        "/images/..%2f..%2f..%2fetc%2fpasswd",
        "/images/%2e%2e/%2e%2e/etc/passwd.png",
        "/../etc/passwd",
        "//evil.example/%2e%2e",
        "/inbox",
        "/openapi.json",
        "/docs",
        "/metrics",
        "/.env",
        "/graphql/",
    ],
)
async def test_a_path_leads_nowhere_else(target: Target, path: str, calm: None, report: Report) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    status = int(answer.split()[1])
    assert status in (307, 400, 403, 404, 405, 422), answer[:300]
    assert "root:" not in answer
    assert "import " not in answer
    if status == 307:
        location = next(line for line in answer.splitlines() if line.lower().startswith("location"))
        assert "evil.example" not in location
    report.add(f"path {path}", "HTTP", status, verdict="nothing there")


async def test_a_page_of_another_origin_cannot_open_a_socket(target: Target, report: Report) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        with pytest.raises(InvalidStatus) as refused:
            async with target.socket(origin=origin):
                pass
        assert refused.value.response.status_code == 403
    report.add("socket from another origin", "WebSocket", 403, verdict="refused")


async def test_prompts_and_secrets_do_not_reach_the_log(target: Target, calm: None, report: Report) -> None:
    since = target.log.stat().st_size
    marks = [secrets.token_hex(8) for _ in range(4)]
    signin = (
        "mutation ($e: String!, $p: String!) { signin(input: { email: $e, password: $p }) { __typename } }"
    )
    forged_line = '\n{"event": "forged", "level": "error"}\r\n'
    await target.generate(target.premium, prompt=f"{marks[0]} {forged_line}")
    generate = "mutation ($i: GenerateInput!) { generate(input: $i) { __typename } }"
    for answer in (
        await over_http(target, target.premium, generate, i={"prompt": marks[1], "width": 1}),
        await over_http(target, target.premium, generate, i={"prompt": {"no": marks[1]}}),
        await over_http(target, target.premium, f'{{ {marks[2]}(a: "{marks[2]}") }}'),
        await over_socket(target, target.premium, generate, i={"prompt": marks[1], "width": 1}),
        await over_http(target, target.premium, signin, e=f"{marks[3]}{forged_line}@example.org", p=marks[3]),
    ):
        assert answer
    async with target.http() as http:
        await http.get(f"/%0a%7B%22event%22:%22forged%22%7D/verify?token={marks[3]}")
    log = target.logged(since=since)
    assert not [mark for mark in marks if mark in log]
    assert all(json.loads(line)["event"] != "forged" for line in log.splitlines())
    report.add("prompts, passwords and forged lines in logs", "both", "", verdict="none")


@pytest.mark.parametrize(
    "address",
    [
        "prеmium@example.org",  # noqa: RUF001 - a Cyrillic letter is the point
        "premium@exаmple.org",  # noqa: RUF001 - as above
        "ｐremium@example.org",  # noqa: RUF001 - a fullwidth letter
        "premium@example.org\u200b",
        "premium\u00ad@example.org",
    ],
)
async def test_an_address_that_looks_alike_is_not_the_same(target: Target, address: str, calm: None) -> None:
    """Neither signing in nor a reset by it reaches the account."""
    signin = (
        "mutation ($e: String!) { signin(input: { email: $e, password: "
        '"correct horse battery staple" }) { __typename } }'
    )
    async with target.http(source="127.7.7.7") as http:
        answer = await http.post("/graphql", json={"query": signin, "variables": {"e": address}})
    assert answer.json()["data"]["signin"]["__typename"] == "InvalidCredentials"


async def test_an_expired_token_is_nobodys(target: Target, calm: None, report: Report) -> None:
    claims = jwt.decode(target.normal.token, options={"verify_signature": False})
    lifetime = timedelta(minutes=target.backing.tokens.access_token_minutes)
    token, _ = AccessTokens(target.backing.tokens).issue(
        account_id=UUID(claims["sub"]), session_id=UUID(claims["sid"]), now=now() - lifetime
    )
    late = Customer(email="", token=token, refresh_token="")
    answer = await over_http(target, late, "{ generations { edges { cursor } } }")
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    report.add("JWT: expired", "HTTP", 200, verdict="refused: UNAUTHENTICATED")
