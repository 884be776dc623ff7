import os
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file, save_file

from core.errors import WeightsError
from core.lifecycle import Scheduler
from gpu_worker.pipeline import (
    Placement,
    best_placement,
    load_pipeline,
    make_scheduler,
    use_cores,
)

CPU = Placement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def pipeline(model_folder: Path) -> StableDiffusionPipeline:
    return load_pipeline(model_folder, family="sd1", variant=None, placement=CPU)


def test_the_best_placement_is_half_precision_on_cuda_and_single_on_the_cpu() -> None:
    placement = best_placement()
    if torch.cuda.is_available():
        assert (placement.device.type, placement.dtype) == ("cuda", torch.float16)
        assert placement.name == torch.cuda.get_device_name()
    else:
        assert (placement.device.type, placement.dtype, placement.name) == ("cpu", torch.float32, "cpu")


def test_the_cpu_has_every_core_unless_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        use_cores()
        assert torch.get_num_threads() == 1, os.environ["OMP_NUM_THREADS"]
        monkeypatch.delenv("OMP_NUM_THREADS")
        use_cores()
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


def test_a_model_without_a_safety_checker_loads_without_one(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.safety_checker is None
    assert pipeline.unet.dtype == torch.float32


def test_weights_that_do_not_fit_their_configuration_are_an_error_that_names_the_folder(
    own_model_folder: Path,
) -> None:
    file = own_model_folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = torch.zeros(1, 1, 3, 3)
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=rf"{own_model_folder} does not load"):
        load_pipeline(own_model_folder, family="sd1", variant=None, placement=CPU)


@pytest.mark.parametrize("steps", [1, 7, 20, 50])
@pytest.mark.parametrize("kind", Scheduler)
def test_every_sampler_takes_exactly_the_steps_asked_for(
    kind: Scheduler, steps: int, pipeline: StableDiffusionPipeline
) -> None:
    scheduler = make_scheduler(kind, pipeline.scheduler.config, steps=steps)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    assert scheduler.order == 1


@pytest.mark.parametrize(
    ("kind", "expected", "settings"),
    [
        (Scheduler.DDIM, DDIMScheduler, {"clip_sample": False}),
        (Scheduler.EULER, EulerDiscreteScheduler, {}),
        (Scheduler.EULER_ANCESTRAL, EulerAncestralDiscreteScheduler, {}),
        (Scheduler.DPMPP_2M, DPMSolverMultistepScheduler, {"use_karras_sigmas": False, "solver_order": 2}),
        (Scheduler.DPMPP_2M_KARRAS, DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
        (Scheduler.LCM, LCMScheduler, {"original_inference_steps": 50}),
    ],
)
def test_a_sampler_keeps_the_noise_schedule_the_model_was_trained_with(
    kind: Scheduler, expected: type[object], settings: dict[str, object]
) -> None:
    trained = PNDMScheduler(
        beta_start=0.001, beta_end=0.02, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
    )
    made = make_scheduler(kind, trained.config, steps=4)
    assert made.__class__.__name__ == expected.__name__
    assert torch.equal(made.betas, trained.betas)
    assert made.config.steps_offset == 1
    assert {name: made.config[name] for name in settings} == settings


def test_lcm_can_take_more_steps_than_it_was_distilled_from(pipeline: StableDiffusionPipeline) -> None:
    scheduler = make_scheduler(Scheduler.LCM, pipeline.scheduler.config, steps=80)
    scheduler.set_timesteps(80)
    assert len(set(scheduler.timesteps.tolist())) == 80
