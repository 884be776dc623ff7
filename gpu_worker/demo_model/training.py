"""What the training of every part shares: a cosine schedule, averaged weights, precision, a saved state."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from tqdm import tqdm

_SAVE_EVERY: Final = 1000
_CLIP: Final = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. ``average`` is the share of the old in each step of the averaged weights."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int
    average: float


def mixed_precision(device: torch.device, *, cached: bool = True) -> torch.autocast:
    """Products in bfloat16 on CUDA; single precision elsewhere, since most processors only emulate the other.

    Args:
        device: that computes.
        cached: whether weights are converted once for all of the block, which a CUDA graph does not allow.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=cached)


class Run:
    """The training of some modules together, continued from its file where there is one.

    Args:
        modules: trained in place.
        schedule: how long and how fast.
        file: where the state is kept between runs.
    """

    def __init__(self, modules: Sequence[nn.Module], schedule: Schedule, file: Path) -> None:
        self._modules = nn.ModuleList(modules)
        self._schedule = schedule
        self._file = file
        self._parameters = list(self._modules.parameters())
        self._averages = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=schedule.learning_rate, weight_decay=0.01, betas=(0.9, 0.99), fused=True
        )
        self.step = 0
        if file.exists():
            self._load()

    def train(self, name: str, loss_of: Callable[[], torch.Tensor], show: Callable[[int], None]) -> None:
        """Take the steps that are left, and leave the averaged weights in the modules.

        Args:
            name: what the progress bar says.
            loss_of: the loss of one more batch.
            show: called with the number of steps done each time the state has been saved, with the averaged
                weights in place.
        """
        bar = tqdm(total=self._schedule.steps, initial=self.step, desc=name, unit="step", mininterval=5)
        with bar:
            while self.step < self._schedule.steps:
                loss = self._advance(loss_of)
                bar.update()
                if self.step % 100 == 0:
                    bar.set_postfix(loss=f"{float(loss):.4f}")
                if self.step % _SAVE_EVERY == 0 or self.step == self._schedule.steps:
                    self._save()
                    self._exchange_averages()
                    show(self.step)
                    self._exchange_averages()
        self._exchange_averages()

    def _exchange_averages(self) -> None:
        """Exchange the weights with their averages; a second call puts them back."""
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            kept = parameter.detach().clone()
            parameter.data.copy_(average)
            average.copy_(kept)

    def _advance(self, loss_of: Callable[[], torch.Tensor]) -> torch.Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.learning_rate * self._rate()
        loss = loss_of()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch's own has no annotations
        nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        self._optimizer.step()
        self.step += 1
        # A young average follows faster, so that it never holds on to the random start.
        kept = min(self._schedule.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self._averages, [one.detach() for one in self._parameters], 1 - kept)
        return loss.detach()

    def _rate(self) -> float:
        """The share of the full learning rate: a rise, then half a cosine down to a hundredth."""
        if self.step < self._schedule.warm_up:
            return (self.step + 1) / self._schedule.warm_up
        done = (self.step - self._schedule.warm_up) / max(1, self._schedule.steps - self._schedule.warm_up)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

    def _save(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "modules": self._modules.state_dict(),
            "averages": self._averages,
            "optimizer": self._optimizer.state_dict(),
        }
        partial = self._file.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(self._file)

    def _load(self) -> None:
        state = torch.load(self._file, map_location=self._parameters[0].device, weights_only=True)
        self.step = state["step"]
        self._modules.load_state_dict(state["modules"])
        self._averages = state["averages"]
        self._optimizer.load_state_dict(state["optimizer"])
