"""``python -m benchmarks.engine``: the worker on two processor cores, with the bundled model.

Every part starts what it needs, on the loopback interface and in a folder that is removed afterwards. All of
them take about 30 minutes on two idle cores, 22 of them premium; with --quick about 7. Nothing else should
run meanwhile. The exit status is 1 when a figure misses its bar.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks import mixed, premium, shuffle, start, throughput
from benchmarks.command import parser, run
from benchmarks.report import Figure, Report, tell

Part = Callable[[Path, bool], Coroutine[None, None, list[Figure]]]
"""Measures in an empty folder, in full or quickly."""


async def _throughput(folder: Path, quick: bool) -> list[Figure]:
    return await throughput.measure(folder, rounds=1 if quick else 3, pictures=16 if quick else 48)


async def _premium(folder: Path, quick: bool) -> list[Figure]:
    full = premium.Plan(rounds=2, arrivals=150, static_arrivals=40, other_arrivals=24, batch_only=48)
    small = premium.Plan(rounds=1, arrivals=40, static_arrivals=15, other_arrivals=10, batch_only=24)
    return await premium.measure(folder, small if quick else full)


async def _total(folder: Path, quick: bool) -> list[Figure]:
    arrivals, batch_only = (40, 24) if quick else (150, 48)
    return await premium.measure_total(folder, rounds=2, arrivals=arrivals, batch_only=batch_only)


async def _mixed(folder: Path, quick: bool) -> list[Figure]:
    return await mixed.measure(folder, rounds=1 if quick else 2, pictures=24 if quick else 32)


async def _random(folder: Path, quick: bool) -> list[Figure]:
    return await shuffle.measure(folder, jobs=100 if quick else 500)


async def _start(folder: Path, quick: bool) -> list[Figure]:
    return await start.measure(folder, rounds=1 if quick else 3)


PARTS: Final[dict[str, Part]] = {
    "throughput": _throughput,
    "premium": _premium,
    "total": _total,
    "mixed": _mixed,
    "random": _random,
    "start": _start,
}


def main() -> int:
    """Measure what the command line says; status 1 when a figure misses its bar."""
    line = parser("engine", __doc__, quick="fewer of everything, for a first look")
    parts = [name for name in PARTS if name != "total"]
    line.add_argument(
        "--part", nargs="+", choices=PARTS, default=parts, help="all but total, a part of premium, by default"
    )
    return run(line, _measure, setting=_setting())


async def _measure(folder: Path, options: argparse.Namespace, report: Report) -> None:
    for part in options.part:
        tell(part)
        began = time.monotonic()
        own_folder = folder / part
        own_folder.mkdir()
        report.add(part, await PARTS[part](own_folder, options.quick), seconds=time.monotonic() - began)


def _setting() -> dict[str, object]:
    """On what it is measured, with whatever of the worker's settings the shell has changed."""
    changed = {name: value for name, value in os.environ.items() if name.startswith("DARKROOM_")}
    return {
        "machine": platform.machine(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        **changed,
    }


if __name__ == "__main__":
    sys.exit(main())
