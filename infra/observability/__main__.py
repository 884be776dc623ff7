"""``python -m infra.observability``: traces without a collector, each as a picture in a folder.

It takes spans by OTLP over HTTP from processes that have its address in ``DARKROOM_TRACES_URL``, and draws
each trace again when spans of it have come, until Ctrl-C.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Final

from infra.observability.receiver import Receiver
from infra.observability.waterfall import svg

_PAUSE: Final = 1.0
_PORT: Final = 4318
"""OTLP's own."""


def main() -> None:
    """Serve until interrupted."""
    line = argparse.ArgumentParser(prog="infra.observability", description=__doc__)
    line.add_argument("--port", type=int, default=_PORT, help="on 127.0.0.1; 4318")
    line.add_argument("--folder", type=Path, default=Path("traces"), help="for the pictures; traces")
    options = line.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with Receiver(port=options.port).serving() as receiver:
        print(f"DARKROOM_TRACES_URL={receiver.url}", flush=True)
        try:
            _draw(receiver, options.folder)
        except KeyboardInterrupt:
            return


def _draw(receiver: Receiver, folder: Path) -> None:
    drawn: Counter[str] = Counter()
    while True:
        counted = Counter(span.trace_id for span in receiver.spans)
        for trace_id in [one for one, spans in counted.items() if spans > drawn[one]]:
            spans = receiver.trace(trace_id)
            path = folder / f"{trace_id}.svg"
            path.write_text(svg(spans, title=f"{spans[0].name}, trace {trace_id}"))
            print(f"{path}: {spans[0].name}, {len(spans)} spans", flush=True)
        drawn = counted
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main()
