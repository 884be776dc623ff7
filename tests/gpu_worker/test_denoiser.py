"""Buckets: a recorded U-Net gets batches of a few sizes only, and gives what the plain one gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.telemetry import UNET_ROWS
from gpu_worker.engine.denoiser import Denoiser


@pytest.fixture(scope="module")
def unet(model_folder: Path) -> UNet2DConditionModel:
    found: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(model_folder, subfolder="unet")
    return found.eval()


class Recorder:
    """Records as CUDA graphs do: a function runs again on the same tensors, whatever they hold by then."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def noting() -> torch.Tensor:
            answer = function()
            self.sizes.append(len(answer))
            return answer

        noting()
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
    recorder = Recorder()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2, 4))
    denoiser.warm_up(inputs(unet, 1))
    assert recorder.sizes == [4, 2]
    recorder.sizes.clear()
    pictures, padding = rows_counted("pictures"), rows_counted("padding")
    for rows in (1, 2, 3, 4):
        given = inputs(unet, rows)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
    assert recorder.sizes == [2, 2, 4, 4]
    assert (rows_counted("pictures") - pictures, rows_counted("padding") - padding) == (10, 2)


@torch.inference_mode()
@pytest.mark.parametrize(("rows", "side"), [(5, 8), (2, 16)])
def test_what_was_not_warmed_up_runs_unrecorded(unet: UNet2DConditionModel, rows: int, side: int) -> None:
    recorder = Recorder()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2,))
    denoiser.warm_up(inputs(unet, 1))
    recorder.sizes.clear()
    given = inputs(unet, rows, side=side)
    torch.testing.assert_close(denoiser(given), unet(**given, return_dict=False)[0])
    assert recorder.sizes == []


@torch.inference_mode()
def test_a_bucket_that_there_is_no_memory_for_is_left_out(unet: UNet2DConditionModel) -> None:
    class Small(Recorder):
        def __call__(self, function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
            if len(function()) > 2:
                raise torch.OutOfMemoryError
            return super().__call__(function)

    recorder = Small()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2, 4))
    denoiser.warm_up(inputs(unet, 1))
    recorder.sizes.clear()
    for rows in (2, 3):
        given = inputs(unet, rows)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
    assert recorder.sizes == [2]


@torch.inference_mode()
def test_without_a_recorder_nothing_is_padded(unet: UNet2DConditionModel) -> None:
    padding = rows_counted("padding")
    given = inputs(unet, 3)
    denoiser = Denoiser(unet)
    denoiser.warm_up(given)
    torch.testing.assert_close(denoiser(given), unet(**given, return_dict=False)[0])
    assert rows_counted("padding") == padding
