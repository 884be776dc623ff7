"""What dashboards and rules ask Prometheus for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import promql_parser
import yaml

OBSERVABILITY: Final = Path(__file__).resolve().parents[2] / "infra" / "observability"
RULES: Final = OBSERVABILITY / "prometheus"
DASHBOARDS: Final = OBSERVABILITY / "dashboards.d"


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands."""

    place: str
    text: str

    @property
    def tree(self) -> Any:
        return promql_parser.parse(self.text.replace("$__rate_interval", "5m"))


@dataclass(frozen=True)
class Selector:
    """One metric that an expression reads, and the labels that it is chosen by."""

    metric: str
    labels: frozenset[str]


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[Query]:
    """All there are."""
    found = [
        Query(rule.get("alert") or rule["record"], rule["expr"])
        for name in ("recording.yaml", "alerts.yaml")
        for rule in rules(name)
    ]
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            found += [
                Query(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", ())
            ]
    return found


def selectors(tree: Any) -> Iterator[Selector]:
    """Every metric that an expression reads; the labels by which it is grouped are asked of each."""
    yield from _selectors(tree, frozenset())


def _selectors(tree: Any, grouped: frozenset[str]) -> Iterator[Selector]:
    kind = type(tree).__name__
    if kind == "VectorSelector":
        labels = frozenset(matcher.name for matcher in tree.matchers.matchers)
        yield Selector(str(tree.name), labels | grouped)
    elif kind == "MatrixSelector":
        yield from _selectors(tree.vector_selector, grouped)
    elif kind == "AggregateExpr":
        by = tree.modifier.labels if tree.modifier is not None else ()
        yield from _selectors(tree.expr, grouped | frozenset(by))
    elif kind == "BinaryExpr":
        yield from _selectors(tree.lhs, grouped)
        yield from _selectors(tree.rhs, grouped)
    elif kind == "Call":
        for argument in tree.args:
            yield from _selectors(argument, grouped)
    elif kind in ("ParenExpr", "UnaryExpr"):
        yield from _selectors(tree.expr, grouped)
    elif kind not in ("NumberLiteral", "StringLiteral"):
        raise AssertionError(f"{kind} is not read here yet")
