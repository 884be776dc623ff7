"""Whatever stands in a document or its variables, the service answers, and blames nobody but the client."""

import json
from datetime import timedelta
from typing import Any

import pytest
from graphql import GraphQLObjectType, GraphQLSchema, build_schema, get_named_type, is_leaf_type
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_graphql import from_schema, nodes

from core.clock import now
from core.settings import LimitSettings
from schema.__main__ import SDL_PATH
from tests.audit.application import Application, application
from tests.audit.cases import ANYTHING, TEXTS, cases, values
from tests.conftest import NewAccount

__all__ = ["application"]

SCHEMA = build_schema(SDL_PATH.read_text())
WORDS = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ":",
    "$",
    "!",
    "...",
    "on",
    "=",
    "|",
    "&",
    "@include",
    "if",
    "true",
    "null",
]
WORDS += [
    "query",
    "mutation",
    "subscription",
    "fragment",
    "Query",
    "Mutation",
    "me",
    "node",
    "id",
    "generate",
    "input",
]
WORDS += [
    '"x"',
    '"""',
    "0",
    "-1",
    "1e9",
    "__typename",
    "__schema",
    "$v",
    "ID",
    "schema",
    "extend",
    "type",
    "{ me { id } }",
]
MANY = 10**6


@pytest.fixture
def limit_settings() -> LimitSettings:
    """So high that the cases get further than to the limits."""
    return LimitSettings(
        max_open_normal=MANY,
        max_open_premium=MANY,
        pictures_per_day_normal=MANY,
        pictures_per_day_premium=MANY,
        signin_attempts_per_minute=MANY,
        signup_attempts_per_hour=MANY,
        reset_requests_per_hour=MANY,
        voucher_attempts_per_minute=MANY,
    )


def operations(schema: GraphQLSchema) -> dict[str, tuple[str, st.SearchStrategy[dict[str, Any]]]]:
    """For each field, a document with a variable for every argument, and their values."""
    found = {}
    for kind, root in (("query", schema.query_type), ("mutation", schema.mutation_type)):
        assert isinstance(root, GraphQLObjectType)
        for name, field in root.fields.items():
            declared = " ".join(f"${argument}: {one.type}" for argument, one in field.args.items())
            passed = " ".join(f"{argument}: ${argument}" for argument in field.args)
            inside = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
            document = (
                f"{kind}{f' ({declared})' if declared else ''}"
                f" {{ {name}{f'({passed})' if passed else ''}{inside} }}"
            )
            strategy = st.fixed_dictionaries(
                {argument: values(one.type) for argument, one in field.args.items()}
            )
            found[name] = (document, strategy)
    return found


OPERATIONS = operations(SCHEMA)
WITH_ARGUMENTS = sorted(name for name, (document, _) in OPERATIONS.items() if "$" in document)


@pytest.fixture
async def token(application: Application, new_account: NewAccount, password_hash: str) -> str:
    """Of a premium customer, who may do most."""
    until = now() + timedelta(days=30)
    await new_account("premium@example.org", password_hash=password_hash, premium_until=until)
    return await application.sign_in("premium@example.org")


@pytest.mark.timeout(400)
@cases(6000)
@given(data=st.data())
async def test_hostile_variables(application: Application, token: str, data: st.DataObject) -> None:
    document, strategy = OPERATIONS[data.draw(st.sampled_from(WITH_ARGUMENTS))]
    await application.ask(document, data.draw(strategy), token=token)


@cases(700)
@given(name=st.sampled_from(sorted(OPERATIONS)), variables=ANYTHING, signed_in=st.booleans())
async def test_variables_of_any_shape(
    application: Application, token: str, name: str, variables: Any, signed_in: bool
) -> None:
    document, _ = OPERATIONS[name]
    await application.ask(document, variables, token=token if signed_in else None)


@cases(150)
@given(document=from_schema(SCHEMA, custom_scalars={"DateTime": st.text().map(nodes.String)}))
async def test_documents_made_from_the_schema(application: Application, token: str, document: str) -> None:
    await application.ask(document, token=token)


@cases(900)
@given(parts=st.lists(st.one_of(st.sampled_from(WORDS), TEXTS), max_size=40))
async def test_documents_that_are_nearly_some(application: Application, token: str, parts: list[str]) -> None:
    await application.ask(" ".join(parts), token=token)


@cases(900)
@given(body=st.one_of(ANYTHING.map(json.dumps), st.binary(max_size=200), st.text(max_size=200)))
async def test_bodies_that_are_nearly_some(application: Application, body: str | bytes) -> None:
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    await application.send("POST", "/graphql", content=content, headers={"Content-Type": "application/json"})
