"""Part 7: what the device does during the ticks, kernel by kernel."""

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu.bench import Bench, Subject
from benchmarks.processes import BenchmarkError
from benchmarks.studio import open_studio
from gpu_worker.engine import Policy
from gpu_worker.settings import WorkerSettings

_STEPS: Final = 8
_ROUNDS: Final = 3
_LISTED: Final = 30
_DRAWN_TICKS: Final = 1
_KINDS: Final = {
    "attention": r"sdpa|fmha|flash|attention",
    "convolution": r"conv|fprop|dgrad|implicit|xmma_new",
    "product": r"gemm|nvjet|cutlass|gemv|splitk|cublas",
    "ours": r"^_(moments|affine|apply|add|add_layer_norm|geglu|scale|interleave)",
    "copy": r"memcpy|memset|copy|cat",
}
_COLOURS: Final = {
    "attention": "#d1495b",
    "convolution": "#00798c",
    "product": "#30638e",
    "ours": "#edae49",
    "copy": "#8d96a3",
    "other": "#cccccc",
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One run of a kernel; times in microseconds."""

    name: str
    stream: int
    start: float
    length: float

    @property
    def end(self) -> float:
        """When it was done."""
        return self.start + self.length

    @property
    def kind(self) -> str:
        """What it is for, by its name."""
        found = (kind for kind, names in _KINDS.items() if re.search(names, self.name, re.IGNORECASE))
        return next(found, "other")


def profiled(bench: Bench) -> None:
    """How busy the device is at saturation, with what, and how long its pauses are."""
    for subject in bench.subjects():
        kernels = _kernels(bench, subject)
        if not kernels:
            raise BenchmarkError("a profile needs a CUDA device")
        span = max(one.end for one in kernels) - kernels[0].start
        busy, pauses = _busy(kernels)
        kinds, names = defaultdict[str, float](float), defaultdict[str, float](float)
        for one in kernels:
            kinds[one.kind] += one.length
            names[one.name[:100]] += one.length
        bench.record(
            "profile",
            subject.id,
            slots=bench.slots,
            seconds=span / 1e6,
            busy=busy / span,
            longest_pauses_ms=[pause / 1e3 for pause in sorted(pauses, reverse=True)[:10]],
            kinds=_shares(kinds),
            kernels=_shares(names),
        )
        bench.out.with_name(f"profile-{subject.id}.svg").write_text(_drawing(kernels))


def _kernels(bench: Bench, subject: Subject) -> list[Kernel]:
    """In order of their start, from the second round of pictures on."""
    asked = subject.orders().parameters(bench.slots * _ROUNDS, steps=(_STEPS, _STEPS))
    policy = Policy(capacity=bench.slots, fill=0, patience=100)
    buckets = WorkerSettings(worker_slots=bench.slots).buckets
    with open_studio(
        subject.entry, subject.folder, placement=bench.placement, policy=policy, buckets=buckets
    ) as studio:
        studio.make(asked[: bench.slots])
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            studio.make(asked)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profile.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    return sorted(_read(events), key=lambda one: one.start)


def _read(events: Iterable[dict[str, Any]]) -> Iterable[Kernel]:
    for event in events:
        if event.get("cat") in {"kernel", "gpu_memcpy", "gpu_memset"}:
            yield Kernel(event["name"], event["args"]["stream"], event["ts"], event["dur"])


def _shares(times: Mapping[str, float]) -> dict[str, float]:
    """Of all time, those that took most."""
    longest = sorted(times.items(), key=itemgetter(1), reverse=True)
    return {name: time / sum(times.values()) for name, time in longest[:_LISTED]}


def _busy(kernels: Sequence[Kernel]) -> tuple[float, list[float]]:
    """For how long any kernel ran, and each time in between that none did."""
    busy, pauses, reached = 0.0, [], kernels[0].start
    for one in kernels:
        if one.start > reached:
            pauses.append(one.start - reached)
        busy += max(0.0, one.end - max(one.start, reached))
        reached = max(reached, one.end)
    return busy, pauses


def _joined(kernels: Sequence[Kernel], *, within: float) -> Sequence[Kernel]:
    """Those of one kind that follow one another on a stream within so many microseconds, as one."""
    joined: list[Kernel] = []
    last: dict[int, int] = {}
    for one in kernels:
        place = last.get(one.stream)
        before = None if place is None else joined[place]
        if place is None or before is None or before.kind != one.kind or one.start > before.end + within:
            last[one.stream] = len(joined)
            joined.append(one)
        else:
            joined[place] = replace(before, length=one.end - before.start)
    return joined


def _drawing(kernels: Sequence[Kernel]) -> str:
    """Some ticks in the middle: a row for each stream, a bar for each kernel."""
    span = kernels[-1].end - kernels[0].start
    width = span / (_STEPS * _ROUNDS) * _DRAWN_TICKS
    begin = kernels[0].start + span / 2
    drawn = _joined([one for one in kernels if begin <= one.start < begin + width], within=width / 5000)
    rows = {stream: row for row, stream in enumerate(sorted({one.stream for one in drawn}))}
    bars = "".join(
        f'<rect x="{(one.start - begin) / width * 1000:.2f}" y="{30 + 40 * rows[one.stream]}" '
        f'width="{max(one.length / width * 1000, 0.02):.2f}" height="30" fill="{_COLOURS[one.kind]}"/>'
        for one in drawn
    )
    legend = "".join(
        f'<rect x="{10 + 130 * place}" y="8" width="12" height="12" fill="{colour}"/>'
        f'<text x="{28 + 130 * place}" y="18">{kind}</text>'
        for place, (kind, colour) in enumerate(_COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 {50 + 40 * len(rows)}" '
        f'font-family="sans-serif" font-size="12">{legend}{bars}'
        f'<text x="990" y="{45 + 40 * len(rows)}" text-anchor="end">{width / 1e3:.1f} ms</text></svg>\n'
    )
