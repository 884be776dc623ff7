import json
import re
import time

import httpx
import pytest
from graphql import get_introspection_query, parse
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from core.settings import DocumentSettings
from schema.document_limits import Measure, measure
from tests.graphql_client import Client

BOMB = "query { ...f0 } " + " ".join(
    f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60)
)
BOMB += " fragment f60 on Query { service { now } }"

TOO_LARGE = {
    "depth": "{ " + "me { usage { " * 9 + "x" + " } }" * 9 + " }",
    "fields": "{ ...a ...a ...a } fragment a on Query { "
    + " ".join(f"generation(id: {n}) {{ ...b }}" for n in range(19))
    + " } fragment b on Generation { id state seed steps width height count model prompt tier delivery }",
    "aliases": "{ " + " ".join(f"a{n}: __typename" for n in range(31)) + " }",
    "directives": "{ __typename " + "@include(if: true) " * 31 + "}",
    "repeats": "{ " + "__typename " * 21 + "}",
}


def measured(document: str) -> Measure:
    return measure(parse(document))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{ a }", Measure(depth=1, fields=1, repeats=1)),
        ("{ a { b { c } } d }", Measure(depth=3, fields=4, repeats=1)),
        ("{ x: a y: a a a }", Measure(depth=1, fields=4, aliases=2, repeats=2)),
        ("query ($v: Int @one) @two { a @three }", Measure(depth=1, fields=1, directives=3, repeats=1)),
        ("{ ... on Query @one { a { b } } a { c } }", Measure(2, 4, 0, 1, 2)),
        ("{ ...f ...f } fragment f on Query @one { x: a { b } }", Measure(2, 4, 2, 2, 2)),
        ("{ a { ...f } b { ...f } } fragment f on A { c c }", Measure(2, 6, 0, 0, 2)),
        ("{ a } fragment f on Query { a { b } }", Measure(depth=2, fields=2, repeats=1)),
        ("query A { a } query B { a b c }", Measure(depth=1, fields=3, repeats=1)),
        ("{ ...f } fragment f on Query { a ...f }", Measure(depth=1, fields=1, repeats=1)),
        ("{ ...missing a }", Measure(depth=1, fields=1, repeats=1)),
    ],
)
def test_a_document_is_measured_by_what_it_expands_to(document: str, expected: Measure) -> None:
    assert measured(document) == expected


@given(st.integers(1, 60), st.integers(1, 3))
def test_fragments_multiply(levels: int, spreads: int) -> None:
    fragments = " ".join(f"fragment f{n} on Query {{ {f'...f{n + 1} ' * spreads} }}" for n in range(levels))
    found = measured(f"{{ ...f0 }} {fragments} fragment f{levels} on Query {{ a }}")
    assert found == Measure(depth=1, fields=spreads**levels, repeats=spreads**levels)


@pytest.mark.parametrize("limit", TOO_LARGE)
async def test_what_is_beyond_one_limit_is_refused_by_that_limit(client: Client, limit: str) -> None:
    most = DocumentSettings().measures[limit]
    answer = await client.execute(TOO_LARGE[limit])
    assert answer.get("data") is None
    refusals = {error["extensions"]["limit"]: error for error in answer["errors"]}
    assert limit in refusals
    assert refusals[limit]["extensions"] == {"code": "DOCUMENT_TOO_LARGE", "limit": limit, "max": most}
    assert f"at most {most} are allowed" in refusals[limit]["message"]
    if limit != "fields":
        assert list(refusals) == [limit]


async def test_fragments_that_double_with_every_line_are_refused_at_once(client: Client) -> None:
    begun = time.monotonic()
    answer = await client.execute(BOMB)
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"DOCUMENT_TOO_LARGE"}
    # Expanded it would take longer than the universe has been there.
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "document",
    [
        "{ " + "me { " * 900 + "x" + " }" * 900 + " }",
        "{ " + "a " * 3000 + "}",
        "{ a(b: " + "[" * 900 + "]" * 900 + ") }",
    ],
    ids=["nested fields", "many tokens", "nested lists"],
)
async def test_what_a_parser_should_not_even_read_is_refused(client: Client, document: str) -> None:
    answer = await client.execute(document)
    [error] = answer["errors"]
    assert re.search("more than 1000 tokens|nested too deeply", error["message"])
    assert await client.data("{ __typename }") == {"__typename": "Query"}


async def test_the_introspection_that_tools_send_is_within_the_limits(client: Client) -> None:
    document = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )
    assert (await client.data(document))["__schema"]["queryType"]["name"] == "Query"


async def test_over_the_websocket_the_limits_are_the_same(premium: Client) -> None:
    async with connect(
        f"ws://127.0.0.1:{premium.port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]
    ) as socket:
        payload = {"authorization": f"Bearer {premium.token}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": BOMB}}))
        answer = json.loads(await socket.recv())
        assert (answer["type"], answer["id"]) == ("error", "1")
        assert {error["extensions"]["code"] for error in answer["payload"]} == {"DOCUMENT_TOO_LARGE"}


async def test_a_body_that_nests_without_end_is_a_bad_request(client: Client) -> None:
    body = '{"query": "{ __typename }", "variables": ' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = await client.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert json.dumps("Traceback") not in answer.text
