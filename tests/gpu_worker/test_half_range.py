"""Decoders whose activations leave the range of half precision."""

import shutil
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.upsampling import Upsample2D

from benchmarks.likeness import psnr
from core.catalogue import DirectorySource, ModelEntry
from gpu_worker.engine import Engine, Policy
from gpu_worker.engine.half_range import SHRINKING, shrink
from gpu_worker.pipeline import Placement
from tests.gpu_worker.test_engine import make, picture

LARGEST = torch.finfo(torch.float16).max


def decoder_in(folder: Path, *, largest: float) -> AutoencoderKL:
    """The model's, but the numbers of its residual stream grow to be so large."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    seen: list[float] = []
    hook = vae.decoder.conv_norm_out.register_forward_pre_hook(
        lambda _, given: seen.append(float(given[0].abs().max()))
    )
    decoded(vae)
    hook.remove()
    growing = [part.conv for part in vae.decoder.modules() if isinstance(part, Upsample2D)]
    gain = (largest / seen[0]) ** (1 / len(growing))
    with torch.no_grad():
        for layer in growing:
            layer.weight.mul_(gain)
            layer.bias.mul_(gain)
    return vae


def latents() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def decoded(vae: AutoencoderKL) -> torch.Tensor:
    found: torch.Tensor = vae.decode(latents().to(vae.dtype), return_dict=False)[0]
    return found.float()


def test_a_shrunk_decoder_gives_what_the_original_gives(model_folder: Path) -> None:
    original, shrunk = (AutoencoderKL.from_pretrained(model_folder, subfolder="vae").eval() for _ in "ab")
    shrink(shrunk.decoder)
    torch.testing.assert_close(decoded(shrunk), decoded(original), atol=1e-4, rtol=1e-3)
    weights = (vae.decoder.mid_block.resnets[0].conv1.weight for vae in (shrunk, original))
    assert torch.equal(next(weights), next(weights) * SHRINKING)


def test_sums_too_large_for_half_precision_fit_into_a_shrunk_decoder(model_folder: Path) -> None:
    loud, shrunk = (decoder_in(model_folder, largest=10 * LARGEST) for _ in "ab")
    single = decoded(loud)
    shrink(shrunk.decoder)
    assert not decoded(loud.half()).isfinite().all()
    assert (decoded(shrunk.half()) - single).abs().mean() < 0.01 * single.std()


@pytest.mark.parametrize("largest", [10 * LARGEST, 1000 * LARGEST], ids=["shrunk", "even then too large"])
def test_pictures_of_such_a_decoder_are_those_of_single_precision(
    largest: float, model_folder: Path, demo_entry: ModelEntry, tmp_path: Path
) -> None:
    folder = tmp_path / "loud"
    shutil.copytree(model_folder, folder)
    decoder_in(model_folder, largest=largest).save_pretrained(folder / "vae")
    loud = demo_entry.model_copy(update={"source": DirectorySource(kind="directory", path=folder)})
    made = []
    for dtype in (torch.float16, torch.float32):
        engine = Engine(
            placement=Placement(torch.device("cpu"), dtype), policy=Policy(capacity=4, fill=0, patience=100)
        )
        engine.offer(loud, folder)
        made += make(engine, picture(job=uuid4()))
    assert psnr(*made) >= 35
