"""One loaded model: the few calls that the engine makes of it, each for a whole batch."""

from collections.abc import Container, Sequence
from functools import cache
from operator import methodcaller
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
import torch
from PIL import Image

from core.catalogue import SIZE_STEP, HubSource, ModelEntry
from core.errors import DarkroomError, GenerationFailedError, GenerationRejectedError
from gpu_worker.engine.denoiser import Denoiser
from gpu_worker.engine.fusion import fuse
from gpu_worker.engine.half_range import shrink
from gpu_worker.engine.pace import Pace
from gpu_worker.engine.preview import LatentColours, NoiseSchedule
from gpu_worker.engine.recording import CudaGraphs
from gpu_worker.engine.slots import Demand, Picture, Slot
from gpu_worker.engine.text import TextEncoders
from gpu_worker.pipeline import Placement, load_pipeline
from gpu_worker.samplers import Tick, make_sampler

_DECODED_MEGAPIXELS: Final = 1.1
"""Decoded together on a GPU, so that activations stay within a few GB: four of 512 x 512 pixels, say."""

log = structlog.get_logger(__name__)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""A picture of shape (height, width, 3), values 0 to 255."""


class Model:
    """A Stable Diffusion on one device.

    ``advance`` and ``warm_up`` are for one thread; ``slot``, ``decode``, ``decode_each`` and ``preview`` for
    one, which may be another.
    """

    def __init__(
        self,
        entry: ModelEntry,
        folder: Path,
        placement: Placement,
        *,
        pace: Pace,
        buckets: Sequence[int] = (),
    ) -> None:
        """Load ``entry`` from its weights in ``folder``.

        Args:
            entry: which model.
            folder: in diffusers' layout.
            placement: where and in which precision.
            pace: of the thread that takes its steps.
            buckets: the sizes of a batch in rows for which the U-Net, its blocks fused, is recorded on CUDA;
                where there are none, all of it runs as diffusers has it.

        Raises:
            WeightsError: the files do not fit together.
        """
        variant = entry.source.variant if isinstance(entry.source, HubSource) else None
        self.entry = entry
        self._pipeline = load_pipeline(folder, family=entry.family, variant=variant, placement=placement)
        self._scheduler_config = dict(self._pipeline.scheduler.config)
        self._schedule = NoiseSchedule(self._scheduler_config)
        self._colours = LatentColours()
        self._unet = self._pipeline.unet
        self._vae = self._pipeline.vae
        # Asked of the parts, they would look through all of their parameters each time.
        self._dtype, self._vae_dtype = self._unet.dtype, self._vae.dtype
        self._device = placement.device
        if self._vae_dtype == torch.float16 and self._vae.config.force_upcast:
            shrink(self._vae.decoder)
        if buckets:
            fuse(self._unet, fp8=placement.fp8)
            fuse(self._vae)
        elif placement.device.type == "cpu":
            self._unet.to(memory_format=torch.channels_last)
            self._vae.to(memory_format=torch.channels_last)
        recorded = buckets and placement.device.type == "cuda"
        self._denoiser = Denoiser(
            self._unet, recorder=CudaGraphs(pace.launch) if recorded else None, buckets=buckets
        )
        self._text = TextEncoders(
            self._pipeline,
            recorder=CudaGraphs(methodcaller("replay"), stream=_stream_of_texts()) if recorded else None,
        )

    @torch.inference_mode()
    def warm_up(self, slot: Slot) -> None:
        """Record, where that is asked for, what pictures of the shape of ``slot`` need."""
        self._text.warm_up()
        tick = Tick([slot.step], device=self._device)
        inputs = tick.model_input(slot.latents[None]).to(self._dtype)
        self._denoiser.warm_up(self._rows([slot], inputs, tick.timesteps, self._sent(torch.zeros(1).long())))

    @torch.inference_mode()
    def slot(self, demand: Demand) -> Slot:
        """Prepare the picture: its text embedded, its sampler chosen, its first noise drawn."""
        picture = demand.picture
        sampler = make_sampler(picture.scheduler, self._scheduler_config, steps=picture.steps)
        # On the CPU whatever the device is: a device's own generator draws other noise for the same seed.
        random = torch.Generator("cpu").manual_seed(picture.seed)
        noise = self._noise(picture, random)
        return Slot(
            picture=picture,
            listener=demand.listener,
            arrived=demand.arrived,
            conditioning=self._text.condition(
                picture.prompt, picture.negative_prompt, picture.guidance_scale
            ),
            sampler=sampler,
            random=random,
            latents=noise * sampler.initial_scale,
            history=torch.zeros_like(noise),
        )

    @property
    def previews(self) -> bool:
        """Whether pictures may be shown on the way: not where a safety check has to see them first."""
        return getattr(self._pipeline, "safety_checker", None) is None

    @torch.inference_mode()
    def advance(self, slots: Sequence[Slot], *, estimate: Container[Slot] = ()) -> dict[Slot, torch.Tensor]:
        """Take one step of each of ``slots``, all of one shape, with one call of the U-Net.

        When the U-Net fails, no slot has changed.

        Args:
            slots: whose step it is.
            estimate: those of them whose finished latents are wanted as the model sees them at this step.

        Returns:
            The estimates, single precision, shape (channels, height / 8, width / 8).
        """
        tick = Tick([slot.step for slot in slots], device=self._device)
        latents = torch.stack([slot.latents for slot in slots])
        inputs = tick.model_input(latents).to(self._dtype)
        output = self._guided(slots, inputs, tick.timesteps)
        estimates = {
            slot: self._schedule.clean(slot.step, slot.latents, own)
            for slot, own in zip(slots, output, strict=True)
            if slot in estimate
        }
        history = torch.stack([slot.history for slot in slots])
        latents, history = tick.advance(latents, output, history, self._step_noise(slots))
        for slot, own_latents, own_history in zip(slots, latents, history, strict=True):
            slot.latents, slot.history, slot.noise = own_latents, own_history, None
            slot.position += 1
        return estimates

    def preview(self, estimate: torch.Tensor) -> Image.Image | None:
        """A small RGB picture of estimated latents; none before a first finished picture to learn from."""
        return self._colours.draw(estimate)

    def decodes_at_once(self, picture: Picture) -> int:
        """How many pictures like this one are decoded together."""
        if self._device.type == "cpu":
            # More at once take longer each: they no longer fit into the caches.
            return 1
        return max(1, int(_DECODED_MEGAPIXELS / picture.megapixels))

    @torch.inference_mode()
    def decode(self, slots: Sequence[Slot]) -> list[Pixels | DarkroomError]:
        """The finished pictures of ``slots``, all of one shape; for each its pixels or why there are none."""
        latents = torch.stack([slot.latents for slot in slots]).to(self._vae_dtype)
        decoded = self._decoded(self._unscaled(latents).contiguous(memory_format=torch.channels_last))
        finite = decoded.isfinite().flatten(1).all(dim=1).tolist()
        unsafe = self._unsafe(decoded)
        pixels = ((decoded / 2 + 0.5).clamp(0, 1).nan_to_num() * 255).round().to(torch.uint8)
        arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        for slot, array, sound in zip(slots, arrays, finite, strict=True):
            if sound:
                self._colours.learn(slot.latents, array)
        return [
            _judged(array, finite=sound, unsafe=held)
            for array, sound, held in zip(arrays, finite, unsafe, strict=True)
        ]

    def decode_each(self, slots: Sequence[Slot]) -> list[Pixels | Exception]:
        """As :meth:`decode`, but raises nothing: what goes wrong with all of them is tried one by one."""
        try:
            return [*self.decode(slots)]
        except Exception as error:
            log.exception("engine.decode_failed", pictures=len(slots))
            if len(slots) == 1:
                return [error]
        torch.cuda.empty_cache()
        return [one for slot in slots for one in self.decode_each([slot])]

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        decoded = self._decoded_whole(latents)
        if latents.dtype != torch.float16 or not latents.isfinite().all() or decoded.isfinite().all():
            return decoded
        # The model is fine, but half precision has no numbers as large as these.
        log.warning("model.decoded_in_single_precision", model=self.entry.id)
        self._vae.float()
        try:
            return self._decoded_whole(latents.float())
        finally:
            self._vae.half()

    def _decoded_whole(self, latents: torch.Tensor) -> torch.Tensor:
        try:
            whole: torch.Tensor = self._vae.decode(latents, return_dict=False)[0]
        except torch.OutOfMemoryError:
            if len(latents) > 1:
                raise
            # In overlapping tiles, whose seams are blended: nearly the same picture is better than none.
            log.warning("model.decoded_in_tiles", model=self.entry.id, latents=tuple(latents.shape))
            torch.cuda.empty_cache()
            self._vae.enable_tiling()
            try:
                whole = self._vae.decode(latents, return_dict=False)[0]
            finally:
                self._vae.disable_tiling()
        return whole

    def _noise(self, picture: Picture, random: torch.Generator) -> torch.Tensor:
        shape = (1, self._unet.config.in_channels, picture.height // SIZE_STEP, picture.width // SIZE_STEP)
        noise = torch.randn(shape, generator=random, dtype=self._dtype)[0]
        return self._sent(noise).float()

    def _step_noise(self, slots: Sequence[Slot]) -> torch.Tensor | None:
        if not any(slot.step.draws for slot in slots):
            return None
        for slot in slots:
            # Kept until the step is taken: one that fails for want of memory is tried again.
            if slot.noise is None and slot.step.draws:
                slot.noise = self._noise(slot.picture, slot.random)
        return torch.stack(
            [torch.zeros_like(slot.latents) if slot.noise is None else slot.noise for slot in slots]
        )

    def _guided(self, slots: Sequence[Slot], inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The U-Net's answer for each slot after guidance, shape (slots, channels, rows, columns)."""
        counts = torch.tensor([len(slot.conditioning.rows) for slot in slots])
        last = counts.cumsum(0) - 1
        owners = torch.arange(len(slots)).repeat_interleave(counts)
        # In one copy.
        indices = self._sent(torch.cat([last - counts + 1, last, owners]))
        first, last, owners = indices.tensor_split((len(slots), 2 * len(slots)))
        scales = self._sent(torch.tensor([slot.conditioning.guidance for slot in slots]))
        answer = self._denoiser(self._rows(slots, inputs, timesteps, owners))
        without, wanted = answer[first], answer[last]
        return without + scales.view(-1, 1, 1, 1).to(answer.dtype) * (wanted - without)

    def _rows(
        self, slots: Sequence[Slot], inputs: torch.Tensor, timesteps: torch.Tensor, owners: torch.Tensor
    ) -> dict[str, Any]:
        """The U-Net's inputs, a row or two for each slot."""
        rows = [row for slot in slots for row in slot.conditioning.rows]
        found: dict[str, Any] = {
            "sample": inputs[owners],
            "timestep": timesteps[owners],
            "encoder_hidden_states": torch.stack([row.tokens for row in rows]),
        }
        pooled = [row.pooled for row in rows if row.pooled is not None]
        if pooled:
            picture = slots[0].picture
            # Original size, crop and target size, as the pipeline states them.
            sizes = [picture.height, picture.width, 0, 0, picture.height, picture.width]
            time_ids = self._sent(torch.tensor([sizes] * len(rows), dtype=pooled[0].dtype))
            found["added_cond_kwargs"] = {"text_embeds": torch.stack(pooled), "time_ids": time_ids}
        if (width := self._unet.config.time_cond_proj_dim) is not None:
            scales = torch.tensor([slot.conditioning.guidance - 1 for slot in slots])
            embedded = self._pipeline.get_guidance_scale_embedding(scales, embedding_dim=width)
            found["timestep_cond"] = self._sent(embedded.to(self._dtype))[owners]
        return found

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` on the device, without waiting for what that has still to do."""
        if self._device.type != "cuda":
            return tensor.to(self._device)
        # Only from pinned memory does a copy not wait.
        return tensor.pin_memory().to(self._device, non_blocking=True)

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
        if self.previews:
            return [False] * len(decoded)
        _, held = self._pipeline.run_safety_checker(decoded.clone(), decoded.device, self._dtype)
        return list(held)


@cache
def _stream_of_texts() -> torch.cuda.Stream:
    """On which all models' texts are recorded: they are embedded beside the steps, and one at a time."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch has no annotations


def _judged(pixels: Pixels, *, finite: bool, unsafe: bool) -> Pixels | DarkroomError:
    if not finite:
        return GenerationFailedError("The model gave no usable picture for these parameters.")
    if unsafe:
        return GenerationRejectedError("The model's safety check held this picture back.")
    return pixels
