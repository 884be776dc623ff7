"""What is remembered of documents."""

import asyncio
import gc
import tracemalloc

import pytest
from graphql import GraphQLSyntaxError
from strawberry import Schema

from core.settings import DocumentSettings
from schema import documents as module
from schema.cost import price_list
from schema.documents import Documents
from schema.schema import build_schema

OURS = "{ me { email } }"


class Counted(Documents):
    """Documents that count how many are validated."""

    def __init__(self, kept_tokens: int = module.KEPT_TOKENS) -> None:
        self.schema: Schema = build_schema(DocumentSettings())
        graphql_schema = self.schema._schema
        super().__init__(
            DocumentSettings(),
            schema=graphql_schema,
            prices=price_list(graphql_schema),
            kept_tokens=kept_tokens,
        )

    def knows(self, text: str) -> bool:
        """Whether the text needs no second look; asking counts as use."""
        return self.parse(text).checked

    def see(self, text: str) -> None:
        context = self.schema._create_execution_context(
            query=text,
            allowed_operation_types=(),
            variable_values=None,
            context_value=None,
            root_value=None,
            operation_name=None,
        )
        self.check(text, self.parse(text), context)


def made_up(number: int) -> str:
    return f"{{ a{number}: __typename " + "__typename " * 15 + "}"


def test_a_document_is_parsed_and_validated_once() -> None:
    documents = Counted()
    assert not documents.knows(OURS)
    documents.see(OURS)
    assert documents.knows(OURS)
    assert documents.parse(OURS) is documents.parse(OURS)


def test_what_comes_twice_is_not_pushed_out_by_what_comes_once() -> None:
    documents = Counted(kept_tokens=2000)
    documents.see(OURS)
    documents.see(OURS)
    for number in range(500):
        documents.see(made_up(number))
    assert documents.knows(OURS)
    assert not documents.knows(made_up(0))


def test_what_is_kept_is_bounded_by_tokens_however_often_it_comes() -> None:
    documents = Counted(kept_tokens=2000)
    for number in range(300):
        documents.see(made_up(number))
        documents.see(made_up(number))
    shelves = (documents._trial, documents._proven)
    assert sum(kept.tokens for shelf in shelves for kept in shelf._documents.values()) <= 2000
    assert documents.knows(made_up(299))


def test_what_is_kept_takes_the_memory_that_is_stated() -> None:
    documents = Counted()
    documents.see(OURS)
    models = (
        "models { id name description license limits { minSize maxSize sizeStep maxSteps maxGuidanceScale "
        "maxCount maxPromptLength } defaults { width height steps guidanceScale scheduler } } "
    )
    tracemalloc.start()
    try:
        for number in range(60):
            text = f"{{ a{number}: __typename {models * 19}}}"
            documents.see(text)
            documents.see(text)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert documents.knows(text)
    assert 8e6 < held < 32e6


def test_what_is_wrong_is_not_kept() -> None:
    documents = Counted()
    number = "{ generations(first: " + "9" * 5000 + ") { edges { cursor } } }"
    for text in ("{ nothing }", "{ " + "__typename " * 21 + "}", number):
        documents.see(text)
        assert not documents.knows(text)
    with pytest.raises(GraphQLSyntaxError):
        documents.see("{")
    assert not documents._trial._documents


async def test_operations_side_by_side_share_what_is_known() -> None:
    schema = build_schema(DocumentSettings())
    answers = await asyncio.gather(*(schema.execute("{ __typename }") for _ in range(20)))
    assert [answer.data for answer in answers] == [{"__typename": "Query"}] * 20
    [check] = [one for one in schema.get_extensions() if isinstance(one, module.DocumentCheck)]
    assert check._documents.parse("{ __typename }").checked


def test_a_document_is_freed_without_the_garbage_collector() -> None:
    documents = Counted()
    gc.collect()
    gc.disable()
    try:
        document = documents.parse(made_up(1))
        del document
        assert gc.collect() == 0
    finally:
        gc.enable()
