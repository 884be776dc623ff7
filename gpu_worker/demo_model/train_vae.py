"""Trains the autoencoder on drawn pictures."""

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from gpu_worker.demo_model.dataset import Dataset
from gpu_worker.demo_model.training import Run, Schedule, mixed_precision

_EDGES: Final = 0.2
_SQUARES: Final = 2.0
_TONES: Final = 0.5
_DIVERGENCE: Final = 3e-4
_COLUMNS: Final = 12
_SHOWN: Final = 64
_FOR_SCALE: Final = 256


def train_vae(
    vae: AutoencoderKL, dataset: Dataset, schedule: Schedule, folder: Path, device: torch.device
) -> None:
    """Train ``vae`` in place and leave its averaged weights in it; its scaling factor is set.

    Args:
        vae: untrained.
        dataset: of square pictures.
        schedule: how long and how fast.
        folder: for the state and for sheets of pictures beside their reconstructions.
        device: where to compute.
    """
    _start_near_identity(vae)
    run = Run([vae], schedule, folder / "vae.pt")
    draw = torch.Generator().manual_seed(schedule.steps)

    def loss_of() -> torch.Tensor:
        chosen = torch.randint(len(dataset.pictures), (schedule.batch,), generator=draw)
        with mixed_precision(device):
            return _loss(vae, pictures_at(dataset, chosen, device))

    def sheet(step: int) -> None:
        _write_sheet(vae, _first(dataset, _SHOWN, device), folder / f"vae-{step:06d}.png")

    run.train("autoencoder", loss_of, sheet)
    with torch.no_grad():
        latents = vae.encode(_first(dataset, _FOR_SCALE, device)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))


def pictures_at(dataset: Dataset, indices: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The pictures ``indices`` of ``dataset``, shape (batch, 3, height, width), values -1 to 1."""
    chosen = torch.from_numpy(dataset.pictures[indices.numpy()]).to(device, non_blocking=True)
    return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


def _first(dataset: Dataset, count: int, device: torch.device) -> torch.Tensor:
    return pictures_at(dataset, torch.arange(min(count, len(dataset.pictures))), device)


def _loss(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Pixels, their edges, their tones in squares of eight, and how far the latents are from normal noise."""
    latents = vae.encode(pictures).latent_dist
    made = vae.decode(latents.mean + latents.std * torch.randn_like(latents.mean)).sample.float()
    apart = made - pictures
    edges = torch.diff(apart, dim=2).abs().mean() + torch.diff(apart, dim=3).abs().mean()
    tones = functional.avg_pool2d(apart, 8).abs().mean()
    divergence = 0.5 * (latents.mean**2 + latents.var - 1.0 - latents.logvar).float().mean()
    pixels = apart.abs().mean() + _SQUARES * (apart**2).mean()
    loss: torch.Tensor = pixels + _EDGES * edges + _TONES * tones + _DIVERGENCE * divergence
    return loss


@torch.no_grad()
def _start_near_identity(vae: AutoencoderKL) -> None:
    """Let every residual block begin as nothing but its shortcut: the start then costs no training."""
    for module in vae.modules():
        if type(module).__name__ == "ResnetBlock2D":
            block: Any = module
            block.conv2.weight.zero_()
            block.conv2.bias.zero_()


@torch.no_grad()
def _write_sheet(vae: AutoencoderKL, pictures: torch.Tensor, file: Path) -> None:
    made = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    error = functional.mse_loss(made.clamp(-1, 1), pictures) / 4
    tqdm.write(f"{file.name}: PSNR {-10 * float(error.log10()):.2f} dB")
    rows = torch.cat([torch.cat(list(row), dim=2) for row in (pictures[:_COLUMNS], made[:_COLUMNS])], dim=1)
    pixels = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(file)
