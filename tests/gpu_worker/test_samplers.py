from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from core.errors import ConfigurationError
from core.lifecycle import Scheduler
from gpu_worker.pipeline import make_scheduler
from gpu_worker.samplers import Sampler, Step, Tick, make_sampler

CPU = torch.device("cpu")
SHAPE = (1, 4, 5, 3)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CONFIGS: dict[str, dict[str, Any]] = {
    "stable diffusion": dict(
        PNDMScheduler(
            **BETAS,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="epsilon",
            timestep_spacing="leading",
        ).config
    ),
    "stable diffusion, velocity": dict(
        PNDMScheduler(
            **BETAS,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
            timestep_spacing="leading",
        ).config
    ),
    "zero terminal SNR": dict(
        DDIMScheduler(
            **BETAS,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ).config
    ),
    "turbo": dict(EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing").config),
    "turbo, velocity": dict(
        EulerDiscreteScheduler(
            **BETAS, steps_offset=1, timestep_spacing="trailing", prediction_type="v_prediction"
        ).config
    ),
    "stochastic solver": dict(
        DPMSolverMultistepScheduler(**BETAS, steps_offset=1, algorithm_type="sde-dpmsolver++").config
    ),
    "defaults of another sampler": dict(PNDMScheduler(**BETAS, skip_prk_steps=True).config),
}
WEIGHTS = torch.randn(60, 60, generator=torch.Generator().manual_seed(1)) / 8


def _model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """Something that is not linear, and that the timestep matters to."""
    mixed = (latents.float().flatten(1) @ WEIGHTS).reshape(latents.shape)
    return torch.tanh(mixed + timestep / 500 - 1).to(latents.dtype)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _by_diffusers(
    kind: Scheduler, config: dict[str, Any], steps: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """The latents before the first step and after each, as the pipeline for XL models makes them."""
    scheduler = make_scheduler(kind, config, steps=steps)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    latents = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    yield latents
    for timestep in scheduler.timesteps:
        output = _model(scheduler.scale_model_input(latents, timestep), float(timestep))
        latents = scheduler.step(output, timestep, latents, generator=generator, return_dict=False)[0]
        yield latents


def _by_table(
    sampler: Sampler, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Iterator[torch.Tensor]:
    """The same by the table, a picture alone."""
    latents = (torch.randn(SHAPE, generator=generator) * sampler.initial_scale).to(dtype)
    history = torch.zeros_like(latents)
    yield latents
    for step in sampler.steps:
        latents, history = _advance([step], latents, history, [generator])
        yield latents


def _advance(
    steps: list[Step], latents: torch.Tensor, history: torch.Tensor, generators: list[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    tick = Tick(steps, device=CPU)
    inputs = tick.model_input(latents)
    # One by one, since a matrix product rounds differently in a batch.
    output = torch.cat([_model(inputs[i : i + 1], float(tick.timesteps[i])) for i in range(len(steps))])
    noise = None
    if any(step.draws for step in steps):
        noise = torch.zeros_like(latents)
        for row, step, generator in zip(noise, steps, generators, strict=True):
            if step.draws:
                row.copy_(torch.randn(SHAPE, generator=generator)[0])
    return tick.advance(latents, output, history, noise)


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", Scheduler)
def test_a_table_gives_what_diffusers_gives_step_by_step_and_draws_the_same_noise(
    kind: Scheduler, config: dict[str, Any], steps: int
) -> None:
    sampler = make_sampler(kind, config, steps=steps)
    draws, own_draws = _generator(7), _generator(7)
    expected = list(_by_diffusers(kind, config, steps, draws))
    made = list(_by_table(sampler, own_draws))
    assert len(made) == len(expected) == steps + 1
    assert torch.equal(made[0], expected[0])
    reached = 0.0
    for one, other in zip(made, expected, strict=True):
        # Rounding is relative to what a step started from, and Euler's latents get smaller all the time.
        reached = max(reached, float(other.abs().max()))
        assert float((one - other).abs().max()) <= 5e-6 * reached
    assert torch.equal(draws.get_state(), own_draws.get_state())


def test_a_table_keeps_digits_that_diffusers_loses_near_a_terminal_snr_of_zero() -> None:
    config = CONFIGS["zero terminal SNR"]
    *_, by_diffusers = _by_diffusers(Scheduler.EULER, config, 1, _generator(7))
    sampler = make_sampler(Scheduler.EULER, config, steps=1)
    latents, by_table = _by_table(sampler, _generator(7))
    # The only step gives the original that a velocity means (arXiv:2202.00512), here in double precision.
    sigma = torch.tensor(sampler.initial_scale, dtype=torch.float64)
    output = _model(latents / (sigma.float() ** 2 + 1).sqrt(), sampler.steps[0].timestep)
    original = latents / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()
    assert float((by_table - original).abs().max()) < 1e-6
    assert float((by_diffusers - original).abs().max()) > 1e-5


def test_pictures_with_different_samplers_step_counts_and_positions_do_not_notice_each_other() -> None:
    samplers = [
        make_sampler(kind, config, steps=steps)
        for config, steps in zip(CONFIGS.values(), (1, 2, 3, 5, 8, 13, 21), strict=True)
        for kind in Scheduler
    ]
    alone = [list(_by_table(sampler, _generator(seed))) for seed, sampler in enumerate(samplers)]
    generators = [_generator(seed) for seed in range(len(samplers))]
    latents = torch.cat(
        [
            torch.randn(SHAPE, generator=one) * s.initial_scale
            for one, s in zip(generators, samplers, strict=True)
        ]
    )
    history = torch.zeros_like(latents)
    # Picture i joins at tick i modulo 4, so that pictures of equal length are at different positions too.
    positions = [-(index % 4) for index in range(len(samplers))]
    while True:
        there = [i for i, at in enumerate(positions) if 0 <= at < len(samplers[i].steps)]
        positions = [position + 1 for position in positions]
        if not there:
            break
        latents[there], history[there] = _advance(
            [samplers[i].steps[positions[i] - 1] for i in there],
            latents[there],
            history[there],
            [generators[i] for i in there],
        )
        for i in there:
            assert torch.equal(latents[i], alone[i][positions[i]][0])
    assert all(position >= len(s.steps) for position, s in zip(positions, samplers, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_after_a_step_in_single_precision(dtype: torch.dtype) -> None:
    steps = [make_sampler(kind, CONFIGS["stable diffusion"], steps=5).steps[2] for kind in Scheduler]
    tick = Tick(steps, device=CPU)
    draw = _generator(3)
    halves = [torch.randn((len(steps), *SHAPE[1:]), generator=draw).to(dtype) for _ in range(4)]
    made = tick.advance(*halves)
    exact = tick.advance(*(half.float() for half in halves))
    for one, other in zip(made, exact, strict=True):
        assert one.dtype == dtype
        assert other.dtype == torch.float32
        assert torch.equal(one, other.to(dtype))
    assert torch.equal(tick.model_input(halves[0]), tick.model_input(halves[0].float()).to(dtype))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", Scheduler)
def test_in_half_precision_a_picture_stays_close_to_that_of_single_precision(
    kind: Scheduler, config: dict[str, Any]
) -> None:
    sampler = make_sampler(kind, config, steps=20)
    *_, rounded = _by_table(sampler, _generator(7), torch.float16)
    *_, exact = _by_table(sampler, _generator(7))
    assert rounded.dtype == torch.float16
    assert float((rounded.float() - exact).abs().max()) <= 0.02 * float(exact.abs().max())


@pytest.mark.parametrize("steps", [61, 103, 122])
@pytest.mark.parametrize("kind", Scheduler)
def test_trailing_timesteps_are_as_many_as_asked_for_and_lead_down_to_none_below_zero(
    kind: Scheduler, steps: int
) -> None:
    timesteps = [step.timestep for step in make_sampler(kind, CONFIGS["turbo"], steps=steps).steps]
    assert len(timesteps) == steps
    assert timesteps == sorted(timesteps, reverse=True)
    assert timesteps[-1] >= 0


@pytest.mark.parametrize("steps", [60, 61])
def test_trailing_timesteps_leave_no_noise(steps: int) -> None:
    sampler = make_sampler(Scheduler.EULER, CONFIGS["turbo"], steps=steps)
    # Euler's steps are as long as the noise levels are apart, and start from a level of its initial scale.
    assert sum(step.model for step in sampler.steps) == pytest.approx(-sampler.initial_scale, rel=1e-6)


def test_a_table_is_made_once_for_equal_arguments() -> None:
    config = CONFIGS["turbo"]
    made = make_sampler(Scheduler.EULER, config, steps=4)
    assert make_sampler(Scheduler.EULER, dict(reversed(config.items())), steps=4) is made
    assert make_sampler(Scheduler.EULER, config, steps=5) != made
    assert make_sampler(Scheduler.DDIM, config, steps=4) != made
    assert make_sampler(Scheduler.EULER, config | {"beta_end": 0.02}, steps=4) != made


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (Scheduler.LCM, {"clip_sample": True}, "no finite sum"),
        (Scheduler.DDIM, {"thresholding": True}, "no finite sum"),
        (Scheduler.DPMPP_2M, {"thresholding": True}, "no finite sum"),
        (Scheduler.DPMPP_2M, {"solver_order": 3}, "no finite sum"),
        (Scheduler.DDIM, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "no finite sum"),
        (Scheduler.EULER_ANCESTRAL, {"prediction_type": "sample"}, "not implemented"),
        (Scheduler.EULER, {"timestep_spacing": "nonesuch"}, "nonesuch is not supported"),
    ],
)
def test_what_no_table_can_say_is_refused_with_the_reason(
    kind: Scheduler, settings: dict[str, Any], reason: str
) -> None:
    config = CONFIGS["stable diffusion"] | settings
    with pytest.raises(ConfigurationError, match=rf"{kind} in 6 steps is not for this model: .*{reason}"):
        make_sampler(kind, config, steps=6)


@pytest.mark.parametrize(
    ("kind", "steps"),
    # With all 1000 steps, the offset of one leads beyond the last.
    [(Scheduler.DDIM, 1000), (Scheduler.DDIM, 1001), (Scheduler.LCM, 1001)],
)
def test_more_steps_than_the_model_was_trained_with_are_refused(kind: Scheduler, steps: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{kind} in {steps} steps is not for this model"):
        make_sampler(kind, CONFIGS["stable diffusion"], steps=steps)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_tick_gives_what_it_gives_on_the_cpu_without_waiting_for_the_device() -> None:
    steps = [make_sampler(kind, CONFIGS["stable diffusion"], steps=5).steps[2] for kind in Scheduler]
    draw = _generator(3)
    tensors = [torch.randn((len(steps), *SHAPE[1:]), generator=draw) for _ in range(4)]
    expected = Tick(steps, device=CPU).advance(*tensors)
    cuda = torch.device("cuda", torch.cuda.current_device())
    there = [tensor.to(cuda) for tensor in tensors]
    torch.cuda.set_sync_debug_mode("error")
    try:
        tick = Tick(steps, device=cuda)
        tick.model_input(there[0])
        made = tick.advance(*there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(made, expected, strict=True):
        assert torch.allclose(one.cpu(), other, rtol=1e-5, atol=1e-6)
