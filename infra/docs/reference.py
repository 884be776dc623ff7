"""The API reference: every operation and type of the schema, with an example of each operation.

``python -m infra.docs.reference`` writes its pages, which a test compares with the schema.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    print_ast,
)

EXAMPLES: Final = Path("docs/reference/examples")
"""A document for each operation, named like its field; a test sends all of them."""

_ERROR: Final = "UserError"
_ROOTS: Final = {
    "queries": ("Queries", "Query"),
    "mutations": ("Mutations", "Mutation"),
    "subscriptions": ("Subscriptions", "Subscription"),
}
_GENERATED: Final = "What the [schema](../../schema/schema.graphql) says, with an example of each.\n"


def main() -> None:
    """Write the pages."""
    repository = Path(__file__).resolve().parents[2]
    for name, text in Reference(repository).pages():
        (repository / "docs" / "reference" / name).write_text(text)


class Reference:
    """Writes the reference.

    Args:
        repository: where the schema and the examples are.
    """

    def __init__(self, repository: Path) -> None:
        self._schema: GraphQLSchema = build_schema((repository / "schema" / "schema.graphql").read_text())
        self._examples = repository / EXAMPLES

    def pages(self) -> Iterator[tuple[str, str]]:
        """The name of each page, and its text."""
        for name, (title, root) in _ROOTS.items():
            found = self._schema.get_type(root)
            assert isinstance(found, GraphQLObjectType)  # noqa: S101 - the schema's three roots
            operations = (self._operation(field, value) for field, value in sorted(found.fields.items()))
            yield f"{name}.md", "\n".join((f"# {title}\n", _GENERATED, *operations))
        yield "types.md", "\n".join(("# Types\n", *self._types()))
        yield "errors.md", "\n".join(("# Errors\n", _ERRORS, *self._errors()))

    def _operation(self, name: str, field: GraphQLField) -> str:
        lines = [f"## {name}\n", f"{field.description}\n"]
        arguments = [row for argument in field.args.items() for row in self._argument(*argument)]
        if arguments:
            lines += ["| argument | type | default | |", "|---|---|---|---|", *arguments, ""]
        lines += ["**Answers** " + self._answer(get_named_type(field.type)) + "\n"]
        lines += ["```graphql", (self._examples / f"{name}.graphql").read_text().rstrip(), "```\n"]
        return "\n".join(lines)

    def _argument(self, name: str, argument: GraphQLArgument) -> Iterator[str]:
        named = get_named_type(argument.type)
        if not isinstance(named, GraphQLInputObjectType):
            yield _row(f"`{name}`", argument)
            return
        for field, value in named.fields.items():
            yield _row(f"`{name}.{field}`", value)

    def _answer(self, named: GraphQLNamedType) -> str:
        if not isinstance(named, GraphQLUnionType):
            return f"{_link(named)}."
        good: list[str] = []
        errors: list[str] = []
        for member in named.types:
            is_error = any(interface.name == _ERROR for interface in member.interfaces)
            (errors if is_error else good).append(_link(member))
        return (
            f"{' or '.join(good)}; or an error: {', '.join(errors)}." if errors else f"{' or '.join(good)}."
        )

    def _errors(self) -> Iterator[str]:
        for named in self._named():
            if isinstance(named, GraphQLObjectType) and any(each.name == _ERROR for each in named.interfaces):
                yield _fields(named)

    def _types(self) -> Iterator[str]:
        roots = {root for _, root in _ROOTS.values()}
        for named in self._named():
            if named.name in roots or isinstance(named, GraphQLUnionType):
                continue
            if isinstance(named, GraphQLObjectType) and any(each.name == _ERROR for each in named.interfaces):
                continue
            if isinstance(named, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
                yield _fields(named)
            elif isinstance(named, GraphQLEnumType):
                values = ", ".join(f"`{value}`" for value in named.values)
                yield f"## {named.name}\n\n{_prose(named.description)}\n\nOne of {values}.\n"
            elif isinstance(named, GraphQLScalarType) and named.name == "DateTime":
                yield f"## {named.name}\n\nA moment in ISO 8601, with its offset from UTC.\n"

    def _named(self) -> Iterable[GraphQLNamedType]:
        return (named for name, named in sorted(self._schema.type_map.items()) if not name.startswith("__"))


_ERRORS: Final = """\
Members of a mutation's union that a client can act on; all of them have a `message` for people.
Everything else is an entry of `errors`: [its codes](../api.md#errors).
"""


def _fields(named: GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType) -> str:
    rows = [
        f"| `{name}` | {_type(field)} | {_prose(field.description)} |" for name, field in named.fields.items()
    ]
    return "\n".join(
        (
            f"## {named.name}\n",
            f"{_prose(named.description)}\n",
            "| field | type | |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


def _row(name: str, value: GraphQLArgument | GraphQLInputField) -> str:
    written = value.ast_node.default_value if value.ast_node else None
    default = f"`{print_ast(written)}`" if written and written.kind != "null_value" else ""
    return f"| {name} | {_type(value)} | {default} | {_prose(value.description)} |"


def _type(value: GraphQLField | GraphQLArgument | GraphQLInputField) -> str:
    """A type as the SDL writes it, linked where it has a place of its own."""
    named = get_named_type(value.type)
    before, _, after = str(value.type).partition(named.name)
    if isinstance(named, GraphQLScalarType | GraphQLUnionType) and named.name != "DateTime":
        return f"`{value.type}`"
    return f"{_escaped(before)}{_link(named)}{after}"


def _link(named: GraphQLNamedType) -> str:
    is_error = isinstance(named, GraphQLObjectType) and any(each.name == _ERROR for each in named.interfaces)
    if isinstance(named, GraphQLScalarType) and named.name != "DateTime":
        return f"`{named.name}`"
    return f"[{named.name}]({'errors' if is_error else 'types'}.md#{named.name.lower()})"


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def _prose(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|")


if __name__ == "__main__":
    main()
