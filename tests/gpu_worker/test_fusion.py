"""A fused U-Net and a fused decoder give what diffusers' own give."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from gpu_worker.engine import fusion
from gpu_worker.engine.fp8 import Fp8Linear
from gpu_worker.engine.fusion import Upsampling, fuse
from tests.gpu_worker.tiny_model import build_xl


def assert_alike(ours: torch.Tensor, original: torch.Tensor) -> None:
    torch.testing.assert_close(ours, original, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def xl_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-xl"
    build_xl(model_folder, folder)
    return folder


def unet_in(folder: Path, **changed: Any) -> UNet2DConditionModel:
    found: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **changed)
    return found.eval()


def inputs(unet: UNet2DConditionModel, *, height: int = 8, width: int = 16) -> dict[str, Any]:
    config, random = unet.config, torch.Generator().manual_seed(1)
    found: dict[str, Any] = {
        "sample": torch.randn(3, config.in_channels, height, width, generator=random),
        "timestep": torch.tensor([1.0, 500.0, 999.0]),
        "encoder_hidden_states": torch.randn(3, 77, config.cross_attention_dim, generator=random),
    }
    if config.addition_embed_type:
        sizes = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * 3)
        found["added_cond_kwargs"] = {
            "text_embeds": torch.randn(3, 32, generator=random),
            "time_ids": sizes,
        }
    return found


def left(model: nn.Module) -> list[str]:
    kinds = (ResnetBlock2D, BasicTransformerBlock, Upsample2D)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["plain", "xl"])
@pytest.mark.parametrize("size", [(8, 16), (7, 16), (9, 5)], ids=str)
def test_a_fused_unet_gives_what_the_original_gives(
    kind: str, size: tuple[int, int], model_folder: Path, xl_folder: Path
) -> None:
    folder = model_folder if kind == "plain" else xl_folder
    original, fused = unet_in(folder), unet_in(folder)
    fuse(fused)
    assert left(original)
    assert left(fused) == []
    given = inputs(original, height=size[0], width=size[1])
    assert_alike(fused(**given).sample, original(**given).sample)


@torch.inference_mode()
def test_a_unet_that_multiplies_in_eight_bits_gives_nearly_the_same(
    xl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "NARROWEST", 1)
    original, fused = unet_in(xl_folder), unet_in(xl_folder)
    fuse(fused, fp8=True)
    assert any(isinstance(module, Fp8Linear) for module in fused.modules())
    given = inputs(original)
    exact, ours = original(**given).sample, fused(**given).sample
    assert 0 < (ours - exact).norm() / exact.norm() < 0.05


@torch.inference_mode()
def test_narrow_layers_keep_their_precision(xl_folder: Path) -> None:
    fused = unet_in(xl_folder)
    fuse(fused, fp8=True)
    assert not any(isinstance(module, Fp8Linear) for module in fused.modules())


@torch.inference_mode()
def test_a_fused_decoder_gives_what_the_original_gives(model_folder: Path) -> None:
    original, fused = (AutoencoderKL.from_pretrained(model_folder, subfolder="vae").eval() for _ in range(2))
    fuse(fused)
    assert left(fused) == []
    latents = torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    assert_alike(fused.decode(latents).sample, original.decode(latents).sample)


@torch.inference_mode()
def test_what_is_of_another_form_stays_as_it_is(model_folder: Path) -> None:
    changed = {"resnet_time_scale_shift": "scale_shift", "upcast_attention": True}
    torch.manual_seed(1)
    original = UNet2DConditionModel.from_config(unet_in(model_folder).config, **changed).eval()
    given = inputs(original)
    expected = original(**given).sample
    before = [name for name in left(original) if "upsamplers" not in name]
    fuse(original)
    assert left(original) == before
    assert_alike(original(**given).sample, expected)


@torch.inference_mode()
def test_enlarging_and_convolving_at_once_is_enlarging_and_convolving() -> None:
    torch.manual_seed(1)
    layer = Upsample2D(6, use_conv=True, out_channels=5).double().eval()
    pixels = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    ours = Upsampling(layer)
    torch.testing.assert_close(ours(pixels), layer(pixels), atol=1e-6, rtol=1e-6)
    for size in ((6, 8), (5, 8), (6, 7)):
        torch.testing.assert_close(ours(pixels, size), layer(pixels, size), atol=1e-6, rtol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize(
    "other",
    [
        {"use_conv": False},
        {"use_conv_transpose": True},
        {"use_conv": True, "kernel_size": 5, "padding": 2},
        {"use_conv": True, "norm_type": "ln_norm", "eps": 1e-5, "elementwise_affine": True},
        {"use_conv": True, "interpolate": False},
        {"use_conv": True, "name": "Conv2d_0"},
    ],
    ids=str,
)
def test_enlarging_of_another_form_stays_as_it_is(other: dict[str, Any]) -> None:
    parent = nn.Sequential(Upsample2D(4, **other))
    fuse(parent)
    assert isinstance(parent[0], Upsample2D)


@torch.inference_mode()
def test_fusing_keeps_no_second_copy_of_the_weights(model_folder: Path) -> None:
    original, fused = unet_in(model_folder), unet_in(model_folder)
    fuse(fused)
    # Of nine weights, sixteen sums are kept.
    sums = sum(module.weight.numel() for module in fused.modules() if isinstance(module, Upsampling))
    ours, plain = (sum(one.numel() for one in model.parameters()) for model in (fused, original))
    assert ours - sums * 7 // 16 == plain
