"""Small pictures of what is being denoised, cheap enough to make between two steps.

The decoder takes as long as several steps, so a preview does without it: the colour of each 8 by 8 pixels is
taken to be a linear function of the latents there. That function belongs to the model's autoencoder, and is
learned from the pictures that this process has finished. It is applied to the model's present estimate of the
clean picture; the latents themselves are mostly noise until the last steps.
"""

import base64
import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from core.catalogue import SIZE_STEP
from core.errors import ConfigurationError
from core.lifecycle import Scheduler
from gpu_worker.pipeline import make_scheduler
from gpu_worker.samplers import Step

LONGEST_SIDE: Final = 256
"""Pixels of a preview's longer side at the most."""
_JPEG_QUALITY: Final = 70
_FADING: Final = 0.99
"""What a picture still counts after the next one, so that the sums stay of one size."""
_RIDGE: Final = 1e-3
"""Against latents of about unit variance: decides what a first picture of a single colour leaves open."""


class LatentColours:
    """The linear map from one model's latents to colours. Not for two threads at once.

    Least squares by the normal equations, in double precision. Every picture counts the same, whatever its
    size, and the older ones fade.
    """

    def __init__(self) -> None:
        self._products: NDArray[np.float64] | None = None
        self._sums: NDArray[np.float64] | None = None
        self._map: NDArray[np.float64] | None = None

    def learn(self, latents: torch.Tensor, pixels: NDArray[np.uint8]) -> None:
        """Take a finished picture into account; one whose latents are no numbers is left out.

        Args:
            latents: as the last step left them, shape (channels, height / 8, width / 8), on any device.
            pixels: what the decoder made of them, shape (height, width, 3), values 0 to 255.
        """
        inputs = _inputs(latents)
        if not np.isfinite(inputs).all():
            return
        means = np.asarray(Image.fromarray(pixels).reduce(SIZE_STEP), dtype=np.float64).reshape(-1, 3)
        products: NDArray[np.float64] = inputs @ inputs.T / len(means)
        sums: NDArray[np.float64] = inputs @ means / len(means)
        if self._products is not None and self._sums is not None:
            products += _FADING * self._products
            sums += _FADING * self._sums
        self._products, self._sums = products, sums
        ridge = np.diag([_RIDGE] * (len(products) - 1) + [0.0])
        self._map = np.linalg.solve(products + ridge, sums).astype(np.float64, copy=False)

    def draw(self, latents: torch.Tensor) -> Image.Image | None:
        """A small RGB picture of clean ``latents``, its longer side no more than ``LONGEST_SIDE`` pixels.

        Args:
            latents: an estimate of the finished ones, shape (channels, height / 8, width / 8), on any device.

        Returns:
            The preview, never larger than the picture; none before the first picture was learned from, and
            none of what is no numbers.
        """
        if self._map is None:
            return None
        inputs = _inputs(latents)
        if not np.isfinite(inputs).all():
            return None
        rows, columns = latents.shape[1:]
        colours = (inputs.T @ self._map).round().clip(0, 255).astype(np.uint8).reshape(rows, columns, 3)
        scale = min(SIZE_STEP, LONGEST_SIDE / max(rows, columns))
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


class NoiseSchedule:
    """From a model's answer to the clean picture that it means, as the model was trained to answer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read the schedule.

        Args:
            config: the configuration of the scheduler that came with the model.
        """
        # Any sampler has the levels of the training; this one takes every configuration.
        scheduler = make_scheduler(Scheduler.DDIM, config, steps=1)
        self._alphas: NDArray[np.float64] = scheduler.alphas_cumprod.double().numpy()
        self._prediction_type: str = scheduler.config.prediction_type

    def clean(self, step: Step, latents: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The model's estimate of the finished latents, single precision, the shape of ``latents``.

        Args:
            step: the one that is being taken.
            latents: from before the step, any shape.
            output: the model's answer to them, guidance included, the shape of ``latents``.

        Raises:
            ConfigurationError: the model answers with something that diffusers has no name for.
        """
        return clean_estimate(
            step.input_scale * latents.float(), output.float(), self._alpha(step), self._prediction_type
        )

    def _alpha(self, step: Step) -> float:
        """The share of the picture in the variance of the model's input."""
        if step.input_scale != 1:
            # Latents that are a picture of unit variance plus noise of deviation sigma (Euler's): the model
            # gets them divided by sqrt(1 + sigma²), whatever whole timestep it is told.
            return step.input_scale**2
        # Latents that are the model's input have the level of their timestep, which need not be whole.
        return float(np.interp(step.timestep, np.arange(len(self._alphas)), self._alphas))


def clean_estimate(
    latents: torch.Tensor, output: torch.Tensor, alpha: float, prediction_type: str
) -> torch.Tensor:
    """Solve for the clean latents ``x0``; all tensors have the shape of ``latents``.

    With noise ``e`` of unit variance, ``latents = sqrt(alpha) x0 + sqrt(1 - alpha) e``. The model estimates
    ``e`` (arXiv:2006.11239), or ``v = sqrt(alpha) e - sqrt(1 - alpha) x0`` (arXiv:2202.00512), or ``x0``.

    Args:
        latents: variance-preserving, that is, as the model was given them.
        output: the model's answer.
        alpha: the cumulative product of the training's schedule, above 0 and up to 1; 0 is nothing but noise,
            which a model that estimates noise cannot start from, and the others can.
        prediction_type: ``epsilon``, ``v_prediction`` or ``sample``, as diffusers names them.

    Raises:
        ConfigurationError: another prediction type.
    """
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    match prediction_type:
        case "epsilon":
            clean: torch.Tensor = (latents - noise * output) / signal
        case "v_prediction":
            clean = signal * latents - noise * output
        case "sample":
            clean = output
        case _:
            raise ConfigurationError(f"no preview of a model that predicts {prediction_type}")
    return clean


def data_url(preview: Image.Image) -> str:
    """``preview`` as a JPEG in a ``data:`` URL (RFC 2397), a few kilobytes."""
    file = io.BytesIO()
    preview.save(file, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _inputs(latents: torch.Tensor) -> NDArray[np.float64]:
    """What is mapped: for each place its latents and a one, shape (channels + 1, places)."""
    values = latents.detach().flatten(1).cpu().numpy()
    return np.vstack([values, np.ones(values.shape[1])], dtype=np.float64)
