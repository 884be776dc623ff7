import asyncio
import json
from typing import Any

import pytest
from graphql import GraphQLList, GraphQLNonNull, GraphQLObjectType, get_named_type, is_composite_type, parse
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from core.generations import MAX_PAGE
from core.settings import DocumentSettings
from schema.cost import price_list
from schema.documents import Document, Documents
from schema.schema import build_schema
from tests.graphql_client import Client

SCHEMA = build_schema(DocumentSettings())._schema
DOCUMENTS = Documents(DocumentSettings(), schema=SCHEMA, prices=price_list(SCHEMA))
PAGE = "query ($n: Int! = 7) { generations(first: $n) { edges { node { id images { url } } } } }"


def cost(document: str, name: str | None = None, **variables: Any) -> int:
    return DOCUMENTS.cost(Document(parse(document)), name, variables)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{ __typename }", 0),
        ("{ me { email tier } }", 1),
        ("{ me { usage { openGenerations } } }", 2),
        ("{ a: me { id } b: me { id } }", 2),
        ("{ models { id limits { maxSize } } }", 10 * (1 + 1)),
        ("{ service { workers { device models } } }", 1 + 10),
        ("{ generation(id: 1) { queuePosition images { url } } }", 1 + 1 + 4),
        ("{ generations { edges { cursor } } }", 1 + 20),
        ("{ generations(first: 50) { pageInfo { endCursor } edges { node { images { url } } } } }", 302),
        (
            "{ generations(first: 2) { ...p } } fragment p on GenerationConnection { edges { cursor } }",
            3,
        ),
        ("{ generations(first: 2) { ... on GenerationConnection { edges { cursor } } } }", 3),
        ("mutation { signout { message } }", 10),
        ('mutation { signin(input: {email: "a", password: "b"}) { ... on UserError { message } } }', 50),
        ("mutation { generate(input: {}) { ... on InvalidInput { fields { message } } } }", 10 + 10),
        ("subscription { generationStatus(id: 1) { generation { id } } }", 11),
        ("{ __schema { types { fields { name } } } }", 500),
        ("query A { me { id } } query B { models { id } }", 1),
    ],
)
def test_an_operation_costs_what_its_fields_weigh(document: str, expected: int) -> None:
    assert cost(document) == expected


def test_a_named_operation_is_priced_alone() -> None:
    assert cost("query A { me { id } } query B { models { id } }", "B") == 10


@pytest.mark.parametrize(
    ("variables", "size"),
    [({"n": 3}, 3), ({}, 7), ({"n": 0}, 0)]
    + [({"n": n}, MAX_PAGE) for n in (None, -1, 10**9, "5", True, [1], 1.5)],
)
def test_a_page_costs_as_much_as_it_asks_for_and_what_is_no_size_costs_most(
    variables: dict[str, Any], size: int
) -> None:
    assert cost(PAGE, **variables) == 1 + size * (1 + 1 + 4)


@pytest.mark.parametrize("literal", ["-1", "101", "9" * 5000, "null", '"5"', "1.5"])
def test_a_literal_that_is_no_size_costs_most(literal: str) -> None:
    assert cost(f"{{ generations(first: {literal}) {{ edges {{ cursor }} }} }}") == 1 + MAX_PAGE


@settings(deadline=None, max_examples=20)
@given(st.lists(st.one_of(st.none(), st.integers(-5, 300)), min_size=200, max_size=200))
def test_the_remembered_cost_is_the_cost(sizes: list[int | None]) -> None:
    document = Document(parse(PAGE))
    for size in sizes:
        variables: dict[str, Any] = {} if size is None else {"n": size}
        assert DOCUMENTS.cost(document, None, variables) == cost(PAGE, **variables)
    assert len(document.costs[None]._known) <= 128


def test_fragments_that_double_are_priced_once_each() -> None:
    fragments = " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(200))
    assert cost(f"{{ ...f0 }} {fragments} fragment f200 on Query {{ me {{ id }} }}") == 2**200


def test_every_list_of_objects_says_how_long_it_is_taken_to_be() -> None:
    """A list that says nothing would count as a whole page, and an argument for a page size not at all."""
    unsaid = []
    for kind in SCHEMA.type_map.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__"):
            continue
        for name, field in kind.fields.items():
            bare = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
            said = price_list(SCHEMA)[kind.name][name]
            is_list = isinstance(bare, GraphQLList) and is_composite_type(get_named_type(bare))
            if (is_list and said.size == MAX_PAGE and kind.name != "GenerationConnection") or (
                {"first", "last", "limit"} & set(field.args) and said.argument is None
            ):
                unsaid.append(f"{kind.name}.{name}")
    assert unsaid == []


async def test_what_costs_too_much_is_refused_before_it_is_done(client: Client) -> None:
    attempt = 'signin(input: { email: "a@example.org", password: "guess" }) { __typename }'
    document = "mutation { " + " ".join(f"a{number}: {attempt}" for number in range(21)) + " }"
    answer = await client.execute(document)
    [error] = answer["errors"]
    assert (
        error["message"] == "The operation is too expensive: its cost is 1050, and at most 1000 is allowed."
    )
    assert error["extensions"] == {"code": "COST_LIMIT_EXCEEDED", "cost": 1050, "max": 1000}
    assert answer["extensions"] == {"cost": {"requested": 1050, "max": 1000}}
    assert answer.get("data") is None


async def test_the_largest_page_of_everything_is_within_the_limit(premium: Client) -> None:
    document = """{ generations(first: 100) { pageInfo { endCursor } edges { cursor node {
        id prompt queuePosition estimatedFinishAt error { message } images { url sha256 } } } } }"""
    answer = await premium.execute(document)
    assert "errors" not in answer
    assert 500 < answer["extensions"]["cost"]["requested"] <= 1000


async def test_every_answer_tells_its_cost_over_http_and_over_the_websocket(premium: Client) -> None:
    cost = {"requested": 1, "max": 1000}
    assert (await premium.execute("{ me { email } }"))["extensions"] == {"cost": cost}
    async with connect(
        f"ws://127.0.0.1:{premium.port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]
    ) as socket:
        payload = {"authorization": f"Bearer {premium.token}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": "{ me { id } }"}}))
        async with asyncio.timeout(5):
            answer = json.loads(await socket.recv())
    assert (answer["type"], answer["payload"]["extensions"]) == ("next", {"cost": cost})
