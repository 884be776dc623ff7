import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.media_types import preferred

OFFERED = ("application/json", "application/graphql-response+json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        ("application/graphql-response+json", "application/graphql-response+json"),
        ("application/graphql-response+json; charset=utf-8, application/json; q=0.9", OFFERED[1]),
        ("application/json;q=0.5, application/graphql-response+json;q=0.4", OFFERED[0]),
        ("APPLICATION/GraphQL-Response+JSON", "application/graphql-response+json"),
        ("application/json;q=0, */*", "application/graphql-response+json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;q=high", None),
    ],
)
def test_the_best_liked_type_is_chosen(accept: str | None, expected: str | None) -> None:
    assert preferred(accept, OFFERED) == expected


@given(st.text())
def test_whatever_is_sent_gives_an_offered_type_or_none(accept: str) -> None:
    assert preferred(accept, OFFERED) in (*OFFERED, None)
