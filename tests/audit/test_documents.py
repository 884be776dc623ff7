"""Documents that ask for too much are refused before anything of them is done, fast, over both transports."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from graphql import get_introspection_query
from websockets.asyncio.client import ClientConnection

from tests.audit.documents import REFUSED, suggestions
from tests.audit.promptness import MOST_SECONDS, median_of
from tests.audit.report import Report
from tests.audit.target import GRAPHQL_JSON, Target, receive

MOST_GROWTH = 48 * 2**20
"""Bytes by which the process may grow under all documents, many times each: its caches' and allocator's."""

_numbers = itertools.count()


def another(document: str) -> str:
    """The document as a text of its own."""
    return f"# {next(_numbers)}\n{document}"


async def over_http(http: httpx.AsyncClient, document: str) -> list[dict[str, Any]]:
    """The errors with which a document is refused."""
    answer = await http.post("/graphql", json={"query": document}, headers={"Accept": GRAPHQL_JSON})
    assert answer.status_code == 400, (answer.status_code, answer.text[:300])
    body = answer.json()
    assert set(body) <= {"errors", "extensions"}
    errors: list[dict[str, Any]] = body["errors"]
    return errors


async def over_socket(socket: ClientConnection, document: str) -> list[dict[str, Any]]:
    """The errors with which a document is refused, on a socket that stays open."""
    name = str(next(_numbers))
    await socket.send(json.dumps({"type": "subscribe", "id": name, "payload": {"query": document}}))
    message = await receive(socket)
    assert (message["type"], message["id"]) == ("error", name), str(message)[:300]
    errors: list[dict[str, Any]] = message["payload"]
    return errors


def assert_refusal(errors: list[dict[str, Any]]) -> None:
    """It says why, and is short; nothing ran, so nothing has a path."""
    assert errors
    assert all(error["message"] and "path" not in error for error in errors)
    codes = {error.get("extensions", {}).get("code") for error in errors}
    assert "INTERNAL" not in codes
    assert len(json.dumps(errors)) < 128 * 1024
    assert "Traceback" not in json.dumps(errors)


@pytest.fixture
async def bystander(target: Target) -> AsyncIterator[None]:
    """Somebody who is served all the time while a test attacks."""
    stop = asyncio.Event()

    async def ask() -> int:
        asked = 0
        async with target.http() as http:
            while not stop.is_set():
                live = await http.get("/health/live", timeout=5)
                query = await http.post("/graphql", json={"query": "{ models { id } }"}, timeout=5)
                assert (live.status_code, query.status_code) == (200, 200)
                asked += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.05)
        return asked

    asking = asyncio.create_task(ask())
    yield
    stop.set()
    assert await asking > 0


@pytest.mark.parametrize("name", REFUSED)
async def test_over_http_it_is_refused_within_100_ms(
    target: Target, name: str, calm: None, report: Report
) -> None:
    async with target.http() as http:
        median, errors = await median_of(lambda: over_http(http, another(REFUSED[name])))
    assert_refusal(errors)
    report.add(name, "HTTP", 400, seconds=median, verdict=_verdict(errors))
    assert median <= MOST_SECONDS


@pytest.mark.parametrize("name", REFUSED)
async def test_over_the_websocket_it_is_refused_within_100_ms(
    target: Target, name: str, calm: None, report: Report
) -> None:
    async with target.socket(target.normal) as socket:
        median, errors = await median_of(lambda: over_socket(socket, another(REFUSED[name])))
    assert_refusal(errors)
    report.add(name, "WebSocket", "error", seconds=median, verdict=_verdict(errors))
    assert median <= MOST_SECONDS


def _verdict(errors: list[dict[str, Any]]) -> str:
    extensions = errors[0].get("extensions", {})
    reason = extensions.get("limit") or extensions.get("code") or errors[0]["message"]
    return f"refused: {reason}"[:60]


async def test_memory_stays_flat_under_all_of_them_while_others_are_served(
    target: Target, calm: None, bystander: None, report: Report
) -> None:
    async with target.http() as http, target.socket(target.normal) as socket:

        async def attack(rounds: int) -> None:
            for _ in range(rounds):
                for document in REFUSED.values():
                    await over_http(http, another(document))
                    await over_socket(socket, another(document))

        await attack(1)
        before = target.memory()
        await attack(3)
        growth = target.memory() - before
    report.add("all of these documents", "both", f"{growth / 2**20:+.1f} MiB", verdict="memory flat")
    assert growth < MOST_GROWTH


@pytest.mark.timeout(300)
async def test_caches_of_documents_do_not_fill_the_memory(target: Target, calm: None, report: Report) -> None:
    """Few words in much text, and many words, each within every limit and twice, as if it were in use."""
    words = " ".join("... on Query { __typename @include(if: true) }" for _ in range(19))
    comment = "#" + "x" * 240_000
    before = target.memory()
    async with target.http() as http:
        for number in range(200):
            for document in (f"{comment}{number}\n{{ __typename }}", f"query q{number} {{ {words} }}"):
                for _ in range(2):
                    answer = await http.post("/graphql", json={"query": document})
                    assert answer.json()["data"] == {"__typename": "Query"}
    growth = target.memory() - before
    report.add("documents to fill a cache", "HTTP", f"{growth / 2**20:+.1f} MiB", verdict="memory flat")
    assert growth < MOST_GROWTH


@pytest.mark.parametrize("document", suggestions())
async def test_no_name_is_suggested(target: Target, calm: None, document: str) -> None:
    async with target.http() as http, target.socket(target.normal) as socket:
        for errors in (await over_http(http, document), await over_socket(socket, document)):
            assert "id you mean" not in json.dumps(errors)
            assert_refusal(errors)


async def test_the_schema_is_told_to_whoever_asks(target: Target, report: Report) -> None:
    """Decision 0020: it is public in the repository, so that hiding it would protect nothing."""
    async with target.http() as http:
        answer = await http.post("/graphql", json={"query": get_introspection_query()})
    assert answer.json()["data"]["__schema"]["queryType"]["name"] == "Query"
    report.add("introspection", "HTTP", 200, verdict="answered: the schema is public")


async def test_no_answer_brings_traces_or_debugging(target: Target, report: Report) -> None:
    async with target.http() as http:
        for query in ("{ __typename }", "{ boom }", "{"):
            body = {"query": query, "extensions": {"tracing": True}, "debug": True}
            headers = {"X-Apollo-Tracing": "1", "Apollo-Federation-Include-Trace": "ftv1"}
            answer = await http.post("/graphql?debug=1", json=body, headers=headers)
            told = answer.json()
            assert not {"tracing", "ftv1", "debug"} & set(told.get("extensions", {}))
            for error in told.get("errors", []):
                assert not {"exception", "stacktrace", "debugMessage", "traceback"} & set(
                    {**error, **error.get("extensions", {})}
                )
    report.add("tracing and debug mode", "HTTP", 200, verdict="nothing of the kind in answers")
