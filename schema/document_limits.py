"""How large a GraphQL document may be: measured once, before it is validated or anything is resolved.

A fragment that is spread twice by another, which is spread twice by a third, doubles with every line. Each
fragment is therefore measured once and its measure is reused, so that measuring takes time in proportion to
the document while the figures are those of what it expands to. Rules that walk the expansion itself, as
validation does, only ever see documents that have passed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from core.settings import DocumentSettings
from core.telemetry import DOCUMENTS_REFUSED

CODE: Final = "DOCUMENT_TOO_LARGE"


@dataclass(frozen=True, slots=True)
class Measure:
    """What a document, or a part of it, expands to.

    Attributes:
        depth: fields inside one another.
        fields: all of them, those of a fragment as often as it is spread.
        aliases: of these, those with another name.
        directives: on anything.
        repeats: how often one name is asked for in one place, at the most: validation compares each with
            each.
    """

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    repeats: int = 0


@dataclass(slots=True)
class _Selection:
    """The measure of a selection set, and the names in it, which add up where it is spread."""

    measure: Measure = field(default_factory=Measure)
    names: Counter[str] = field(default_factory=Counter)


def measure(document: DocumentNode) -> Measure:
    """The largest of each figure over the operations of ``document``.

    A fragment that spreads itself counts once; that it may not is for validation to say.
    """
    fragments = {
        one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
    }
    ruler = _Ruler(fragments)
    measures = [
        ruler.operation(one) for one in document.definitions if isinstance(one, OperationDefinitionNode)
    ]
    # What no operation spreads is validated too.
    measures += [ruler.fragment(name).measure for name in fragments]
    return Measure(
        *(max((getattr(one, each.name) for one in measures), default=0) for each in fields(Measure))
    )


class _Ruler:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._measured: dict[str, _Selection] = {}

    def operation(self, node: OperationDefinitionNode) -> Measure:
        found = self._selection(node.selection_set).measure
        variables = sum(len(one.directives or ()) for one in node.variable_definitions or ())
        return replace(found, directives=found.directives + len(node.directives or ()) + variables)

    def fragment(self, name: str) -> _Selection:
        if name not in self._measured:
            # Empty until it is known: for a fragment that spreads itself.
            self._measured[name] = _Selection()
            if (node := self._fragments.get(name)) is not None:
                found = self._selection(node.selection_set)
                directives = found.measure.directives + len(node.directives or ())
                found.measure = replace(found.measure, directives=directives)
                self._measured[name] = found
        return self._measured[name]

    def _selection(self, node: SelectionSetNode) -> _Selection:
        depth = total = aliases = directives = repeats = 0
        names: Counter[str] = Counter()
        for selection in node.selections:
            directives += len(selection.directives or ())
            if isinstance(selection, FieldNode):
                inside = self._selection(selection.selection_set) if selection.selection_set else _Selection()
                depth = max(depth, inside.measure.depth + 1)
                total += 1
                aliases += selection.alias is not None
                names[(selection.alias or selection.name).value] += 1
            elif isinstance(selection, InlineFragmentNode):
                inside = self._selection(selection.selection_set)
                depth = max(depth, inside.measure.depth)
                names.update(inside.names)
            elif isinstance(selection, FragmentSpreadNode):
                inside = self.fragment(selection.name.value)
                depth = max(depth, inside.measure.depth)
                names.update(inside.names)
            total += inside.measure.fields
            aliases += inside.measure.aliases
            directives += inside.measure.directives
            repeats = max(repeats, inside.measure.repeats)
        repeats = max(repeats, max(names.values(), default=0))
        return _Selection(Measure(depth, total, aliases, directives, repeats), names)


def refusals(document: DocumentNode, limits: DocumentSettings) -> list[GraphQLError]:
    """One error for each limit that the document is beyond."""
    found, refused = measure(document), []
    for name, most in limits.measures.items():
        if (value := getattr(found, name)) > most:
            DOCUMENTS_REFUSED.labels(limit=name).inc()
            refused.append(_refusal(name, value, most))
    return refused


def _refusal(name: str, value: int, most: int) -> GraphQLError:
    verb = "is" if name == "depth" else "are"
    return GraphQLError(
        f"The document is too large: its {name} {verb} {value}, and at most {most} are allowed.",
        extensions={"code": CODE, "limit": name, "max": most},
    )
