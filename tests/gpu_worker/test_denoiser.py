"""Buckets: a recorded U-Net gets batches of a few sizes only, and gives what the plain one gives."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.telemetry import UNET_ROWS
from gpu_worker.engine.denoiser import Denoiser

_Answer = TypeVar("_Answer")


@pytest.fixture(scope="module")
def unet(model_folder: Path) -> UNet2DConditionModel:
    found: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(model_folder, subfolder="unet")
    return found.eval()


class Recorder:
    """Records as CUDA graphs do: a function runs again on the same tensors, whatever they hold by then."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, function: Callable[[], _Answer]) -> Callable[[], _Answer]:
        def replay() -> _Answer:
            answer = function()
            self.replayed.append(rows_of(answer))
            return answer

        self.recorded.append(rows_of(function()))
        return replay


def inputs(
    unet: UNet2DConditionModel, rows: int, *, side: int = 8, tokens: int = 77
) -> dict[str, torch.Tensor]:
    config, random = unet.config, torch.Generator().manual_seed(rows)
    return {
        "sample": torch.randn(rows, config.in_channels, side, side, generator=random),
        "timestep": torch.linspace(1, 999, rows),
        "encoder_hidden_states": torch.randn(rows, tokens, config.cross_attention_dim, generator=random),
    }


def rows_of(answer: object) -> int:
    assert isinstance(answer, torch.Tensor)
    return len(answer)


def rows_counted(kind: str) -> float:
    return float(UNET_ROWS.labels(kind=kind)._value.get())


@torch.inference_mode()
def test_a_batch_is_padded_to_the_next_bucket_and_its_rows_stay_what_they_are(
    unet: UNet2DConditionModel,
) -> None:
    recorder = Recorder()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2, 4))
    denoiser.warm_up(inputs(unet, 1))
    assert recorder.recorded == [4, 2]
    pictures, padding = rows_counted("pictures"), rows_counted("padding")
    for rows in (1, 2, 3, 4):
        given = inputs(unet, rows)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
    assert recorder.replayed == [2, 2, 4, 4]
    assert (rows_counted("pictures") - pictures, rows_counted("padding") - padding) == (10, 2)


@torch.inference_mode()
def test_a_batch_beyond_every_bucket_runs_unrecorded(unet: UNet2DConditionModel) -> None:
    recorder = Recorder()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2,))
    denoiser.warm_up(inputs(unet, 1))
    given = inputs(unet, 5)
    torch.testing.assert_close(denoiser(given), unet(**given, return_dict=False)[0])
    assert recorder.replayed == []


@torch.inference_mode()
def test_another_shape_is_recorded_when_a_batch_of_its_size_comes_again(unet: UNet2DConditionModel) -> None:
    recorder = Recorder()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2, 4))
    denoiser.warm_up(inputs(unet, 1))
    recorder.recorded.clear()
    seen = []
    for rows in (2, 1, 2, 4, 3):
        given = inputs(unet, rows, side=16)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
        seen.append((list(recorder.recorded), list(recorder.replayed)))
    assert seen == [([], []), ([2], [2]), ([2], [2, 2]), ([2], [2, 2]), ([2, 4], [2, 2, 4])]


@torch.inference_mode()
def test_the_shape_that_has_been_away_longest_is_forgotten_but_not_what_was_warmed_up(
    unet: UNet2DConditionModel,
) -> None:
    recorder = Recorder()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(1,))
    denoiser.warm_up(inputs(unet, 1))

    def replays(tokens: int) -> bool:
        recorder.replayed.clear()
        denoiser(inputs(unet, 1, tokens=tokens))
        return bool(recorder.replayed)

    for tokens in range(1, 17):
        assert [replays(tokens), replays(tokens)] == [False, True]
    assert replays(1)
    assert not replays(17)
    assert [replays(tokens) for tokens in (77, 1, 3)] == [True, True, True]
    assert not replays(2)


@torch.inference_mode()
def test_sizes_of_another_shape_are_fewer_and_batches_padded_to_them(unet: UNet2DConditionModel) -> None:
    denoiser = Denoiser(unet, recorder=Recorder(), buckets=(1, 2, 4, 6, 8, 10))
    padding = rows_counted("padding")
    added = []
    for rows in (1, 2, 3, 4, 5, 6, 9):
        given = inputs(unet, rows)
        denoiser(given)
        added.append(rows_counted("padding") - padding)
        padding = rows_counted("padding")
    # 10, and of those below what is at most half of the one before: 4, 2, 1.
    assert added == [0, 0, 1, 0, 5, 4, 1]


@torch.inference_mode()
def test_a_bucket_that_there_is_no_memory_for_is_left_out(unet: UNet2DConditionModel) -> None:
    class Small(Recorder):
        def __call__(self, function: Callable[[], _Answer]) -> Callable[[], _Answer]:
            if rows_of(function()) > 2:
                raise torch.OutOfMemoryError
            return super().__call__(function)

    recorder = Small()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2, 4))
    denoiser.warm_up(inputs(unet, 1))
    for rows in (2, 3):
        given = inputs(unet, rows)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
    assert recorder.replayed == [2]


@torch.inference_mode()
def test_what_the_device_refuses_to_record_runs_as_it_is_from_then_on(unet: UNet2DConditionModel) -> None:
    class Refusing(Recorder):
        def __call__(self, function: Callable[[], _Answer]) -> Callable[[], _Answer]:
            if rows_of(function()) > 2:
                self.recorded.append(0)
                raise torch.AcceleratorError
            return super().__call__(function)

    recorder = Refusing()
    denoiser = Denoiser(unet, recorder=recorder, buckets=(2, 4, 8))
    for rows in (3, 3, 3, 7, 2, 2):
        given = inputs(unet, rows)
        expected = unet(**given, return_dict=False)[0]
        torch.testing.assert_close(denoiser(given), expected, atol=1e-4, rtol=1e-4)
    assert (recorder.recorded, recorder.replayed) == ([0, 2], [2])


@torch.inference_mode()
def test_without_a_recorder_nothing_is_padded(unet: UNet2DConditionModel) -> None:
    padding = rows_counted("padding")
    given = inputs(unet, 3)
    denoiser = Denoiser(unet)
    denoiser.warm_up(given)
    torch.testing.assert_close(denoiser(given), unet(**given, return_dict=False)[0])
    assert rows_counted("padding") == padding
