"""Part ``start``: from a worker's birth until it is ready, the first time and again."""

import os
import statistics
import sys
import sysconfig
import time
from pathlib import Path
from typing import Final

from benchmarks.processes import running
from benchmarks.report import Figure
from benchmarks.rig import Rig, open_rig
from gpu_worker.demo_model import WEIGHTS

_LIBRARIES: Final = ("torch", "diffusers", "transformers", "numpy")


async def measure(folder: Path, *, rounds: int) -> list[Figure]:
    """Each round one cold start in a home of its own, then one more there."""
    cold, warm = [], []
    async with open_rig(folder) as rig:
        for number in range(rounds):
            home = folder / f"home-{number}"
            home.mkdir()
            forget_files(WEIGHTS)
            cold.append(await seconds_to_ready(rig, home))
            warm.append(await seconds_to_ready(rig, home))
    return [
        Figure(
            name="cold start",
            value=statistics.median(cold),
            unit="s",
            note=f"empty home and caches, files dropped where others let go; median of {rounds}",
        ),
        Figure(name="warm restart", value=statistics.median(warm), unit="s", note=f"median of {rounds}"),
    ]


def forget_files(weights: Path) -> None:
    """Ask the kernel to drop weights and libraries from its memory; it keeps what a process has mapped."""
    packages = Path(sysconfig.get_path("purelib"))
    folders = [weights, *(packages / name for name in _LIBRARIES)]
    for path in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


async def seconds_to_ready(rig: Rig, home: Path) -> float:
    """Until the first heartbeat of a worker that keeps everything in ``home``."""
    env = {
        **rig.env,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "DARKROOM_WEIGHTS_DIR": str(home / "weights"),
        "DARKROOM_WORKER_KERNEL_DIR": str(home / "kernels"),
    }
    began = time.monotonic()
    async with running(
        (sys.executable, "-m", "gpu_worker"), env=env, log=rig.folder / "gpu_worker.log"
    ) as child:
        await rig.ready(child)
        return time.monotonic() - began
