"""Plans do what graphql-core's executor does: the same operations, both ways, over made-up data."""

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_leaf_type,
    parse,
    validate,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strawberry.schema.exceptions import CannotGetOperationTypeError
from structlog.testing import capture_logs

from core import errors
from core.settings import DocumentSettings
from schema.plans import Plan
from schema.schema import build_schema

LARGE = DocumentSettings(
    document_tokens=10_000,
    document_fields=10_000,
    document_aliases=1_000,
    document_repeats=1_000,
    document_cost=10_000_000,
)
SCHEMA = build_schema(LARGE)
CORE = SCHEMA._schema
RAISED: list[Callable[[], Exception]] = [
    lambda: errors.NotFoundError("There is no such thing."),
    lambda: errors.InvalidInputError([errors.FieldProblem("width", "is too large")]),
    lambda: errors.UnauthenticatedError("Sign in first."),
    lambda: errors.ServiceUnavailableError("gone"),
    lambda: ValueError("a secret"),
]


def seeded(seed: object) -> random.Random:
    return random.Random(str(seed))  # noqa: S311 - repeatable, not secret


def made_up_error(chance: random.Random) -> Exception:
    return chance.choice(RAISED)()


class Stage:
    """Stands for every resolver; what it gives depends on the seed and the place alone.

    Args:
        faults: of a hundred values, how many are wrong.
    """

    def __init__(self) -> None:
        self.seed, self.faults = 0, 0
        self.called: list[Any] = []

    def play(self, definition: GraphQLField, info: strawberry.Info[Any, None], arguments: Any) -> Any:
        path = info.path.as_list()
        told = sorted((name, repr(value)) for name, value in arguments.items())
        self.called.append((path, told, info.context, info.field_name, sorted(info.variable_values)))
        chance = seeded(f"{self.seed}{path}")
        if chance.randrange(100) < self.faults:
            raise made_up_error(chance)
        return self.value(definition.type, chance, 0)

    def value(self, kind: Any, chance: random.Random, depth: int) -> Any:
        fault = chance.randrange(100) < self.faults
        if isinstance(kind, GraphQLNonNull):
            return None if fault else self.value(kind.of_type, chance, depth)
        if chance.randrange(12) == 0:
            return None
        if fault:
            # What is of no member's type is a mistake of ours: masked by a plan, told by graphql-core.
            strange = [] if is_abstract_type(kind) else [object()]
            return chance.choice([None, ValueError("a secret"), *strange])
        if isinstance(kind, GraphQLList):
            return [self.value(kind.of_type, chance, depth + 1) for _ in range(chance.randrange(4))]
        if is_leaf_type(kind):
            return leaf(kind, chance)
        if not isinstance(kind, GraphQLObjectType):
            kind = chance.choice(CORE.get_possible_types(kind))
        return self.thing(kind, chance, depth)

    def thing(self, kind: GraphQLObjectType, chance: random.Random, depth: int) -> Any:
        made = object.__new__(kind.extensions["strawberry-definition"].origin)
        for definition in kind.fields.values():
            declared = definition.extensions["strawberry-definition"]
            if declared.is_basic_field and chance.randrange(100) >= self.faults:
                setattr(made, declared.python_name, self.value(definition.type, chance, depth + 1))
        return made


