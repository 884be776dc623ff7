"""Samplers as tables of coefficients, so that one formula advances pictures with different samplers together.

Each sampler on offer is, in each of its steps, linear in the latents ``x``, the model's output ``m``, what it
kept from the step before ``h``, and fresh normal noise ``n``::

    model input = s x
    x' = a x + b m + c h + d n
    h' = p x + q m

The coefficients depend on nothing but the sampler, the number of steps, the model's scheduler configuration
and the position. They are not derived here but read off diffusers' own schedulers, and so follow its version
and every setting of the configuration: see DDIM (arXiv:2010.02502), Euler and Karras' noise levels
(arXiv:2206.00364), DPM-Solver++ (arXiv:2211.01095) and LCM (arXiv:2310.04378) for the formulas in there.

What is left to the caller is the noise. To be what diffusers draws for a picture, it is drawn on the CPU by
the picture's own generator, with shape (1, channels, height, width) and in the model's precision: once for
the first latents, which are then multiplied by :attr:`Sampler.initial_scale`, and once, in order, in each
step that says :attr:`Step.draws`. The precision matters: where the shape is no multiple of 16 numbers, torch
draws others in half than in single precision, and leaves the generator in another state.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import torch
from diffusers import DPMSolverMultistepScheduler

from core.errors import ConfigurationError
from core.lifecycle import Scheduler
from gpu_worker.pipeline import make_scheduler

_CACHED_SAMPLERS: Final = 512
"""At 50 steps one takes about 16 kB."""
_TOLERANCE: Final = 1e-3
"""How far from linear a scheduler may be, relative to the terms of a sum: it computes in single precision."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sampler. The letters are those of the module's formulas.

    Attributes:
        timestep: what the model is told, in steps of its training; whole for most samplers.
        input_scale: ``s``.
        keep: ``a``.
        model: ``b``.
        history: ``c``.
        noise: ``d``.
        history_keep: ``p``.
        history_model: ``q``.
        draws: whether diffusers draws noise in this step, be it to multiply it by 0.
    """

    timestep: float
    input_scale: float
    keep: float
    model: float
    history: float
    noise: float
    history_keep: float
    history_model: float
    draws: bool


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler for a certain model and number of steps.

    Attributes:
        initial_scale: standard deviation of the latents that the first step gets.
        steps: in the order of sampling.
    """

    initial_scale: float
    steps: tuple[Step, ...]


def make_sampler(kind: Scheduler, config: Mapping[str, Any], *, steps: int) -> Sampler:
    """The table of ``kind`` for a model; kept, so that only the first call with equal arguments takes long.

    Args:
        kind: which sampler.
        config: the configuration of the scheduler that came with the model, of values that JSON knows.
        steps: how many steps the table has.

    Raises:
        ConfigurationError: diffusers has no such sampler for such a model, or it is not linear (it clips
            latents, or keeps more than one step's output), or it divides by zero.
    """
    return _make_sampler(kind, json.dumps(dict(config), sort_keys=True), steps)


@lru_cache(maxsize=_CACHED_SAMPLERS)
def _make_sampler(kind: Scheduler, config: str, steps: int) -> Sampler:
    try:
        scheduler = make_scheduler(kind, json.loads(config), steps=steps)
        scheduler.set_timesteps(steps)
        _drop_surplus_step(scheduler, steps)
        if hasattr(scheduler, "set_begin_index"):
            # Else a scheduler looks for its first timestep among all, and where that is there twice, as with
            # Karras' noise levels near a terminal SNR of zero, it takes the second and runs off the end.
            scheduler.set_begin_index(0)
        probe = _Probe(scheduler)
        table = tuple(probe.read(timestep) for timestep in scheduler.timesteps)
    except (IndexError, NotImplementedError, ValueError) as error:
        raise ConfigurationError(f"{kind} in {steps} steps is not for this model: {error}") from error
    return Sampler(float(scheduler.init_noise_sigma), table)


def _drop_surplus_step(scheduler: Any, steps: int) -> None:  # noqa: ANN401 - diffusers is not typed
    """Take out the step at timestep -1 that trailing timesteps end with in some numbers of steps (61, 103).

    Diffusers counts down from 1000 by 1000 / steps, and rounding can leave it just above 0 after all steps.
    """
    if len(scheduler.timesteps) == steps + 1:
        scheduler.timesteps = scheduler.timesteps[:-1]
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:-2], scheduler.sigmas[-1:]])


