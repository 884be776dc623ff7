import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from gpu_worker.demo_model.build import build


def _pixels(
    pipeline: StableDiffusionPipeline, prompt: str, seed: int, guidance_scale: float = 4.0
) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    made = pipeline(
        prompt,
        num_inference_steps=20,
        guidance_scale=guidance_scale,
        generator=generator,
        output_type="np",
    )
    pixels: np.ndarray = made.images[0]
    return pixels


def test_plain_diffusers_loads_it_and_makes_colourful_pictures_that_differ(demo_folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(demo_folder, use_safetensors=True)
    fox = _pixels(pipeline, "a red fox in the snow", seed=1)
    assert fox.shape == (128, 128, 3)
    assert np.isfinite(fox).all()
    assert fox.std() > 0.1
    assert np.mean((fox <= 0) | (fox >= 1)) < 0.5
    assert np.abs(fox - _pixels(pipeline, "a red fox in the snow", seed=2)).mean() > 0.05
    assert np.abs(fox - _pixels(pipeline, "a lighthouse at night", seed=1)).mean() > 0.05
    assert np.abs(fox - _pixels(pipeline, "a red fox in the snow", seed=1, guidance_scale=9.0)).mean() > 0.02


def test_two_builds_hold_the_same_bytes(demo_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    build(tmp_path / "again")
    first = {file.relative_to(demo_folder): file.read_bytes() for file in demo_folder.rglob("*.*")}
    second = {
        file.relative_to(tmp_path / "again"): file.read_bytes() for file in (tmp_path / "again").rglob("*.*")
    }
    assert first == second


def test_building_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build(tmp_path / "model")
    assert torch.equal(torch.rand(1), expected)


def test_builds_at_the_same_time_leave_one_model_and_nothing_else(tmp_path: Path) -> None:
    builders = [threading.Thread(target=build, args=(tmp_path / "model",)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "model_index.json").exists()


def test_command_makes_the_folder_and_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, "-m", "gpu_worker.demo_model", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert done.stdout + done.stderr == ""
