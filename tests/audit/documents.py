"""Documents that ask for too much, modelled on what graphql-cop, graphql-armor and DVGA try.

Each is refused before anything of it is done.
"""

from typing import Final

_LONG = "A" * 40_000


def _cycle(length: int) -> str:
    spreads = " ".join(
        f"fragment f{number} on Query {{ __typename ...f{(number + 1) % length} }}"
        for number in range(length)
    )
    return f"{{ ...f0 }} {spreads}"


def _doubling(levels: int, *, spread: str = "...f{0} ...f{0}", leaf: str = "service { now }") -> str:
    spreads = " ".join(
        f"fragment f{number} on Query {{ {spread.format(number + 1)} }}" for number in range(levels)
    )
    return f"{spreads} fragment f{levels} on Query {{ {leaf} }}"


def _nested(levels: int, opening: str, closing: str, inside: str) -> str:
    return opening * levels + inside + closing * levels


def _aliases(count: int, selection: str) -> str:
    return " ".join(f"a{number}: {selection}" for number in range(count))


REFUSED: Final[dict[str, str]] = {
    # Aliases
    "alias overload": f"{{ {_aliases(150, '__typename')} }}",
    "alias overload, expensive fields": "{ "
    + _aliases(31, "generations(first: 100) { edges { node { images { url } } } }")
    + " }",
    "alias overload within fragments": "{ ...a } "
    + " ".join(
        f"fragment {name} on Query {{ {_aliases(16, '__typename')} ...{after} }}"
        for name, after in ("ab", "bc", "cd")
    )
    + " fragment d on Query { z: __typename }",
    "alias overload, mutations": "mutation { "
    + _aliases(60, 'signin(input: { email: "a@example.org", password: "guess" }) { __typename }')
    + " }",
    # Fields
    "field duplication": f"{{ {'__typename ' * 500} }}",
    "field duplication within fields": "{ models { " + "id " * 500 + "} }",
    "field duplication by inline fragments": "{ " + "... on Query { __typename } " * 100 + "}",
    "field duplication by spreads": "{ " + "...f " * 200 + "} fragment f on Query { __typename }",
    "fields that overlap pairwise at every level": "{ "
    + _nested(9, "generations { edges { node { ", " } } }", "id")
    + " "
    + _nested(9, "generations { edges { node { ", " } } }", "id")
    + " }",
    "a field there is not, many times": "{ " + " ".join(f"x{number}" for number in range(900)) + " }",
    # Directives
    "directive overload": "{ __typename " + "@include(if: true) " * 200 + "}",
    "directive overload, unknown ones": "{ __typename " + "@aa" * 600 + " }",
    "directive overload on fragments": "{ ...f "
    + "@skip(if: false) " * 40
    + "} fragment f on Query { __typename }",
    "directive overload on variables": "query ($a: Int " + "@a " * 100 + ") { __typename }",
    "directive overload on the operation": "query Q " + "@a " * 100 + "{ __typename }",
    # Fragments
    "fragment cycle, direct": _cycle(1),
    "fragment cycle, indirect": _cycle(20),
    "fragment cycle through a field": "{ ...f } fragment f on Query { me { ...g } } "
    "fragment g on Account { usage { __typename } ...g }",
    "fragment amplification": "{ ...f0 } " + _doubling(60),
    "fragment amplification by aliases": "{ ...f0 } " + _doubling(60, leaf="a: __typename b: __typename"),
    "fragment amplification, never spread": "{ __typename } " + _doubling(60),
    "fragment amplification with conditions": "query ($no: Boolean = false) { ...f0 } "
    + _doubling(40, spread="...f{0} @include(if: $no) ...f{0} @skip(if: $no)"),
    "fragment amplification by inline fragments": "{ ...f0 } "
    + _doubling(50, spread="... on Query {{ ...f{0} }} ... {{ ...f{0} }}"),
    "many fragments that nothing spreads": "{ __typename } "
    + " ".join(f"fragment f{number} on Query {{ __typename }}" for number in range(125)),
    "many spreads of fragments there are not": "{ "
    + " ".join(f"...f{number}" for number in range(450))
    + " }",
    # Depth
    "deep recursion": "{ " + _nested(60, "node(id: 1) { ... on Generation { ", " } }", "id") + " }",
    "deep recursion, thousands": "{ " + _nested(5000, "me { ", " }", "id") + " }",
    "circular introspection": "{ __schema { "
    + _nested(4, "types { fields { type { ", " } } }", "name")
    + " } }",
    "circular introspection by __type": '{ __type(name: "Query") { '
    + _nested(4, "fields { type { ", " } }", "name")
    + " } }",
    "introspection, types of types": "{ __schema { types { "
    + _nested(14, "ofType { ", " }", "name")
    + " } } }",
    "deep lists": "{ node(id: " + "[" * 2000 + "]" * 2000 + ") { id } }",
    "deep objects": "mutation { generate(input: " + "{ a: " * 500 + "1" + " }" * 500 + ") { __typename } }",
    "deep types of variables": "query ($v: " + "[" * 800 + "Int" + "]" * 800 + ") { __typename }",
    # Sizes
    "tokens": "{ " + "a " * 20_000 + "}",
    "tokens that are commas, comments and names": "{ " + "a, # no\n" * 5000 + "}",
    "many variables": "query (" + " ".join(f"$v{number}: Int" for number in range(240)) + ") { __typename }",
    "many operations": " ".join(f"query q{number} {{ __typename }}" for number in range(190)),
    "operation of a long name": f"query {_LONG} {{ there }}",
    "field of a long name": f"{{ {_LONG} }}",
    "argument of a long name": f"{{ node({_LONG}: 1) {{ id }} }}",
    "long integer": f"{{ generations(first: {'9' * 40_000}) {{ edges {{ cursor }} }} }}",
    "long enum": f'mutation {{ generate(input: {{ prompt: "x", format: {_LONG} }}) {{ __typename }} }}',
    "many lines in a block string": '{ models(a: """' + "\n " * 15_000 + '""") { id } }',
    # Cost
    "cost of long pages": "{ "
    + _aliases(9, "generations(first: 100000) { edges { node { id images { url } } } }")
    + " }",
    "cost of many pages": "{ "
    + _aliases(29, "generations(first: 100) { edges { node { id images { url } } } }")
    + " }",
    "cost of many pages, by fragments": "{ ...p } fragment p on Query { "
    + _aliases(29, "generations(first: 100) { ...c }")
    + " } fragment c on GenerationConnection { edges { node { id queuePosition } } }",
    # What is no document, or is not one that HTTP and websocket may carry
    "null byte": "{ __type\x00name }",
    "half a surrogate pair": '{ node(id: "\\ud800") { id } }',
    "unended string": '{ node(id: "' + "a" * 10_000,
    "definitions of types": "type Query { a: Int } extend type Query { b: Int }",
    "nothing": "   ",
    "streamed": "{ models @stream { id } }",
    "deferred": "{ ... @defer { models { id } } }",
}


def suggestions() -> list[str]:
    """Documents with names that are nearly right: an answer must not tell the right ones."""
    return [
        "{ modelz { id } }",
        "{ models { idd } }",
        "{ generation(idd: 1) { id } }",
        "{ me { ...on Acount { id } } }",
        "mutation { generat { id } }",
        'mutation { generate(input: { promt: "x" }) { __typename } }',
        'mutation { generate(input: { prompt: "x", format: PNGG }) { __typename } }',
        "query ($a: GenerateInpt) { __typename }",
        "{ __typename @includ(if: true) }",
        "subscription { generationStats { state } }",
        '{ __type(name: "Query") { nam } }',
    ]
