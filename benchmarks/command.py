"""The command line that the benchmarks have in common."""

import argparse
import asyncio
import os
import platform
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from benchmarks.report import Figure, Report
from core import telemetry
from core.settings import TelemetrySettings

Plan = TypeVar("Plan")
Measure = Callable[[Path, argparse.Namespace, Report], Coroutine[Any, Any, None]]
"""Measures in an empty folder what the command line says, and reports it."""

_INTERRUPTED: Final = 130


def parser(name: str, description: str | None, *, quick: str | None = None) -> argparse.ArgumentParser:
    """A command line with ``--json``, and with ``--quick`` where there is a text of help for it."""
    made = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=description)
    if quick is not None:
        made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", type=Path, help="also write the figures to this file")
    return made


def planned(
    part: str, measure: Callable[[Path, Plan], Awaitable[list[Figure]]], *, full: Plan, quick: Plan
) -> Measure:
    """A benchmark of one part, which ``--quick`` gives another plan."""

    async def measured(folder: Path, options: argparse.Namespace, report: Report) -> None:
        began = time.monotonic()
        figures = await measure(folder, quick if options.quick else full)
        report.add(part, figures, seconds=time.monotonic() - began)

    return measured


def run(
    line: argparse.ArgumentParser, measure: Measure, *, setting: Mapping[str, object] | None = None
) -> int:
    """Measure; the status is 1 when a figure misses its bar.

    What there is when it is interrupted is written too.

    Args:
        line: from :func:`parser`.
        measure: does it.
        setting: on what it is measured, beside what every benchmark says of that.
    """
    options = line.parse_args()
    # As Ctrl-C does: what was started is ended, and the folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    telemetry.configure(TelemetrySettings(log_level="ERROR", log_format="console"), process="benchmark")
    told = {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        **(setting or {}),
        **{name: value for name, value in vars(options).items() if name != "json"},
    }
    print(", ".join(f"{name} {value}" for name, value in told.items()), flush=True)
    report = Report()
    try:
        with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as folder:
            Path(folder).chmod(0o755)
            asyncio.run(measure(Path(folder), options, report))
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        if options.json is not None:
            report.write(options.json, setting=told)
    return 0 if report.passed else 1
