"""Dashboards as Grafana reads them.

What a panel shows takes a line to say, and Grafana's JSON forty.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8
_SCHEMA: Final = 39
"""Of dashboards, as Grafana 10 and later read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture.

    Attributes:
        title: what it shows.
        queries: PromQL by what the legend calls it; ``{{label}}`` is replaced.
        unit: Grafana's name of it.
        about: why one looks at it.
        kind: ``timeseries`` or ``stat``.
        limit: above which it is red, if there is such a value.
        width: of the 24 columns.
    """

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    limit: float | None = None
    width: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A page of rows of panels."""

    uid: str
    title: str
    rows: Mapping[str, Sequence[Panel]]

    def render(self) -> str:
        """Its JSON."""
        return json.dumps(_dashboard(self), indent=1, ensure_ascii=False) + "\n"


def _dashboard(one: Dashboard) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in one.rows.items():
        panels.append(_row(title, number=len(panels) + 1, y=y))
        y, x = y + 1, 0
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y = 0, y + _HEIGHT
            panels.append(_panel(panel, number=len(panels) + 1, x=x, y=y))
            x += panel.width
        y += _HEIGHT
    return {
        "uid": one.uid,
        "title": one.title,
        "tags": ["darkroom"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _row(title: str, *, number: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
    }


def _panel(panel: Panel, *, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.limit is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if panel.kind == "timeseries":
            defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
