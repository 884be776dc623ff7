"""Our way of executing, held against graphql-core's own."""

import gc
import weakref
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
import strawberry
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import ExecutionResult

from schema.execution import Execution


@strawberry.enum
class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


@strawberry.type
class Thing:
    """One of each kind of field."""

    id: strawberry.ID
    number: int
    share: float
    flag: bool
    text: str
    moment: datetime
    colour: Colour
    numbers: list[int]
    maybe: int | None = None
    maybe_colour: Colour | None = None
    renamed: int = strawberry.field(name="other", default=7)
    inner: "Thing | None" = None

    @strawberry.field
    def doubled(self, times: int = 2) -> int:
        """With an argument."""
        return self.number * times

    @strawberry.field
    async def later(self) -> str:
        """Has to be waited for."""
        return self.text


def thing(**fields: Any) -> Thing:
    plain: dict[str, Any] = {
        "id": strawberry.ID("a"),
        "number": 3,
        "share": 0.5,
        "flag": True,
        "text": "ä",
        "moment": datetime(2025, 6, 1, tzinfo=UTC),
        "colour": Colour.BLUE,
        "numbers": [1, 2],
    }
    return Thing(**{**plain, **fields})


@strawberry.type
class Query:
    """Things."""

    @strawberry.field
    def thing(self, info: strawberry.Info) -> Thing | None:
        """The one in the context."""
        found: Thing = info.context
        return found


async def answer(execution: type, query: str, context: Thing, **variables: Any) -> ExecutionResult:
    schema = strawberry.Schema(query=Query, execution_context_class=execution)
    result = await schema.execute(query, variable_values=variables, context_value=context)
    assert isinstance(result, ExecutionResult)
    return result


EVERYTHING = """
query ($with: Boolean = true) {
  thing {
    __typename id number share flag text moment colour numbers maybe maybeColour other doubled(times: 3) later
    again: number
    skipped: number @skip(if: $with)
    ...Inner
  }
}
fragment Inner on Thing { inner { number other colour maybeColour } }
"""


@pytest.mark.parametrize(
    "context",
    [
        thing(),
        thing(maybe=0, maybe_colour=Colour.RED, inner=thing(number=0, flag=False, text="")),
        # None of these is a value of its field's type.
        thing(number="many"),
        thing(number=None),
        thing(number=2**40),
        thing(maybe="many"),
        thing(colour="green"),
        thing(maybe_colour=5),
        thing(moment="yesterday"),
        thing(share=float("nan")),
        thing(inner=thing(number=None)),
    ],
)
async def test_every_field_is_answered_as_graphql_core_answers_it(context: Thing) -> None:
    ours = await answer(Execution, EVERYTHING, context)
    theirs = await answer(StrawberryGraphQLCoreExecutionContext, EVERYTHING, context)
    assert ours.data == theirs.data
    assert [error.formatted for error in ours.errors or ()] == [
        error.formatted for error in theirs.errors or ()
    ]


async def test_an_execution_is_freed_without_the_garbage_collector() -> None:
    made = []

    class Noted(Execution):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(weakref.ref(self))

    gc.disable()
    try:
        assert (await answer(Noted, EVERYTHING, thing())).errors is None
        assert [one() for one in made] == [None]
    finally:
        gc.enable()
