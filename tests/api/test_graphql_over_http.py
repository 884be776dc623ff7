"""GraphQL over HTTP, https://graphql.github.io/graphql-over-http/draft/."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.graphql_client import Client

GRAPHQL_JSON = "application/graphql-response+json"
FRONTEND = Path(__file__).parents[2] / "api" / "frontend"


async def post(client: Client, body: Any, *, accept: str = GRAPHQL_JSON) -> httpx.Response:
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return await client.http.post(
        "/graphql", content=content, headers={"content-type": "application/json", "accept": accept}
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{ "not JSON', "Unable to parse request body as JSON"),
        ("", "Unable to parse request body as JSON"),
        ("[" * 100_000, "Unable to parse request body as JSON"),
        (b'{"query": "\xff"}', "Unable to parse request body as JSON"),
        ('{"variables": {"n": ' + "1" * 5000 + "}}", "Unable to parse request body as JSON"),
        ([{"query": "{ __typename }"}], "has to be a JSON object"),
        ("0", "has to be a JSON object"),
        ({"no": "query"}, "No GraphQL query found"),
        ({"query": 1}, "`query` must be a string"),
        ({"query": "{ __typename }", "variables": [1]}, "`variables` must be an object"),
        ({"query": "{ __typename }", "operationName": 1}, "`operationName` must be a string"),
        ({"query": "{ __typename }", "extensions": 1}, "`extensions` must be an object"),
        ({"query": "query A { __typename }", "operationName": "B"}, "B"),
    ],
    ids=str,
)
@pytest.mark.parametrize("accept", [GRAPHQL_JSON, "application/json"])
async def test_an_unreadable_request_is_answered_with_400_and_the_reason(
    client: Client, body: Any, reason: str, accept: str
) -> None:
    answer = await post(client, body, accept=accept)
    assert answer.status_code == 400
    assert answer.headers["content-type"].partition(";")[0] == accept
    [error] = answer.json()["errors"]
    assert reason in error["message"]
    assert error["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    "body",
    [
        {"query": "{"},
        {"query": "{ there is no such field }"},
        {"query": "query ($id: ID!) { generation(id: $id) { id } }", "variables": {"id": None}},
        {"query": "{ generations(first: " + "9" * 5000 + ") { edges { cursor } } }"},
        {"query": "query A { __typename } query B { __typename }"},
    ],
    ids=["syntax", "validation", "variables", "digits", "operations"],
)
async def test_what_nothing_was_done_for_has_no_data_and_400_in_the_protocols_own_media_type(
    client: Client, body: dict[str, Any]
) -> None:
    strict, plain = await post(client, body), await post(client, body, accept="application/json")
    assert (strict.status_code, plain.status_code) == (400, 200)
    assert strict.json() == plain.json()
    assert set(strict.json()) - {"extensions"} == {"errors"}
    assert strict.headers["content-type"] == f"{GRAPHQL_JSON}; charset=utf-8"


async def test_a_field_that_failed_leaves_status_and_data_as_they_are(client: Client) -> None:
    answer = await post(client, {"query": "{ __typename generation(id: 1) { id } }"})
    assert answer.status_code == 200
    body = answer.json()
    assert "data" in body
    assert body["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_media_type_that_there_is_not_is_answered_with_406(client: Client) -> None:
    answer = await post(client, {"query": "{ __typename }"}, accept="image/png")
    assert answer.status_code == 406
    assert GRAPHQL_JSON in answer.json()["errors"][0]["message"]


async def test_queries_and_mutations_are_not_taken_from_an_address(client: Client) -> None:
    for query in ("{ __typename }", "mutation { __typename }"):
        answer = await client.http.get("/graphql", params={"query": query}, headers={"accept": GRAPHQL_JSON})
        assert answer.status_code == 405