def leaf(kind: Any, chance: random.Random) -> Any:
    if isinstance(kind, GraphQLEnumType):
        return kind.coerce_input_value(chance.choice(list(kind.values)))
    return {
        "String": "words \u2603",
        "ID": chance.choice(["aWQ", "1"]),
        "Int": chance.choice([0, 7, 2**31 - 1]),
        "Float": chance.choice([0.5, 2]),
        "Boolean": True,
        "DateTime": datetime(2026, 11, 26, tzinfo=UTC),
    }[kind.name]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Has made-up resolvers called, by all that Strawberry puts around the real ones."""
    stage = Stage()
    with pytest.MonkeyPatch.context() as patched:
        for kind in CORE.type_map.values():
            if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
                for definition in kind.fields.values():
                    resolver = definition.extensions["strawberry-definition"].base_resolver
                    if resolver is not None:
                        patched.setattr(resolver, "wrapped_func", played(stage, definition))
        yield stage


def played(stage: Stage, definition: GraphQLField) -> Callable[..., Any]:
    def resolve(*source: Any, info: strawberry.Info[Any, None], **arguments: Any) -> Any:
        if seeded(f"{stage.seed}{info.path.as_list()}").randrange(2):
            return resolve_later(*source, info=info, **arguments)
        return stage.play(definition, info, arguments)

    async def resolve_later(*_source: Any, info: strawberry.Info[Any, None], **arguments: Any) -> Any:
        for _ in range(seeded(str(info.path.as_list())).randrange(3)):
            await asyncio.sleep(0)
        return stage.play(definition, info, arguments)

    return resolve_later if definition.extensions["strawberry-definition"].is_async else resolve


class Author:
    """Writes a random document."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.fragments: list[str] = []
        self.declared: list[str] = []
        self.variables: dict[str, Any] = {}
        self._names = iter(range(10_000))

    def number(self, most: int) -> int:
        return self.chance.randint(0, most)

    def operation(self) -> str:
        kind = self.chance.choice(["query", "mutation"])
        root = CORE.query_type if kind == "query" else CORE.mutation_type
        selection = self.selection(root, 0)
        declared = f"({' '.join(self.declared)})" if self.declared else ""
        return f"{kind} {declared} {selection} {' '.join(self.fragments)}"

    def selection(self, kind: Any, depth: int) -> str:
        parts = [self.part(kind, depth) for _ in range(1 + self.number(2))]
        return f"{{ {' '.join(parts)} }}"

    def part(self, kind: Any, depth: int) -> str:
        choice = self.number(9)
        if choice == 0 or (isinstance(kind, GraphQLUnionType) and choice < 2):
            return f"{self.alias(5)}__typename"
        if isinstance(kind, GraphQLUnionType) or (choice < 3 and depth < 4):
            return self.spread(kind, depth)
        fields = [
            name
            for name, one in kind.fields.items()
            if depth < 3 or not is_composite_type(get_named_type(one.type))
        ]
        if not fields:
            return "__typename"
        name = self.chance.choice(fields)
        return self.field(name, kind.fields[name], depth)

    def field(self, name: str, definition: GraphQLField, depth: int) -> str:
        arguments = [
            f"{argument}: {self.given(one.type)}"
            for argument, one in definition.args.items()
            if isinstance(one.type, GraphQLNonNull) or self.number(1)
        ]
        inside = get_named_type(definition.type)
        selection = self.selection(inside, depth + 1) if is_composite_type(inside) else ""
        told = f"({', '.join(arguments)})" if arguments else ""
        return f"{self.alias(0 if arguments else 2)}{name}{told} {selection}"

    def alias(self, odds: int) -> str:
        return f"a{next(self._names)}: " if self.number(odds) == 0 else ""

    def spread(self, kind: Any, depth: int) -> str:
        possible = [kind] if isinstance(kind, GraphQLObjectType) else list(CORE.get_possible_types(kind))
        inside = self.chance.choice(possible)
        fitting: list[Any] = [inside, *inside.interfaces, *([kind] if kind is not inside else [])]
        condition = self.chance.choice(fitting)
        selection = self.selection(condition, depth + 1)
        if self.number(1):
            return f"... on {condition.name} {selection}"
        name = f"f{next(self._names)}"
        self.fragments.append(f"fragment {name} on {condition.name} {selection}")
        return f"...{name} " * (1 + self.number(1))

    def given(self, kind: Any) -> str:
        """A literal, or a variable with or without a value."""
        if self.number(1):
            return self.literal(kind)
        name = f"v{next(self._names)}"
        plain = not isinstance(get_named_type(kind), GraphQLInputObjectType)
        default = f" = {self.literal(kind)}" if plain and self.number(3) == 0 else ""
        self.declared.append(f"${name}: {kind}{default}")
        if self.number(9) or (isinstance(kind, GraphQLNonNull) and not default):
            self.variables[name] = self.sent(kind)
        return f"${name}"

    def sent(self, kind: Any) -> Any:
        if self.number(30) == 0:
            return self.chance.choice([None, "odd", 3, 2.5, True, [], {"odd": 1}, 2**40])
        if isinstance(kind, GraphQLNonNull):
            return self.sent(kind.of_type)
        if isinstance(kind, GraphQLInputObjectType):
            return {
                name: self.sent(field.type)
                for name, field in kind.fields.items()
                if isinstance(field.type, GraphQLNonNull) or self.number(1)
            }
        if isinstance(kind, GraphQLEnumType):
            return self.chance.choice(list(kind.values))
        return {"String": "said", "ID": "aWQ", "Int": 8, "Float": 2, "Boolean": False}[kind.name]

    def literal(self, kind: Any) -> str:
        if isinstance(kind, GraphQLNonNull):
            return self.literal(kind.of_type)
        if isinstance(kind, GraphQLInputObjectType):
            parts = [
                f"{name}: {self.literal(field.type)}"
                for name, field in kind.fields.items()
                if isinstance(field.type, GraphQLNonNull) or self.number(1)
            ]
            return f"{{ {', '.join(parts)} }}"
        if isinstance(kind, GraphQLEnumType):
            return str(self.chance.choice(list(kind.values)))
        return {"String": '"said"', "ID": '"aWQ"', "Int": "8", "Float": "2", "Boolean": "false"}[kind.name]


