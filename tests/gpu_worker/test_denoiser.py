"""Buckets: a compiled U-Net gets batches of a few sizes only, and gives what the plain one gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from core.telemetry import UNET_ROWS
from gpu_worker.engine.denoiser import Compilation, Denoiser


@pytest.fixture(scope="module")
def unet(model_folder: Path) -> UNet2DConditionModel:
    found: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(model_folder, subfolder="unet")
    return found.eval()


class Compiler:
    """Traces as for CUDA, and runs what was traced as it is: no C compiler is needed."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, unet: nn.Module) -> Callable[..., Any]:
        compiled = torch.compile(unet, backend="aot_eager", dynamic=False, fullgraph=True)

        def noting(**inputs: Any) -> Any:
            self.sizes.append(len(inputs["sample"]))
            return compiled(**inputs)

        return noting


def inputs(unet: UNet2DConditionModel, rows: int, *, side: int = 8) -> dict[str, torch.Tensor]:
    config, random = unet.config, torch.Generator().manual_seed(rows)
    return {
        "sample": torch.randn(rows, config.in_channels, side, side, generator=random),
        "timestep": torch.linspace(1, 999, rows),
        "encoder_hidden_states": torch.randn(rows, 77, config.cross_attention_dim, generator=random),
    }


def rows_counted(kind: str) -> float:
    return float(UNET_ROWS.labels(kind=kind)._value.get())


@torch.inference_mode()
def test_a_batch_is_padded_to_the_next_bucket_and_its_rows_stay_what_they_are(
    unet: UNet2DConditionModel,
) -> None:
    compiler = Compiler()
    denoiser = Denoiser(unet, Compilation(buckets=(4, 2), compiler=compiler))
    denoiser.warm_up(inputs(unet, 1))
    assert set(compiler.sizes) == {2, 4}
    compiler.sizes.clear()
    pictures, padding = rows_counted("pictures"), rows_counted("padding")
    for rows in (1, 2, 3, 4):
        given = inputs(unet, rows)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
    assert compiler.sizes == [2, 2, 4, 4]
    assert (rows_counted("pictures") - pictures, rows_counted("padding") - padding) == (10, 2)


@torch.inference_mode()
@pytest.mark.parametrize(("rows", "side"), [(5, 8), (2, 16)])
def test_what_was_not_warmed_up_runs_uncompiled(unet: UNet2DConditionModel, rows: int, side: int) -> None:
    compiler = Compiler()
    denoiser = Denoiser(unet, Compilation(buckets=(2,), compiler=compiler))
    denoiser.warm_up(inputs(unet, 1))
    compiler.sizes.clear()
    given = inputs(unet, rows, side=side)
    torch.testing.assert_close(denoiser(given), unet(**given, return_dict=False)[0])
    assert compiler.sizes == []


@torch.inference_mode()
def test_without_compilation_nothing_is_padded(unet: UNet2DConditionModel) -> None:
    padding = rows_counted("padding")
    given = inputs(unet, 3)
    denoiser = Denoiser(unet, None)
    denoiser.warm_up(given)
    torch.testing.assert_close(denoiser(given), unet(**given, return_dict=False)[0])
    assert rows_counted("padding") == padding
