"""Part 5: our engine in this process."""

import itertools
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.bench import Bench, Subject
from benchmarks.likeness import psnr
from benchmarks.orders import DEMO
from benchmarks.studio import open_studio
from core.lifecycle import Scheduler
from core.messages import Parameters
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.engine import Policy
from gpu_worker.pipeline import Placement
from gpu_worker.settings import WorkerSettings

_MIXED_STEPS = (4, 12)


def likeness(bench: Bench) -> None:
    """How much pictures of a mixed batch are like the pipeline's, in two precisions.

    Both are also held against the pipeline's in single precision, which says whose rounding it is; and the
    pipeline in batches against itself alone says how much of a difference is the device's doing.
    """
    precisions = (torch.float32, torch.bfloat16) if bench.tiny else (torch.float16, torch.bfloat16)
    for subject in itertools.chain([Subject(DEMO, WEIGHTS)], bench.subjects()):
        single = _alone(subject, Placement(bench.placement.device, torch.float32))
        for dtype in precisions:
            bench.clear()
            placement = Placement(bench.placement.device, dtype, bench.placement.fp8)
            _compare(bench, subject, placement, single)


def _compare(bench: Bench, subject: Subject, placement: Placement, single: Sequence[Image.Image]) -> None:
    alone, equal = _alone(subject, placement), subject.orders().parameters(4)
    stock = subject.stock(placement)
    together, apart = stock.make(equal), [stock.make([one])[0] for one in equal]
    del stock
    bench.clear()
    mixed = _mixed(subject)
    with open_studio(
        subject.entry,
        subject.folder,
        placement=placement,
        policy=Policy(capacity=len(mixed), fill=0, patience=100),
        buckets=_buckets(len(mixed)),
    ) as studio:
        made, _ = studio.make(mixed)
    bench.record(
        "likeness",
        subject.id,
        precision=str(placement.dtype).removeprefix("torch."),
        **_alike("ours_to_pipeline", made, alone),
        **_alike("ours_to_single_precision", made, single),
        **_alike("pipeline_to_single_precision", alone, single),
        **_alike("pipeline_batched_to_alone", together, apart),
        # Grey pictures would be alike whatever happens.
        contrast=statistics.mean(float(np.asarray(one).std()) for one in single),
    )


def _alone(subject: Subject, placement: Placement) -> list[Image.Image]:
    """The mixed pictures, each from a call of the pipeline of its own."""
    stock = subject.stock(placement)
    return [stock.make([one])[0] for one in _mixed(subject)]


def _alike(name: str, made: Sequence[Image.Image], wanted: Sequence[Image.Image]) -> dict[str, float]:
    ratios = [psnr(one, other) for one, other in zip(made, wanted, strict=True)]
    return {f"{name}_worst_db": min(ratios), f"{name}_median_db": statistics.median(ratios)}


def _mixed(subject: Subject) -> list[Parameters]:
    """A picture for each sampler, with different numbers of steps."""
    samplers = list(Scheduler)
    asked = subject.orders().parameters(len(samplers), steps=_MIXED_STEPS)
    return [
        one.model_copy(update={"scheduler": sampler}) for one, sampler in zip(asked, samplers, strict=True)
    ]


def _buckets(slots: int) -> Sequence[int]:
    """As the worker has them by default."""
    return WorkerSettings(worker_slots=slots).buckets