def told(result: Any) -> Any:
    """What a client sees, without the ids of masked errors."""
    errors_seen = [
        re.sub(r"error [0-9a-f]{12}", "error X", str(one.formatted)) for one in result.errors or ()
    ]
    return list(result.data.items()) if result.data else result.data, errors_seen, result.extensions


async def both_ways(stage: Stage, document: str, variables: dict[str, Any]) -> tuple[Any, Any]:
    context, found = SimpleNamespace(), []
    for execute in (strawberry.Schema.execute, type(SCHEMA).execute):
        stage.called = []
        with capture_logs() as lines:
            result = await execute(SCHEMA, document, variables, context_value=context)
            # What goes on in the background after an answer without data.
            for _ in range(20):
                await asyncio.sleep(0)
        logged = sorted(repr((line["event"], line.get("path"), line.get("error"))) for line in lines)
        found.append((told(result), sorted(stage.called, key=repr), logged))
    return found[0], found[1]


@settings(deadline=None, max_examples=400, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), faults=st.sampled_from([0, 0, 5, 20]))
def test_plans_answer_as_graphql_core_does(stage: Stage, seed: int, faults: int) -> None:
    author = Author(seeded(seed))
    document = author.operation()
    assume(not validate(CORE, parse(document)))
    stage.seed, stage.faults = seed, faults
    theirs, ours = asyncio.run(both_ways(stage, document, author.variables))
    assert ours == theirs
    found = SCHEMA.documents.known(document)
    assert found is not None
    assert [type(plan) for plan in found.plans.values()] == [Plan]


def known(document: str) -> list[Plan | None]:
    """The plans of a document that came twice."""
    for _ in range(2):
        asyncio.run(SCHEMA.execute(document, context_value=SimpleNamespace()))
    found = SCHEMA.documents.known(document)
    assert found is not None
    return list(found.plans.values())


@pytest.mark.parametrize(
    "document",
    [
        "{ __schema { queryType { name } } }",
        "{ me { email @include(if: true) } }",
        "{ ...f @skip(if: false) } fragment f on Query { me { email } }",
        'mutation ($i: SigninInput! = { email: "e", password: "p" }) { signin(input: $i) { __typename } }',
    ],
)
def test_what_is_rare_is_left_to_graphql_core(stage: Stage, document: str) -> None:
    assert known(document) == [None]


def test_a_plan_is_made_when_a_document_comes_again(stage: Stage) -> None:
    document = "{ me { createdAt } }"
    asyncio.run(SCHEMA.execute(document, context_value=SimpleNamespace()))
    found = SCHEMA.documents.known(document)
    assert found is not None
    assert found.plans == {}
    [plan] = known(document)
    assert isinstance(plan, Plan)


def test_a_small_document_has_no_large_plan(stage: Stage) -> None:
    stage.faults = 0
    fragment = f"fragment f on Generation {{ {' '.join(f'a{number}: id' for number in range(30))} }}"
    once, often = ("".join(f"g{one}: generation(id: 1) {{ ...f }} " for one in range(n)) for n in (1, 30))
    assert [type(plan) for plan in known(f"{{ {once} }} {fragment}")] == [Plan]
    assert known(f"{{ {often} }} {fragment}") == [None]


def test_names_of_operations_that_there_are_not_are_not_remembered(stage: Stage) -> None:
    document = "query A { a: me { id } } query B { b: me { id } }"

    def answer(name: str | None) -> Any:
        return asyncio.run(SCHEMA.execute(document, operation_name=name, context_value=SimpleNamespace()))

    for name in ("A", "A", "B"):
        assert list(answer(name).data) == [name.lower()]
    assert "has to name one" in str(answer(None).errors)
    for number in range(10):
        with pytest.raises(CannotGetOperationTypeError):
            answer(f"C{number}")
    found = SCHEMA.documents.known(document)
    assert found is not None
    assert set(found.plans) == {"A", "B"}
