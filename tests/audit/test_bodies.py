"""Requests that are no GraphQL request, or try to be more than one."""

import asyncio
import gzip
import json
from typing import Any, Final

import pytest

from tests.audit.promptness import MOST_SECONDS, median_of
from tests.audit.report import Report
from tests.audit.target import GRAPHQL_JSON, Target

JSON: Final = {"Content-Type": "application/json", "Accept": GRAPHQL_JSON}
HARMLESS: Final = {"query": "{ __typename }"}


def _json(**body: Any) -> bytes:
    return json.dumps(body).encode()


def _with_variables(variables: str) -> bytes:
    return (
        b'{"query": "query ($v: ID!) { node(id: $v) { id } }", "variables": {"v": '
        + variables.encode()
        + b"}}"
    )


REFUSED: Final[dict[str, tuple[bytes, dict[str, str], int]]] = {
    "array batch": (json.dumps([HARMLESS] * 50).encode(), JSON, 400),
    "array batch of one": (json.dumps([HARMLESS]).encode(), JSON, 400),
    "array batch of mutations": (
        json.dumps([{"query": "mutation { signout { message } }"}] * 9).encode(),
        JSON,
        400,
    ),
    "form post, urlencoded": (
        b"query=%7B+__typename+%7D",
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
    ),
    "form post, multipart": (
        (
            b'--x\r\nContent-Disposition: form-data; name="operations"\r\n\r\n{"query": "{ __typename }"}\r\n'
            b'--x\r\nContent-Disposition: form-data; name="map"\r\n\r\n{}\r\n--x--\r\n'
        ),
        {"Content-Type": "multipart/form-data; boundary=x"},
        415,
    ),
    "form post, plain text": (_json(**HARMLESS), {"Content-Type": "text/plain"}, 415),
    "body without a type": (_json(**HARMLESS), {}, 415),
    "gzip bomb": (gzip.compress(b" " * 50_000_000), {**JSON, "Content-Encoding": "gzip"}, 400),
    "body beyond the limit": (b" " * 262_145, JSON, 413),
    "NaN": (_with_variables("NaN"), JSON, 400),
    "Infinity": (_with_variables("-Infinity"), JSON, 400),
    "integer of 100,000 digits": (_with_variables("9" * 100_000), JSON, 400),
    "deep variables": (_with_variables("[" * 100_000 + "]" * 100_000), JSON, 400),
    "deep variables, objects": (_with_variables('{"a":' * 30_000 + "1" + "}" * 30_000), JSON, 400),
    "deep variables, readable": (_with_variables("[" * 500 + "]" * 500), JSON, 400),
    "list of 50,000 for a scalar": (_with_variables("[" + "1," * 50_000 + "1]"), JSON, 400),
    "half a surrogate pair": (_with_variables('"\\ud800"'), JSON, 400),
    "not UTF-8": (b'{"query": "\xff\xfe"}', JSON, 400),
    "UTF-16": ('{"query": "{ boom }"}'.encode("utf-16"), JSON, 400),
    "unended JSON": (b'{"query": "' + b"a" * 200_000, JSON, 400),
    "a number": (b"1e400", JSON, 400),
    "subscription by POST": (_json(query="subscription { generationStatus(id: 1) { state } }"), JSON, 400),
    "persisted query that is unknown": (
        _json(extensions={"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}),
        JSON,
        400,
    ),
    "operation there is not": (_json(**HARMLESS, operationName="A" * 100_000), JSON, 400),
    "wrong types of all parts": (
        _json(query={"a": 1}, variables=[1], operationName=[], extensions="x"),
        JSON,
        400,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_within_100_ms(target: Target, name: str, calm: None, report: Report) -> None:
    body, headers, status = REFUSED[name]
    before = target.memory()
    async with target.http() as http:
        median, answer = await median_of(lambda: http.post("/graphql", content=body, headers=headers))
    assert answer.status_code == status, answer.text[:300]
    assert "data" not in answer.json()
    assert len(answer.content) < len(body) + 1024
    report.add(name, "HTTP", answer.status_code, seconds=median, verdict="refused")
    assert median <= MOST_SECONDS
    # A bomb of 50 MB that was let off would show.
    assert target.memory() - before < 24 * 2**20


@pytest.mark.parametrize(
    "query", ["{ __typename }", "mutation { signout { message } }", "subscription { a }"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
async def test_nothing_but_post_executes(
    target: Target, query: str, method: str, calm: None, report: Report
) -> None:
    async with target.http() as http:
        answer = await http.request(
            method,
            "/graphql",
            params={"query": query},
            headers={**target.premium.headers, "Accept": GRAPHQL_JSON, "X-HTTP-Method-Override": "POST"},
        )
        assert 400 <= answer.status_code < 500
        assert "data" not in answer.text
        # The session that the mutation would have ended goes on.
        me = await http.post("/graphql", json={"query": "{ me { id } }"}, headers=target.premium.headers)
    assert me.json()["data"]["me"]
    report.add(
        f"{method} of a {query.split(maxsplit=1)[0].strip('{') or 'query'}",
        "HTTP",
        answer.status_code,
        verdict="refused",
    )


async def test_a_name_that_stands_twice_in_json_is_read_once(
    target: Target, calm: None, report: Report
) -> None:
    body = b'{"query": "{ models { id } }", "query": "{ __typename }", "query": "{ __typename }"}'
    async with target.http() as http:
        answer = await http.post("/graphql", content=body, headers=JSON)
    assert answer.json()["data"] == {"__typename": "Query"}
    report.add("duplicate keys in JSON", "HTTP", 200, verdict="the last counts, once")


async def test_pages_of_other_origins_get_nothing(target: Target, calm: None, report: Report) -> None:
    origin = {"Origin": "https://evil.example"}
    async with target.http() as http:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        preflight = await http.options("/graphql", headers={**origin, **asked})
        posted = await http.post("/graphql", json=HARMLESS, headers=origin)
    for answer in (preflight, posted):
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    report.add("request from another origin", "HTTP", preflight.status_code, verdict="no CORS headers")


@pytest.mark.parametrize(
    "value",
    ["a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\x00b", "é" * 10, "a b", "../../etc/passwd", "x" * 65, ""],
)
async def test_a_request_id_cannot_carry_anything_else(
    target: Target, value: str, calm: None, report: Report
) -> None:
    """Over a plain connection, since no client would send such a header."""
    since = target.log.stat().st_size
    raw = f"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: {value}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(raw.encode("latin-1"))
    head = (await reader.read()).decode("latin-1").partition("\r\n\r\n")[0]
    writer.close()
    names = [line.partition(":")[0].lower() for line in head.splitlines()[1:]]
    assert "x-injected" not in names
    assert names.count("x-request-id") <= 1
    told = [
        line.partition(":")[2].strip()
        for line in head.splitlines()
        if line.lower().startswith("x-request-id")
    ]
    assert all(one.isascii() and 1 <= len(one) <= 64 for one in told)
    for line in target.logged(since=since).splitlines():
        assert json.loads(line)["level"] in ("info", "warning")
    report.add(
        f"request id {value[:20]!r}", "HTTP", head.split()[1] if head else "closed", verdict="not passed on"
    )
