"""How many cases Hypothesis tries, and the values that go wrong first."""

import base64
import string
from collections.abc import Callable
from typing import Any, Final, TypeVar

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
)
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

LONG: Final = "audit-long"
"""A profile with other cases each time, and twenty times as many: ``--hypothesis-profile=audit-long``."""

settings.register_profile(LONG, max_examples=2000)

_Test = TypeVar("_Test", bound=Callable[..., Any])


def cases(count: int) -> Callable[[_Test], _Test]:
    """So many cases, the same each time, unless the long profile is asked for."""
    long = settings.get_current_profile_name() == LONG
    count *= 20 if long else 1
    chosen = settings(
        max_examples=count,
        derandomize=not long,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Not what lines failures have in common: finding that out takes minutes.
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )

    def decorate(test: _Test) -> _Test:
        test = chosen(test)
        test.__dict__["cases"] = count
        return test

    return decorate


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


_CHARACTERS = st.characters(codec=None)
"""All of them: U+0000, halves of surrogate pairs, and what is not assigned."""

_MOMENTS = st.sampled_from(
    [
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999999-14:00",
        "2026-W01",
        "20260101T000000Z",
    ]
)
_UUIDS = st.sampled_from(
    [
        "00000000-0000-0000-0000-000000000007",
        "{00000000000000000000000000000007}",
        "urn:uuid:" + "0" * 32,
        "7",
    ]
)
_LONG_TEXTS = st.sampled_from(["a" * 129, "a" * 1_001, "é" * 20_000, "\u0000" * 300, "😀" * 5_000])

TEXTS: Final = st.one_of(
    st.text(_CHARACTERS, max_size=40),
    st.text(string.printable, max_size=200),
    _LONG_TEXTS,
    # E-mail addresses, nearly
    st.builds(
        "{}@{}".format, st.text(_CHARACTERS, min_size=1, max_size=12), st.text(_CHARACTERS, max_size=12)
    ),
    st.builds("{}@example.org".format, st.text(_CHARACTERS, max_size=70)),
    st.sampled_from(
        [
            "a@example.org",
            "A@EXAMPLE.ORG ",
            "a@[127.0.0.1]",
            "a@xn--a.org",
            '"a b"@example.org',
            "İ@example.org",
        ]
    ),
    # Ids and cursors, nearly
    st.builds(
        lambda kind, key: _encoded(f"{kind}:{key}"),
        st.sampled_from(["Generation", "Account", "", "X"]),
        _UUIDS,
    ),
    st.builds(lambda moment, key: _encoded(f"{moment}|{key}"), _MOMENTS, _UUIDS),
    st.builds(_encoded, st.text(_CHARACTERS, max_size=30)),
    st.sampled_from(["\ud800", "a\udfffb@example.org", "\x00", "a\x00b@example.org", "\udc00\ud800"]),
    st.sampled_from(
        ["' OR 1=1 --", "%s%n", "${7*7}", "{{7*7}}", "<script>", "../../etc/passwd", "\r\nBcc: x@y.zz"]
    ),
)

INTEGERS: Final = st.one_of(
    st.integers(-10, 2000),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, 10**400]),
)

FLOATS: Final = st.one_of(st.floats(), st.integers(), st.sampled_from([1e308, -0.0, 5e-324, 10**400]))

ANYTHING: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXTS),
    lambda inside: st.one_of(st.lists(inside, max_size=4), st.dictionaries(TEXTS, inside, max_size=4)),
    max_leaves=6,
)

_SCALARS: Final = {"Int": INTEGERS, "Float": FLOATS, "Boolean": st.booleans(), "String": TEXTS, "ID": TEXTS}


def values(wanted: GraphQLInputType, *, likely: bool = True) -> st.SearchStrategy[Any]:
    """JSON values for an input: mostly of its type, with contents that its author did not think of.

    Args:
        likely: whether to keep to the type nine times of ten.
    """
    if isinstance(wanted, GraphQLNonNull):
        return _mostly(values(wanted.of_type, likely=False), st.one_of(st.none(), ANYTHING), likely=likely)
    if isinstance(wanted, GraphQLList):
        return _mostly(st.lists(values(wanted.of_type), max_size=3), ANYTHING, likely=likely)
    if isinstance(wanted, GraphQLInputObjectType):
        required = {name for name, one in wanted.fields.items() if isinstance(one.type, GraphQLNonNull)}
        fields = {name: values(one.type) for name, one in wanted.fields.items()}
        whole = st.fixed_dictionaries(
            {name: strategy for name, strategy in fields.items() if name in required},
            optional={name: strategy for name, strategy in fields.items() if name not in required},
        )
        return _mostly(whole, ANYTHING, likely=likely)
    if isinstance(wanted, GraphQLEnumType):
        return _mostly(st.sampled_from(sorted(wanted.values)), ANYTHING, likely=likely)
    return _mostly(st.one_of(_SCALARS[wanted.name], st.none()), ANYTHING, likely=likely)


def _mostly(
    usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any], *, likely: bool
) -> st.SearchStrategy[Any]:
    return st.one_of(*[usual] * 9, odd) if likely else usual
