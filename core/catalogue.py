"""The models on offer and their limits, as data: read from ``catalogue.toml`` or a file of the operator's."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import ConfigurationError
from core.lifecycle import Scheduler

SIZE_STEP = 8
"""Widths and heights are multiples of this, the factor between pixels and latents."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundledSource(_Value):
    """A model made or shipped with the worker, by its name under ``gpu_worker``."""

    kind: Literal["bundled"]
    name: str


class DirectorySource(_Value):
    """A folder on the worker's machine in diffusers' layout."""

    kind: Literal["directory"]
    path: Path


class HubSource(_Value):
    """A hub repository at a pinned commit. ``variant`` picks files such as ``*.fp16.safetensors``."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    variant: str | None = None


Source = Annotated[BundledSource | DirectorySource | HubSource, Field(discriminator="kind")]


class Limits(_Value):
    """What a request may ask of a model. Sizes in pixels, the prompt's length in characters."""

    min_size: int = Field(gt=0, multiple_of=SIZE_STEP)
    max_size: int = Field(gt=0, multiple_of=SIZE_STEP)
    max_steps: int = Field(gt=0)
    max_guidance_scale: float = Field(ge=0)
    max_count: int = Field(gt=0)
    max_prompt_length: int = Field(gt=0)


class Defaults(_Value):
    """What a request gets that does not say. Sizes in pixels."""

    width: int = Field(multiple_of=SIZE_STEP)
    height: int = Field(multiple_of=SIZE_STEP)
    steps: int
    guidance_scale: float
    scheduler: Scheduler


class ModelEntry(_Value):
    """One model of the catalogue."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    name: str
    description: str
    license: str
    family: Literal["sd1", "sdxl"]
    source: Source
    defaults: Defaults
    limits: Limits

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> Self:
        limits, defaults = self.limits, self.defaults
        for size in (defaults.width, defaults.height):
            if not limits.min_size <= size <= limits.max_size:
                raise ValueError(f"default size {size} is outside {limits.min_size}..{limits.max_size}")
        if defaults.steps > limits.max_steps or defaults.guidance_scale > limits.max_guidance_scale:
            raise ValueError("default steps or guidance are above the limits")
        return self


class Catalogue(_Value):
    """Every model on offer, in the order of the file; the first is the default."""

    models: tuple[ModelEntry, ...] = Field(alias="model", min_length=1)

    @property
    def default(self) -> ModelEntry:
        """The model of a request that names none."""
        return self.models[0]

    def get(self, model_id: str) -> ModelEntry | None:
        """The entry called ``model_id``, or none."""
        return next((model for model in self.models if model.id == model_id), None)


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read a catalogue file, or the one that ships with Darkroom.

    Raises:
        ConfigurationError: the file is missing or breaks a rule; the message names file and field.
    """
    path = path or Path(__file__).with_name("catalogue.toml")
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"catalogue {path}: {error}") from error