class _Probe:
    """Reads coefficients off a scheduler by stepping it with five pictures of one number each.

    In the first three, one of ``x``, ``m`` and ``h`` is 1 and the others are 0. In the fourth all are 0, so
    that it comes out as noise alone; all draw the same noise, so that the first three come out as this and
    the coefficients. The fifth mixes values beyond any range that a scheduler might clip to, and only has to
    come out as the coefficients say.

    The numbers are in double precision, which scalars in single precision leave as it is. So what is read
    is more exact than what the scheduler computes for a picture: near a terminal SNR of zero, Euler's first
    latents are 4096 times the noise, and the next ones, far smaller, are what a subtraction leaves of them.
    """

    def __init__(self, scheduler: Any) -> None:  # noqa: ANN401 - as above
        """Read ``scheduler``, whose timesteps are set, from its first step on."""
        self._scheduler = scheduler
        self._keeps_history = isinstance(scheduler, DPMSolverMultistepScheduler)
        self._latents = _pictures(1, 0, 0, 0, -300)
        self._output = _pictures(0, 1, 0, 0, 200)
        self._history = _pictures(0, 0, 1, 0, 100)
        self._generators = [torch.Generator().manual_seed(0) for _ in self._latents]
        self._twin = torch.Generator().manual_seed(0)

    def read(self, timestep: torch.Tensor) -> Step:
        """The step at ``timestep``, which is the scheduler's next.

        Raises:
            ValueError: it is not linear.
        """
        scaled = self._scheduler.scale_model_input(self._latents, timestep)
        self._set_history()
        moved = self._scheduler.step(
            self._output, timestep, self._latents, generator=self._generators, return_dict=False
        )[0]
        drawn = self._drawn_noise()
        keep, model, history = self._coefficients(moved)
        history_keep, history_model, _ = self._coefficients(self._kept_history())
        return Step(
            timestep=float(timestep),
            input_scale=scaled[0].item(),
            keep=keep,
            model=model,
            history=history,
            noise=0.0 if drawn is None else moved[3].item() / drawn,
            history_keep=history_keep,
            history_model=history_model,
            draws=drawn is not None,
        )

    def _set_history(self) -> None:
        if self._keeps_history:
            # What is older than one step has no place in the formula: a solver that uses it gives no number.
            older = [torch.full_like(self._history, torch.nan)] * (self._scheduler.config.solver_order - 1)
            self._scheduler.model_outputs = [*older, self._history]

    def _kept_history(self) -> torch.Tensor:
        if not self._keeps_history:
            return torch.zeros_like(self._history)
        kept: torch.Tensor = self._scheduler.model_outputs[-1]
        return kept

    def _drawn_noise(self) -> float | None:
        """What each picture drew in this step, None if nothing: the next draw of a generator like theirs."""
        if torch.equal(self._twin.get_state(), self._generators[0].get_state()):
            return None
        return torch.randn(1, generator=self._twin, dtype=torch.float64).item()

    def _coefficients(self, result: torch.Tensor) -> tuple[float, float, float]:
        """The coefficients of ``x``, ``m`` and ``h`` in ``result``, if beside noise they are all there is."""
        x, m, h, _, mixed = (result - result[3]).flatten().tolist()
        terms = (x * self._latents[4].item(), m * self._output[4].item(), h * self._history[4].item())
        # What is no number is not within anything, and so is refused too.
        if not abs(mixed - sum(terms)) <= _TOLERANCE * sum(map(abs, terms)):
            raise ValueError("its step is no finite sum of latents, output and history")
        return x, m, h


def _pictures(*values: float) -> torch.Tensor:
    """A batch of pictures of one number each, exact in single precision too."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


_COLUMNS: Final = attrgetter(*(field.name for field in fields(Step) if field.name != "draws"))


class Tick:
    """The steps that the pictures of a batch take next, each its own, on the device.

    Nothing here waits for the device. Each result is exact to the rounding of single precision, whatever the
    precision of its arguments, and does not depend on the other pictures of the batch.

    Attributes:
        timesteps: float32, shape (pictures,), for the model.
    """

    def __init__(self, steps: Sequence[Step], *, device: torch.device) -> None:
        """Take ``steps``, one for each picture of the batch and in its order, to ``device`` in one copy."""
        # Only from pinned memory does a copy not wait for what the device has still to do.
        table = torch.tensor(
            [_COLUMNS(step) for step in steps], dtype=torch.float32, pin_memory=device.type == "cuda"
        ).to(device, non_blocking=True)
        self.timesteps = table[:, 0]
        _, self._s, self._a, self._b, self._c, self._d, self._p, self._q = table[
            ..., None, None, None
        ].unbind(1)

    def model_input(self, latents: torch.Tensor) -> torch.Tensor:
        """What the model is given for ``latents``, both of shape (pictures, channels, height, width)."""
        return (self._s * latents.float()).to(latents.dtype)

    def advance(
        self,
        latents: torch.Tensor,
        output: torch.Tensor,
        history: torch.Tensor,
        noise: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents and the history after the step. All tensors have the shape of ``latents``.

        Args:
            latents: (pictures, channels, height, width).
            output: what the model made of :meth:`model_input` at :attr:`timesteps`, guidance included.
            history: what this method gave for the step before; zeros before the first.
            noise: standard normal where the step draws, zeros elsewhere; None where no step draws. Zeros
                rather than whatever was left there: what is no number stays none when it is multiplied by 0.

        Returns:
            New latents and new history, in the precisions of the old.
        """
        x, m, h = latents.float(), output.float(), history.float()
        moved = torch.addcmul(torch.addcmul(self._a * x, self._b, m), self._c, h)
        if noise is not None:
            moved = torch.addcmul(moved, self._d, noise.float())
        kept = torch.addcmul(self._p * x, self._q, m)
        return moved.to(latents.dtype), kept.to(history.dtype)
