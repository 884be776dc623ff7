"""Previews against what diffusers estimates and what the shipped decoder paints."""

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image

from core.errors import ConfigurationError
from core.lifecycle import Scheduler
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.demo_model.sheet import PROMPTS
from gpu_worker.engine.preview import LatentColours, NoiseSchedule, clean_estimate, data_url
from gpu_worker.pipeline import Placement, load_pipeline, make_scheduler
from gpu_worker.samplers import Tick, make_sampler

CPU = Placement(torch.device("cpu"), torch.float32)
STEPS = 6
BY_DIFFUSERS = (Scheduler.DDIM, Scheduler.EULER, Scheduler.EULER_ANCESTRAL)
"""Those whose steps tell the estimate that they work with."""


def config_of(prediction_type: str) -> dict[str, Any]:
    return dict(
        DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ).config
    )


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def painted(latents: torch.Tensor, colours: torch.Tensor) -> NDArray[np.uint8]:
    """What a decoder would make that is linear: each place an 8 by 8 square of one colour."""
    values = torch.einsum("chw,cr->hwr", latents, colours) + 128
    small: NDArray[np.uint8] = values.round().clamp(0, 255).to(torch.uint8).numpy()
    return small.repeat(8, axis=0).repeat(8, axis=1)


def psnr(first: Image.Image, second: Image.Image) -> float:
    """In dB, of the 8 by 8 means, which are all that a preview can show."""
    small = [np.asarray(one.reduce(8), dtype=float) for one in (first, second)]
    return 10 * math.log10(255**2 / np.mean((small[0] - small[1]) ** 2))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", BY_DIFFUSERS)
def test_the_estimate_is_the_one_that_diffusers_works_with(kind: Scheduler, prediction_type: str) -> None:
    config = config_of(prediction_type)
    scheduler = make_scheduler(kind, config, steps=STEPS)
    scheduler.set_timesteps(STEPS)
    sampler, schedule = make_sampler(kind, config, steps=STEPS), NoiseSchedule(config)
    random = torch.Generator().manual_seed(3)
    latents = drawn(1, 4, 6, 5) * scheduler.init_noise_sigma
    for number, (step, timestep) in enumerate(zip(sampler.steps, scheduler.timesteps, strict=True)):
        scheduler.scale_model_input(latents, timestep)
        output = drawn(1, 4, 6, 5, seed=number)
        expected = scheduler.step(output, timestep, latents, generator=random)
        estimate = schedule.clean(step, latents, output)
        torch.testing.assert_close(estimate, expected.pred_original_sample, rtol=1e-4, atol=1e-4)
        latents = expected.prev_sample


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", [Scheduler.DPMPP_2M, Scheduler.DPMPP_2M_KARRAS])
def test_the_estimate_is_nearly_the_one_that_the_solver_remembers(
    kind: Scheduler, prediction_type: str
) -> None:
    # Karras' noise levels lie between timesteps of the training, and the solver tells the model the nearest.
    config = config_of(prediction_type)
    schedule = NoiseSchedule(config)
    for step in make_sampler(kind, config, steps=STEPS).steps:
        latents, output = drawn(1, 4, 6, 5), drawn(1, 4, 6, 5, seed=1)
        _, remembered = Tick([step], device=CPU.device).advance(
            latents, output, torch.zeros_like(latents), torch.zeros_like(latents)
        )
        estimate = schedule.clean(step, latents, output)
        torch.testing.assert_close(estimate, remembered, rtol=0.02, atol=0.02 * float(remembered.abs().max()))


@pytest.mark.parametrize("alpha", [0.9999, 0.4, 0.0047])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_model_that_is_always_right_is_understood_at_every_noise_level(
    prediction_type: str, alpha: float
) -> None:
    clean, noise = drawn(4, 6, 5), drawn(4, 6, 5, seed=1)
    signal, rest = math.sqrt(alpha), math.sqrt(1 - alpha)
    answers = {"epsilon": noise, "v_prediction": signal * noise - rest * clean, "sample": clean}
    estimate = clean_estimate(signal * clean + rest * noise, answers[prediction_type], alpha, prediction_type)
    torch.testing.assert_close(estimate, clean, rtol=1e-4, atol=1e-4)


def test_a_model_that_predicts_something_unheard_of_has_no_estimate() -> None:
    with pytest.raises(ConfigurationError, match="score"):
        clean_estimate(drawn(4, 2, 2), drawn(4, 2, 2), 0.5, "score")


