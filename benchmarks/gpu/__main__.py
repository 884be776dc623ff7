"""``python -m benchmarks.gpu --part N``: the engine on one GPU, with models of the true shapes.

1 diffusers' pipeline as it comes, 2 the same compiled, 3 the whole worker when it never lacks work, 4 a lone
picture and premium latency, 5 likeness to the pipeline's pictures, 6 cold start and warm restart, 7 a profile
of the engine, 8 premium latency by the batch tier's share of its steps. Parts 7 and 8 also draw, beside
--out. The weights are random, so nothing is downloaded. With one model at a time a part should take less than
eight minutes on an H100 or H200. Every figure is a line of JSON, appended to --out as soon as it is known.
With --tiny it runs anywhere, on
models that are too small to tell anything.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.gpu import engine, premium, profile, stock, worker
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.blueprints import TRUE
from benchmarks.rig import SLOTS
from core import telemetry
from core.settings import TelemetrySettings

PARTS: Final[dict[int, Callable[[Bench], None]]] = {
    1: stock.plain,
    2: stock.compiled,
    3: worker.saturated,
    4: premium.premium,
    5: engine.likeness,
    6: worker.starts,
    7: profile.profiled,
    8: premium.shares,
}


def main() -> int:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--part", type=int, nargs="+", choices=PARTS, required=True)
    parser.add_argument("--model", nargs="+", choices=TRUE, default=list(TRUE), help="both by default")
    parser.add_argument("--slots", type=int, default=SLOTS, help="of the worker, in parts 3, 4 and 6")
    parser.add_argument("--fp8", action="store_true", help="have the engine multiply in eight bits")
    parser.add_argument(
        "--few-steps", action="store_true", help="four steps without guidance, as distilled models"
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        help="sizes that part 2 compiles, a minute or more each",
    )
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    parser.add_argument("--store", type=Path, required=True, help="folder for weights and built kernels")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines, appended to")
    options = parser.parse_args()
    telemetry.configure(TelemetrySettings(log_level="ERROR", log_format="console"), process="benchmark")
    bench = Bench(
        models=options.model,
        tiny=options.tiny,
        slots=options.slots,
        fp8=options.fp8,
        few_steps=options.few_steps,
        compiled_batches=options.batch,
        store=options.store,
        out=options.out,
    )
    for part in options.part:
        PARTS[part](bench)
    return 0


if __name__ == "__main__":
    sys.exit(main())
