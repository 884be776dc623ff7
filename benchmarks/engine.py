"""``python -m benchmarks.engine``: the worker on two processor cores, with the bundled model.

Every part starts what it needs, on the loopback interface and in a folder that is removed afterwards. All of
them take about 30 minutes on two idle cores, 22 of them premium; with --quick about 7. Nothing else should
run meanwhile. The exit status is 1 when a figure misses its bar.
"""

import argparse
import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks import mixed, premium, shuffle, start, throughput
from benchmarks.report import Figure, Report, tell
from core import telemetry
from core.settings import TelemetrySettings

Part = Callable[[Path, bool], Coroutine[None, None, list[Figure]]]
"""Measures in an empty folder, in full or quickly."""

_INTERRUPTED: Final = 130


async def _throughput(folder: Path, quick: bool) -> list[Figure]:
    return await throughput.measure(folder, rounds=1 if quick else 3, pictures=16 if quick else 48)


async def _premium(folder: Path, quick: bool) -> list[Figure]:
    full = premium.Plan(rounds=2, arrivals=150, static_arrivals=40, other_arrivals=24, batch_only=48)
    small = premium.Plan(rounds=1, arrivals=40, static_arrivals=15, other_arrivals=10, batch_only=24)
    return await premium.measure(folder, small if quick else full)


async def _mixed(folder: Path, quick: bool) -> list[Figure]:
    return await mixed.measure(folder, rounds=1 if quick else 2, pictures=24 if quick else 32)


async def _random(folder: Path, quick: bool) -> list[Figure]:
    return await shuffle.measure(folder, jobs=100 if quick else 500)


async def _start(folder: Path, quick: bool) -> list[Figure]:
    return await start.measure(folder, rounds=1 if quick else 3)


PARTS: Final[dict[str, Part]] = {
    "throughput": _throughput,
    "premium": _premium,
    "mixed": _mixed,
    "random": _random,
    "start": _start,
}


def main() -> int:
    """Measure what the command line says; status 1 when a figure misses its bar."""
    parser = argparse.ArgumentParser(prog="benchmarks.engine", description=__doc__)
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=list(PARTS), help="all of them by default"
    )
    parser.add_argument("--quick", action="store_true", help="fewer of everything, for a first look")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    # As Ctrl-C does: what was started is ended, and the folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    telemetry.configure(TelemetrySettings(log_level="ERROR", log_format="console"), process="benchmark")
    try:
        report = _run(options.part, quick=options.quick, file=options.json)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0 if report.passed else 1


def _run(parts: Sequence[str], *, quick: bool, file: Path | None) -> Report:
    report, setting = Report(), _setting()
    print(", ".join(f"{name} {value}" for name, value in setting.items()), flush=True)
    for part in parts:
        tell(part)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as folder:
            figures = asyncio.run(PARTS[part](Path(folder), quick))
        report.add(part, figures, seconds=time.monotonic() - began)
        if file is not None:
            report.write(file, setting={**setting, "quick": quick})
    return report


def _setting() -> dict[str, object]:
    """On what it is measured, with whatever of the worker's settings the shell has changed."""
    changed = {name: value for name, value in os.environ.items() if name.startswith("DARKROOM_")}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "load": round(os.getloadavg()[0], 2),
        **changed,
    }


if __name__ == "__main__":
    sys.exit(main())