@pytest.mark.parametrize("channels", [4, 8])
def test_colours_that_are_linear_in_the_latents_are_found_from_one_picture(channels: int) -> None:
    colours = 8 * drawn(channels, 3, seed=1)
    learned = LatentColours()
    first, second = drawn(channels, 16, 16, seed=2), drawn(channels, 16, 24, seed=3)
    learned.learn(first, painted(first, colours))
    preview = learned.draw(second)
    assert preview is not None
    assert (preview.mode, preview.size) == ("RGB", (192, 128))
    [expected] = [
        Image.fromarray(painted(second, colours)).reduce(8).resize(preview.size, Image.Resampling.BICUBIC)
    ]
    assert np.abs(np.asarray(preview, dtype=int) - np.asarray(expected, dtype=int)).max() <= 3


def test_nothing_is_drawn_before_anything_was_learned() -> None:
    assert LatentColours().draw(drawn(4, 8, 8)) is None


def test_a_picture_of_a_single_colour_teaches_that_colour() -> None:
    learned = LatentColours()
    learned.learn(torch.ones(4, 8, 8), np.full((64, 64, 3), (10, 130, 250), dtype=np.uint8))
    preview = learned.draw(torch.ones(4, 8, 8))
    assert preview is not None
    assert preview.getextrema() == ((10, 10), (130, 130), (250, 250))


def test_what_is_no_number_is_neither_learned_nor_drawn() -> None:
    learned, broken = LatentColours(), drawn(4, 8, 8)
    broken[0, 0, 0] = torch.nan
    pixels = painted(drawn(4, 8, 8), 8 * drawn(4, 3))
    learned.learn(broken, pixels)
    assert learned.draw(drawn(4, 8, 8)) is None
    learned.learn(drawn(4, 8, 8), pixels)
    assert learned.draw(broken) is None
    assert learned.draw(drawn(4, 8, 8)) is not None


def test_a_decoder_that_changes_is_followed() -> None:
    learned, before, after = LatentColours(), 8 * drawn(4, 3, seed=1), 8 * drawn(4, 3, seed=2)
    for colours in (before, after):
        for seed in range(300):
            latents = drawn(4, 8, 8, seed=seed)
            learned.learn(latents, painted(latents, colours))
    latents = drawn(4, 8, 8, seed=1000)
    preview = learned.draw(latents)
    assert preview is not None
    assert psnr(preview, Image.fromarray(painted(latents, after))) > 10 + psnr(
        preview, Image.fromarray(painted(latents, before))
    )


@pytest.mark.parametrize(
    ("latents", "preview"),
    [((8, 8), (64, 64)), ((32, 32), (256, 256)), ((64, 128), (256, 128)), ((300, 1), (1, 256))],
)
def test_a_preview_is_small_and_never_larger_than_the_picture(
    latents: tuple[int, int], preview: tuple[int, int]
) -> None:
    learned = LatentColours()
    learned.learn(drawn(4, 8, 8), painted(drawn(4, 8, 8), 8 * drawn(4, 3)))
    drawing = learned.draw(drawn(4, *latents))
    assert drawing is not None
    assert drawing.size == preview


def test_a_data_url_holds_a_small_jpeg() -> None:
    preview = Image.linear_gradient("L").convert("RGB")
    head, _, content = data_url(preview).partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (image.format, image.size) == ("JPEG", (256, 256))
    assert len(content) < 10_000


def test_the_shipped_models_previews_look_like_its_pictures_and_come_near_them_step_by_step() -> None:
    pipeline = load_pipeline(WEIGHTS, family="sd1", variant=None, placement=CPU)
    config = dict(pipeline.scheduler.config)
    schedule, sampler = NoiseSchedule(config), make_sampler(Scheduler.DDIM, config, steps=STEPS)
    pipeline.scheduler = make_scheduler(Scheduler.DDIM, config, steps=STEPS)
    estimates: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    unet = pipeline.unet.forward

    def listen(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        answer = unet(sample, *args, **kwargs)
        step = sampler.steps[len(inputs)]
        inputs.append(sample)
        estimates.append(schedule.clean(step, sample, answer[0]))
        return answer

    pipeline.unet.forward = listen
    random = [torch.Generator().manual_seed(seed) for seed in range(3)]
    latents = pipeline(
        list(PROMPTS[:3]), num_inference_steps=STEPS, guidance_scale=1, generator=random, output_type="latent"
    ).images
    with torch.inference_mode():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    learned = LatentColours()
    for one in range(2):
        learned.learn(latents[one], pixels[one])

    def likeness(latents: torch.Tensor) -> float:
        preview = learned.draw(latents[2])
        assert preview is not None
        return psnr(preview, Image.fromarray(pixels[2]))

    nearness = [likeness(one) for one in estimates]
    assert likeness(latents) >= 18
    assert nearness[-1] >= nearness[STEPS // 2] >= nearness[0]
    assert nearness[STEPS // 2] > likeness(inputs[STEPS // 2]) + 2
