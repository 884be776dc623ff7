from typing import Any

from core.models import Generation
from tests.graphql_client import Client

GENERATE = "mutation ($input: GenerateInput!) { generate(input: $input) { ... on Generation { id } } }"
LIST = """
query ($first: Int!, $after: String) {
  generations(first: $first, after: $after) {
    edges { cursor node { id prompt images { url } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


async def make(client: Client, count: int) -> None:
    for number in range(count):
        await client.data(GENERATE, input={"prompt": f"house {number}"})


def prompts(page: dict[str, Any]) -> list[str]:
    return [edge["node"]["prompt"] for edge in page["edges"]]


async def test_pages_follow_one_another_newest_first_and_stay_true_as_rows_come(premium: Client) -> None:
    await make(premium, 5)
    first = (await premium.data(LIST, first=2))["generations"]
    assert prompts(first) == ["house 4", "house 3"]
    assert first["pageInfo"]["hasNextPage"]
    await premium.data(GENERATE, input={"prompt": "a late one"})
    second = (await premium.data(LIST, first=2, after=first["pageInfo"]["endCursor"]))["generations"]
    assert prompts(second) == ["house 2", "house 1"]
    third = (await premium.data(LIST, first=2, after=second["pageInfo"]["endCursor"]))["generations"]
    assert prompts(third) == ["house 0"]
    assert third["pageInfo"]["hasNextPage"] is False


async def test_rows_of_the_same_moment_are_neither_lost_nor_repeated(premium: Client) -> None:
    await make(premium, 4)
    await Generation.all().update(created_at=(await Generation.first()).created_at)  # type: ignore[union-attr] # there are four
    seen: list[str] = []
    after = None
    for _ in range(4):
        page = (await premium.data(LIST, first=1, after=after))["generations"]
        seen += prompts(page)
        after = page["pageInfo"]["endCursor"]
    assert sorted(seen) == ["house 0", "house 1", "house 2", "house 3"]


async def test_an_account_lists_only_its_own(premium: Client, normal: Client) -> None:
    await make(premium, 1)
    assert (await normal.data(LIST, first=10))["generations"]["edges"] == []


async def test_a_page_size_or_cursor_that_is_wrong_is_a_clear_error(premium: Client) -> None:
    for variables, field in (
        ({"first": 0}, "first"),
        ({"first": 101}, "first"),
        ({"first": 1, "after": "x"}, "after"),
    ):
        answer = await premium.execute(LIST, **variables)
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
        assert field in answer["errors"][0]["message"]
