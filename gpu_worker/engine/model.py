"""One loaded model: the few calls that the engine makes of it, each for a whole batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.catalogue import SIZE_STEP, HubSource, ModelEntry
from core.errors import DarkroomError, GenerationFailedError, GenerationRejectedError
from gpu_worker.engine.slots import Picture, Slot
from gpu_worker.engine.text import TextEncoders
from gpu_worker.pipeline import Placement, load_pipeline
from gpu_worker.samplers import Tick, make_sampler

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""A picture of shape (height, width, 3), values 0 to 255."""


class Model:
    """A Stable Diffusion on one device. Not for two threads at once."""

    def __init__(self, entry: ModelEntry, folder: Path, placement: Placement) -> None:
        """Load ``entry`` from its weights in ``folder``.

        Raises:
            WeightsError: the files do not fit together.
        """
        variant = entry.source.variant if isinstance(entry.source, HubSource) else None
        self.entry = entry
        self._pipeline = load_pipeline(folder, family=entry.family, variant=variant, placement=placement)
        self._scheduler_config = dict(self._pipeline.scheduler.config)
        self._unet = self._pipeline.unet
        self._vae = self._pipeline.vae
        self._text = TextEncoders(self._pipeline)
        if self._vae.dtype == torch.float16 and self._vae.config.force_upcast:
            # Its activations leave the range of half precision.
            self._vae.to(torch.float32)

    def slot(self, picture: Picture, *, arrived: int, tick: int) -> Slot:
        """Prepare ``picture``: its text embedded, its sampler chosen, its first noise drawn."""
        sampler = make_sampler(picture.scheduler, self._scheduler_config, steps=picture.steps)
        # On the CPU whatever the device is: a device's own generator draws other noise for the same seed.
        random = torch.Generator("cpu").manual_seed(picture.seed)
        noise = self._noise(picture, random)
        return Slot(
            picture=picture,
            conditioning=self._text.condition(
                picture.prompt, picture.negative_prompt, picture.guidance_scale
            ),
            sampler=sampler,
            random=random,
            latents=noise * sampler.initial_scale,
            history=torch.zeros_like(noise),
            arrived=arrived,
            ticked=tick,
        )

    @torch.inference_mode()
    def advance(self, slots: Sequence[Slot]) -> None:
        """Take one step of each of ``slots``, all of one shape, with one call of the U-Net.

        When the U-Net fails, no slot has changed.
        """
        tick = Tick([slot.step for slot in slots], device=self._unet.device)
        latents = torch.stack([slot.latents for slot in slots])
        inputs = tick.model_input(latents).to(self._unet.dtype)
        output = self._guided(slots, inputs, tick.timesteps)
        history = torch.stack([slot.history for slot in slots])
        latents, history = tick.advance(latents, output, history, self._step_noise(slots))
        for slot, own_latents, own_history in zip(slots, latents, history, strict=True):
            slot.latents, slot.history = own_latents, own_history
            slot.position += 1

    @torch.inference_mode()
    def decode(self, slots: Sequence[Slot]) -> list[Pixels | DarkroomError]:
        """The finished pictures of ``slots``, all of one shape; for each its pixels or why there are none."""
        latents = torch.stack([slot.latents for slot in slots]).to(self._vae.dtype)
        decoded = self._vae.decode(self._unscaled(latents), return_dict=False)[0]
        finite = decoded.isfinite().flatten(1).all(dim=1).tolist()
        unsafe = self._unsafe(decoded)
        pixels = ((decoded / 2 + 0.5).clamp(0, 1).nan_to_num() * 255).round().to(torch.uint8)
        arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return [
            _judged(array, finite=sound, unsafe=held)
            for array, sound, held in zip(arrays, finite, unsafe, strict=True)
        ]

    def _noise(self, picture: Picture, random: torch.Generator) -> torch.Tensor:
        shape = (1, self._unet.config.in_channels, picture.height // SIZE_STEP, picture.width // SIZE_STEP)
        noise = torch.randn(shape, generator=random, dtype=self._unet.dtype)[0]
        return noise.to(self._unet.device, torch.float32)

    def _step_noise(self, slots: Sequence[Slot]) -> torch.Tensor | None:
        if not any(slot.step.draws for slot in slots):
            return None
        drawn = [
            self._noise(slot.picture, slot.random) if slot.step.draws else torch.zeros_like(slot.latents)
            for slot in slots
        ]
        return torch.stack(drawn)

    def _guided(self, slots: Sequence[Slot], inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The U-Net's answer for each slot after guidance, shape (slots, channels, rows, columns)."""
        counts = [len(slot.conditioning.rows) for slot in slots]
        owners = torch.repeat_interleave(torch.arange(len(slots)), torch.tensor(counts)).to(inputs.device)
        last = torch.tensor(counts).cumsum(0) - 1
        first = last - torch.tensor(counts) + 1
        rows = self._rows(slots, owners)
        answer: torch.Tensor = self._unet(inputs[owners], timesteps[owners], return_dict=False, **rows)[0]
        without, wanted = answer[first.to(inputs.device)], answer[last.to(inputs.device)]
        scales = torch.tensor([slot.conditioning.guidance for slot in slots]).view(-1, 1, 1, 1)
        return without + scales.to(answer.device, answer.dtype) * (wanted - without)

    def _rows(self, slots: Sequence[Slot], owners: torch.Tensor) -> dict[str, Any]:
        rows = [row for slot in slots for row in slot.conditioning.rows]
        found: dict[str, Any] = {"encoder_hidden_states": torch.stack([row.tokens for row in rows])}
        pooled = [row.pooled for row in rows if row.pooled is not None]
        if pooled:
            picture = slots[0].picture
            # Original size, crop and target size, as the pipeline states them.
            sizes = [picture.height, picture.width, 0, 0, picture.height, picture.width]
            time_ids = torch.tensor([sizes] * len(rows), dtype=pooled[0].dtype, device=owners.device)
            found["added_cond_kwargs"] = {"text_embeds": torch.stack(pooled), "time_ids": time_ids}
        if (width := self._unet.config.time_cond_proj_dim) is not None:
            scales = torch.tensor([slot.conditioning.guidance - 1 for slot in slots])
            embedded = self._pipeline.get_guidance_scale_embedding(scales, embedding_dim=width)
            found["timestep_cond"] = embedded.to(owners.device, self._unet.dtype)[owners]
        return found

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        config = self._vae.config
        scale = float(config.scaling_factor)
        if config.latents_mean is None or config.latents_std is None:
            return latents / scale
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        return latents * std / scale + mean

    def _unsafe(self, decoded: torch.Tensor) -> list[bool]:
        if getattr(self._pipeline, "safety_checker", None) is None:
            return [False] * len(decoded)
        _, held = self._pipeline.run_safety_checker(decoded.clone(), decoded.device, self._unet.dtype)
        return list(held)


def _judged(pixels: Pixels, *, finite: bool, unsafe: bool) -> Pixels | DarkroomError:
    if not finite:
        return GenerationFailedError("The model gave no usable picture for these parameters.")
    if unsafe:
        return GenerationRejectedError("The model's safety check held this picture back.")
    return pixels
