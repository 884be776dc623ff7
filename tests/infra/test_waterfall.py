"""Traces as pictures."""

import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from core import tracing
from core.otlp import OtlpTracer
from infra.observability.receiver import ReceivedSpan
from infra.observability.waterfall import svg

RECT = "{http://www.w3.org/2000/svg}rect"
TEXT = "{http://www.w3.org/2000/svg}text"


def span(
    name: str, began: float, ended: float, parent: str | None = None, process: str = "api"
) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id="t",
        span_id=name,
        parent_id=parent,
        name=name,
        kind="INTERNAL",
        process=process,
        began=began,
        ended=ended,
        failed=False,
        attributes={},
        links=(),
    )


def parsed(document: str) -> ET.Element:
    return ET.fromstring(document)  # noqa: S314 - of our own making


def bars(document: str) -> list[tuple[float, float]]:
    """Left end and width of each bar, in order of the rows."""
    found = [one for one in parsed(document).iter(RECT) if one.get("rx")]
    return [(float(one.get("x", "")), float(one.get("width", ""))) for one in found]


def test_each_span_is_a_bar_below_its_parent_as_long_as_it_took() -> None:
    spans = [span("b", 0.5, 1.0, "a"), span("a", 0.0, 1.0), span("c <&>", 0.25, 0.5, "a", "gpu_worker")]
    document = svg(spans, title="one & all")
    (whole, wide), (c, c_wide), (b, b_wide) = bars(document)
    assert (c - whole, c_wide) == (wide / 4, wide / 4)
    assert (b - whole, b_wide) == (wide / 2, wide / 2)
    texts = [one.text for one in parsed(document).iter(TEXT)]
    assert {"one & all", "c <&>", "api", "gpu_worker", "250 ms"} <= set(texts)


def test_a_wait_of_half_an_hour_is_cut_out() -> None:
    spans = [span("asked", 0.0, 0.1), span("wait in queue", 0.1, 1800.0), span("made", 1800.0, 1800.9)]
    document = svg(spans, title="normal")
    assert re.search(r"1799\.90 s later", document)
    (_, asked), _, (_, made) = bars(document)
    assert abs(made - 9 * asked) < 1


def test_the_command_draws_what_is_sent_to_it(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "infra.observability", "--port", "0", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("DARKROOM_TRACES_URL=")
        tracing.start(OtlpTracer(url=url, share=1.0, process="test"))
        with tracing.span("drawn"):
            pass
        tracing.stop()
        deadline = time.monotonic() + 20
        while not (found := list(tmp_path.glob("*.svg"))):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        line = process.stdout.readline()
        process.terminate()
    assert line == f"{found[0]}: drawn, 1 spans\n"
    assert "drawn" in found[0].read_text()
