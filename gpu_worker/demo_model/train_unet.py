"""Trains the U-Net on the latents of drawn pictures and their embedded captions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional

from gpu_worker.demo_model.architecture import LATENT_STEP, WINDOW
from gpu_worker.demo_model.dataset import CAPTIONS_PER_SCENE, SHAPES, Dataset
from gpu_worker.demo_model.measures import VIVID_SATURATION, VIVID_VALUE
from gpu_worker.demo_model.tokens import token_ids
from gpu_worker.demo_model.train_vae import pictures_at
from gpu_worker.demo_model.training import Run, Schedule, mixed_precision

_UNCAPTIONED: Final = 0.1
"""The share of pictures without a caption, from which guidance gets its idea of nothing in particular."""

_SNR_CAP: Final = 5.0
_LEAST_WEIGHT: Final = 0.5
_ON_SUBJECT: Final = 2.5
"""How much more an error on the subject counts than one on the landscape, of which there is so much more."""

_ENCODE_AT_ONCE: Final = {"cuda": 256, "cpu": 8}


@dataclass(frozen=True, slots=True)
class _Latents:
    """What the U-Net is trained on, of pictures of one size.

    Attributes:
        values: shape (count, channels, rows, columns), half precision, scaled to a spread of 1.
        weights: shape (count, 1, rows, columns): what an error there counts.
        tokens: shape (count, captions, window).
    """

    values: torch.Tensor
    weights: torch.Tensor
    tokens: torch.Tensor


def train_unet(
    pipeline: StableDiffusionPipeline,
    datasets: list[Dataset],
    schedule: Schedule,
    folder: Path,
    show: Callable[[int], None],
) -> None:
    """Train the U-Net of ``pipeline`` and leave its averaged weights in it.

    Args:
        pipeline: with a trained autoencoder and text encoder; on the device that is to compute.
        datasets: one for each of ``SHAPES``.
        schedule: how long and how fast.
        folder: for the state.
        show: called with the number of steps done, with the averaged weights in place.
    """
    run = Run([pipeline.unet], schedule, folder / "unet.pt")
    objective = _Objective(pipeline, datasets, batch=schedule.batch, seed=schedule.steps + run.step)
    run.train("U-Net", objective.loss, show)


class _Objective:
    """The loss of the velocity (Salimans and Ho, 2022) on random pictures, captions and levels of noise.

    Weighted by the capped signal-to-noise ratio (Hang et al., "Efficient Diffusion Training via Min-SNR
    Weighting Strategy", 2023).
    """

    def __init__(
        self, pipeline: StableDiffusionPipeline, datasets: list[Dataset], *, batch: int, seed: int
    ) -> None:
        self._batch = batch
        self._device = device = pipeline.device
        self._text_encoder = pipeline.text_encoder
        self._latents = [_encoded(dataset, pipeline) for dataset in datasets]
        width = pipeline.text_encoder.config.hidden_size
        self._denoise = [_Denoiser.ready(pipeline.unet, one, batch, width) for one in self._latents]
        self._nothing = token_ids(pipeline.tokenizer, [""]).to(device)[0].long()
        self._signal = pipeline.scheduler.alphas_cumprod.to(device)
        self._shares = torch.tensor(list(SHAPES.values()))
        self._draw = torch.Generator().manual_seed(seed)
        self._random = torch.Generator(device).manual_seed(seed)

    def loss(self) -> torch.Tensor:
        """The loss of one more batch, all of one shape."""
        shape = int(torch.multinomial(self._shares, 1, generator=self._draw))
        clean, weights, tokens = self._pick(self._latents[shape])
        times = _levels(self._batch, len(self._signal), self._random)
        noise = torch.randn(clean.shape, generator=self._random, device=self._device)
        alpha = self._signal[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        with torch.no_grad(), mixed_precision(self._device):
            embedded = self._text_encoder(tokens).last_hidden_state.float()
        made = self._denoise[shape](noisy, times, embedded).float()
        weight = _importance(alpha) * weights
        loss: torch.Tensor = (weight * (made - velocity) ** 2).mean() / weight.mean()
        return loss

    def _pick(self, latents: _Latents) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(latents.values), (self._batch,), generator=self._draw).to(self._device)
        told = torch.randint(CAPTIONS_PER_SCENE, (self._batch,), generator=self._draw).to(self._device)
        tokens = latents.tokens[chosen, told].long()
        silent = torch.rand(self._batch, generator=self._random, device=self._device) < _UNCAPTIONED
        tokens[silent] = self._nothing
        return latents.values[chosen].float(), latents.weights[chosen], tokens


def _levels(count: int, levels: int, random: torch.Generator) -> torch.Tensor:
    """Noise levels for one batch, shape (count,), each as likely as it is noisy.

    What stands where is decided while there is mostly noise, and is harder to learn than what it looks like.
    One from each of ``count`` equally likely ranges, so that there is less luck in a batch.
    """
    ranges = torch.arange(count, device=random.device)
    within = torch.rand(count, generator=random, device=random.device)
    return (((ranges + within) / count).sqrt() * levels).long().clamp(max=levels - 1)


def _importance(alpha: torch.Tensor) -> torch.Tensor:
    """The capped signal-to-noise ratio over itself and one: the loss of the velocity as one of the noise."""
    ratio = alpha / (1 - alpha).clamp(min=1e-8)
    return (ratio.clamp(max=_SNR_CAP) / (ratio + 1)).clamp(min=_LEAST_WEIGHT)


class _Denoiser(nn.Module):
    """The U-Net at one shape.

    On CUDA in mixed precision, and a graph is replayed: launching its many small kernels one by one takes
    longer than running them.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._unet = unet

    @classmethod
    def ready(cls, unet: UNet2DConditionModel, latents: _Latents, batch: int, text_width: int) -> nn.Module:
        denoiser = cls(unet)
        if unet.device.type != "cuda":
            return denoiser
        sample = (
            torch.zeros(batch, *latents.values.shape[1:], device=unet.device),
            torch.zeros(batch, dtype=torch.long, device=unet.device),
            torch.zeros(batch, WINDOW, text_width, device=unet.device),
        )
        return cast("nn.Module", torch.cuda.make_graphed_callables(denoiser, sample))

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        with mixed_precision(noisy.device, cached=False):
            made: torch.Tensor = self._unet(noisy, times, embedded).sample
        return made


@torch.no_grad()
def _encoded(dataset: Dataset, pipeline: StableDiffusionPipeline) -> _Latents:
    vae, device = pipeline.vae, pipeline.device
    values, weights = [], []
    for indices in torch.split(torch.arange(len(dataset.pictures)), _ENCODE_AT_ONCE[device.type]):
        pictures = pictures_at(dataset, indices, device)
        with mixed_precision(device):
            mean = vae.encode(pictures).latent_dist.mean
        values.append((mean * vae.config.scaling_factor).half())
        weights.append(_weights(pictures).half())
    tokens = token_ids(
        pipeline.tokenizer,
        [caption for captions in dataset.captions for caption in captions],
    )
    return _Latents(
        values=torch.cat(values),
        weights=torch.cat(weights),
        tokens=tokens.view(-1, CAPTIONS_PER_SCENE, WINDOW).to(device),
    )


def _weights(pictures: torch.Tensor) -> torch.Tensor:
    """More where the subject is, found as the measures find it; shape (batch, 1, rows, columns)."""
    high = (pictures.amax(dim=1, keepdim=True) + 1) / 2
    low = (pictures.amin(dim=1, keepdim=True) + 1) / 2
    vivid = (high >= VIVID_VALUE) & (high - low >= VIVID_SATURATION * high)
    return 1 + (_ON_SUBJECT - 1) * functional.max_pool2d(vivid.float(), LATENT_STEP)
