"""One picture under way: what was asked for, and how far its denoising has come."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import torch
from PIL import Image

from core.lifecycle import Scheduler, Tier
from core.messages import Job
from gpu_worker.engine.text import Conditioning
from gpu_worker.samplers import Sampler, Step


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a job, which has ``index`` 0, 1, … of them. Sizes in pixels."""

    job: UUID
    index: int
    tier: Tier
    model: str
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: Scheduler

    @property
    def megapixels(self) -> float:
        """Its area."""
        return self.width * self.height / 1e6


class Listener(Protocol):
    """Who asked for a picture. Called on the engine's threads, so it must be quick and must not raise."""

    def joined(self, picture: Picture) -> None:
        """Its prompts are embedded: it takes part in ticks from now on."""

    def stepped(self, picture: Picture, step: int) -> None:
        """``step`` of the picture's steps are done."""

    def wants_preview(self, picture: Picture) -> bool:
        """Whether to make a preview at this step, as far as one can be made."""

    def previewed(self, picture: Picture, image: Image.Image) -> None:
        """A preview: small, RGB."""

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:
        """The picture, RGB, or why there is none; nothing follows. Not called for what was canceled."""


def pictures_of(job: Job) -> list[Picture]:
    """The pictures that ``job`` asks for, in order, each with its own seed."""
    asked = job.parameters
    return [
        Picture(
            job=job.id,
            index=index,
            tier=job.tier,
            model=asked.model,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            seed=asked.seed_of(index),
            width=asked.width,
            height=asked.height,
            steps=asked.steps,
            guidance_scale=asked.guidance_scale,
            scheduler=asked.scheduler,
        )
        for index in range(asked.count)
    ]


@dataclass(frozen=True, slots=True)
class Shape:
    """What pictures must have in common to share a call of the U-Net. Sizes in pixels.

    ``tokens`` is the length of their embedded prompts: one beyond the text encoder's window makes it longer.
    """

    model: str
    width: int
    height: int
    tokens: int


@dataclass(slots=True, eq=False, kw_only=True)
class Demand:
    """A picture that somebody waits for.

    Attributes:
        picture: what was asked for.
        listener: who asked.
        arrived: its place in the order of arrival.
        preparing: whether its text is being embedded.
        canceled: whether nobody waits any more.
    """

    picture: Picture
    listener: Listener
    arrived: int
    preparing: bool = False
    canceled: bool = False

    @property
    def premium(self) -> bool:
        """Whether its customer is served at once."""
        return self.picture.tier is Tier.PREMIUM

    def end(self, made: Image.Image | Exception) -> None:
        """Tell the listener what became of it; an error without its frames.

        The listener keeps it for a while, and they hold the tensors that they worked on, and the listener.
        """
        if isinstance(made, Exception):
            made = made.with_traceback(None)
        self.listener.ended(self.picture, made)


@dataclass(slots=True, eq=False, kw_only=True)
class Slot(Demand):
    """A picture under way.

    Attributes:
        conditioning: its embedded prompts.
        sampler: its steps' coefficients.
        random: draws its noise, and nobody else's.
        latents: single precision, shape (channels, height / 8, width / 8).
        history: what its sampler remembers of the step before; the shape of ``latents``.
        noise: drawn for the step to come, if it has been; the shape of ``latents``.
        position: steps done.
        ticked: the tick that it last took part in, or that it joined after.
        previewing: whether a preview of it is being made.
    """

    conditioning: Conditioning
    sampler: Sampler
    random: torch.Generator
    latents: torch.Tensor
    history: torch.Tensor
    noise: torch.Tensor | None = None
    position: int = 0
    ticked: int = 0
    previewing: bool = False

    def join(self, *, tick: int) -> None:
        """Take part in ticks after ``tick``, on the calling thread."""
        self.ticked = tick
        for tensor in (self.latents, self.history, *self.conditioning.tensors):
            if tensor.is_cuda:
                # Made on another stream, it must not be given away there while this one still reads it.
                tensor.record_stream(torch.cuda.current_stream())

    @property
    def shape(self) -> Shape:
        """What it must share with others in a tick."""
        picture = self.picture
        return Shape(picture.model, picture.width, picture.height, self.conditioning.tokens)

    @property
    def step(self) -> Step:
        """The coefficients of the step to come."""
        return self.sampler.steps[self.position]

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.position == len(self.sampler.steps)
