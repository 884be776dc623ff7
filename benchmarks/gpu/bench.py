"""What every part works with: the models asked for, the device, and the file that figures go to."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from benchmarks.gpu.arithmetic import picture_flops, product_flops_per_second
from benchmarks.gpu.blueprints import TINY, TRUE, build, entry
from benchmarks.orders import Orders
from benchmarks.stock import StockPipeline
from core.catalogue import ModelEntry
from core.clock import now
from gpu_worker.pipeline import Placement, best_placement

_TERA = 1e12


@dataclass(frozen=True, slots=True)
class Subject:
    """One model that is ready to be measured; its weights lie in ``folder``."""

    entry: ModelEntry
    folder: Path

    def stock(self, placement: Placement) -> StockPipeline:
        """The model in diffusers' pipeline."""
        return StockPipeline(self.folder, family=self.entry.family, placement=placement)

    @property
    def id(self) -> str:
        """Its name."""
        return self.entry.id

    def orders(self) -> Orders:
        """Orders for it, the same ones each time."""
        return Orders(1, self.entry)


class Bench:
    """Where a part measures.

    Args:
        models: names of the models, a subject each.
        tiny: small ones instead of true ones, and fewer of everything.
        slots: of a worker.
        fp8: whether the engine multiplies in eight bits.
        compiled_batches: batch sizes that the pipeline is compiled for.
        few_steps: whether pictures take four steps without guidance, in place of the usual with it.
        store: where weights are built, or found from an earlier part.
        out: the file that a line of JSON is appended to for each figure.
    """

    def __init__(
        self,
        *,
        models: Sequence[str],
        tiny: bool,
        slots: int,
        fp8: bool,
        few_steps: bool,
        compiled_batches: Sequence[int],
        store: Path,
        out: Path,
    ) -> None:
        # They tell what takes no time here, and would hide the figures.
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.tiny = tiny
        self.slots = slots
        self.few_steps = few_steps
        self.compiled_batches = compiled_batches
        self.placement = best_placement(fp8=fp8)
        self._blueprints = [(TINY if tiny else TRUE)[name] for name in models]
        self.store = store.resolve()
        self.out = out
        self._products: float | None = None

    def subjects(self) -> Iterator[Subject]:
        """Each model in turn, built when its turn comes."""
        for blueprint in self._blueprints:
            folder = self.store / f"{'tiny-' if self.tiny else ''}{blueprint.id}"
            began = time.monotonic()
            build(blueprint, folder, self.placement)
            self.record("build", blueprint.id, seconds=time.monotonic() - began)
            yield Subject(entry(blueprint, folder, few_steps=self.few_steps), folder)
            self.clear()

    def clear(self) -> None:
        """Give unused memory of the device back."""
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def record(self, part: str, model: str, **figures: object) -> None:
        """Append figures to the file, and print them. Names say the unit; a rate is in pictures a second."""
        line = {
            "at": now().isoformat(timespec="seconds"),
            "part": part,
            "model": model,
            "device": self.placement.name,
            "dtype": str(self.placement.dtype).removeprefix("torch."),
            "fp8": self.placement.fp8,
            "torch": torch.__version__,
            "tiny": self.tiny,
            "few_steps": self.few_steps,
            **{name: _rounded(value) for name, value in figures.items()},
        }
        text = json.dumps(line)
        print(text, flush=True)
        with self.out.open("a") as out:
            out.write(text + "\n")

    def flops(self, subject: Subject, stock: StockPipeline) -> int:
        """Floating-point operations of one picture."""
        return picture_flops(stock, subject.orders().parameters(1)[0])

    def arithmetic(self, rate: float, flops: int) -> Mapping[str, float]:
        """What ``rate`` pictures a second of ``flops`` operations come to, to be recorded with them."""
        if self._products is None:
            self._products = product_flops_per_second(self.placement, 256 if self.tiny else 8192)
        return {
            "tflop_per_picture": flops / _TERA,
            "tflops": rate * flops / _TERA,
            "matmul_tflops": self._products / _TERA,
            "share_of_matmul": rate * flops / self._products,
        }


def _rounded(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return float(f"{value:.5g}") if isinstance(value, float) else value
