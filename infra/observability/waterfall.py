"""A trace as a picture: one row for each span, in the order in which they began."""

from collections.abc import Sequence
from html import escape
from typing import Final

from infra.observability.receiver import ReceivedSpan

_COLOURS: Final = {"api": "#2f6fb7", "gpu_worker": "#b5532a", "batcher": "#3f7f4f"}
_OTHER: Final = "#666666"
_ROW: Final = 24
_NAMES: Final = 330
_BARS: Final = 720
_TOP: Final = 66
_LONG: Final = 1.0
_MOST: Final = 120
"""Rows; what begins later is left out, and said so."""


def svg(spans: Sequence[ReceivedSpan], *, title: str) -> str:
    """A trace as an SVG document; the spans are of one trace, and at least one.

    A gap of more than a second in which nothing was done, such as the wait for a window, is cut out, and
    marked by a dotted line: what the processes do would be a hair's breadth beside it.
    """
    ordered = sorted(spans, key=lambda one: one.began)
    rows = _rows(ordered)[:_MOST]
    scale = _Scale(ordered)
    height = _TOP + _ROW * len(rows) + 26
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_NAMES + _BARS + 90}" height="{height}" '
            f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="14" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_legend(ordered),
        *_axis(scale, height=height),
    ]
    for number, (depth, span) in enumerate(rows):
        parts += _row(span, depth, y=_TOP + number * _ROW, scale=scale)
    return "\n".join((*parts, "</svg>"))


class _Scale:
    """From moments to pixels, with long idle gaps cut out."""

    def __init__(self, ordered: Sequence[ReceivedSpan]) -> None:
        self._pieces: list[tuple[float, float, float]] = []
        at, shown = ordered[0].began, 0.0
        busy_from = at
        for span in (one for one in ordered if not _waits(one)):
            if span.began > at + _LONG:
                self._pieces.append((busy_from, at, shown))
                shown += at - busy_from
                busy_from = span.began
            at = max(at, span.ended)
        self._pieces.append((busy_from, at, shown))
        self.seconds = max(shown + at - busy_from, 1e-6)

    @property
    def cuts(self) -> list[tuple[float, float]]:
        """Where something was cut out, in pixels, and how many seconds of it."""
        pairs = zip(self._pieces, self._pieces[1:], strict=False)
        return [(self.x(later[0]), later[0] - earlier[1]) for earlier, later in pairs]

    def x(self, moment: float) -> float:
        """Pixels from the left."""
        shown = 0.0
        for began, ended, offset in self._pieces:
            if moment < began:
                break
            shown = offset + min(moment, ended) - began
        return _NAMES + _BARS * shown / self.seconds


def _waits(span: ReceivedSpan) -> bool:
    return span.name == "wait in queue"


def _rows(ordered: Sequence[ReceivedSpan]) -> list[tuple[int, ReceivedSpan]]:
    """Each span below its parent, with its depth."""
    known = {span.span_id for span in ordered}
    children: dict[str | None, list[ReceivedSpan]] = {}
    for span in ordered:
        children.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    rows: list[tuple[int, ReceivedSpan]] = []

    def add(parent: str | None, depth: int) -> None:
        for span in children.get(parent, ()):
            rows.append((depth, span))
            add(span.span_id, depth + 1)

    add(None, 0)
    return rows


def _legend(ordered: Sequence[ReceivedSpan]) -> list[str]:
    parts, x = [], 14
    for process in dict.fromkeys(span.process for span in ordered):
        colour = _COLOURS.get(process, _OTHER)
        parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="46">{escape(process)}</text>')
        x += 40 + 8 * len(process)
    return parts


def _axis(scale: _Scale, *, height: int) -> list[str]:
    parts = []
    for tenth in range(0, 11, 2):
        x = _NAMES + _BARS * tenth / 10
        parts.append(f'<line x1="{x}" y1="{_TOP - 10}" x2="{x}" y2="{height - 22}" stroke="#dddddd"/>')
        label = _told(scale.seconds * tenth / 10)
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#666666">{label}</text>')
    for x, seconds in scale.cuts:
        parts.append(
            f'<line x1="{x}" y1="{_TOP - 10}" x2="{x}" y2="{height - 22}" stroke="#aa3377" '
            f'stroke-dasharray="3 3"/>'
            f'<text x="{x}" y="{_TOP - 14}" text-anchor="middle" fill="#aa3377">{_told(seconds)} later</text>'
        )
    return parts


def _row(span: ReceivedSpan, depth: int, *, y: int, scale: _Scale) -> list[str]:
    left, right = scale.x(span.began), scale.x(span.ended)
    width = max(right - left, 1.5)
    colour = "#c22222" if span.failed else _COLOURS.get(span.process, _OTHER)
    opacity = 0.35 if _waits(span) else 0.9
    name = f'<text x="{14 + 16 * depth}" y="{y + 16}">{escape(span.name)}</text>'
    bar = (
        f'<rect x="{left:.1f}" y="{y + 5}" width="{width:.1f}" height="14" rx="2" fill="{colour}" '
        f'fill-opacity="{opacity}"/>'
    )
    told = f'<text x="{left + width + 5:.1f}" y="{y + 16}" fill="#444444">{_told(span.seconds)}</text>'
    return [name, bar, told]


def _told(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.3g} ms"
