"""The models on offer and their limits, as data: read from ``catalogue.toml`` or a file of the operator's."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import ConfigurationError
from core.lifecycle import Scheduler
from core.pins import ModelId, Pin, RemoteFile, Repository, Revision, Variant, lock_path, read_pins
from core.settings import CatalogueSettings

SHIPPED_CATALOGUE: Final = Path(__file__).with_name("catalogue.toml")

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
    """A hub repository, pinned to a commit by its own ``revision`` or by the lock file.

    Attributes:
        repository: owner and name.
        revision: the commit; where the catalogue has none, the lock file gives it.
        variant: picks files such as ``*.fp16.safetensors``.
        files: all that the model needs, from the lock file; empty without a pin there.
    """

    kind: Literal["hub"]
    repository: Repository
    revision: Revision | None = None
    variant: Variant | None = None
    # Nothing that a catalogue could say itself, hence the limit; only a pin is copied into it.
    files: tuple[RemoteFile, ...] = Field(default=(), max_length=0)


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
    """One model of the catalogue.

    ``family`` says which pipeline loads it: ``sd1`` that of Stable Diffusion 1 and 2, ``sdxl`` the one with
    two text encoders.
    """

    id: ModelId
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

    def choose(self, model_ids: Sequence[str], *, named_by: str) -> Self:
        """These models alone, in this order; the whole catalogue where none is named.

        Raises:
            ConfigurationError: there is no such model, or it is named twice; the message has ``named_by``.
        """
        if not model_ids:
            return self
        known = {model.id: model for model in self.models}
        if unknown := [model_id for model_id in model_ids if model_id not in known]:
            raise ConfigurationError(
                f"{named_by}: there is no model {', '.join(unknown)}, only {', '.join(known)}"
            )
        if len(set(model_ids)) < len(model_ids):
            raise ConfigurationError(f"{named_by}: a model is named twice")
        return self.model_copy(update={"models": tuple(known[model_id] for model_id in model_ids)})

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        if len({model.id for model in self.models}) < len(self.models):
            raise ValueError("two models have the same id")
        return self


def load_catalogue(path: Path = SHIPPED_CATALOGUE) -> Catalogue:
    """Read a whole catalogue file as it is written, by default the one that ships with Darkroom.

    Raises:
        ConfigurationError: the file is missing or breaks a rule; the message names file and field.
    """
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"catalogue {path}: {error}") from error


def offered_models(settings: CatalogueSettings) -> Catalogue:
    """The models that this deployment offers, in its order, each one from a hub pinned to a commit.

    Raises:
        ConfigurationError: a file or the choice of models is wrong, or a model is not pinned; the message
            says which, and what to do.
    """
    path = settings.catalogue or SHIPPED_CATALOGUE
    chosen = load_catalogue(path).choose(settings.models, named_by="DARKROOM_MODELS")
    lock = lock_path(path)
    pins = read_pins(lock)
    pinned = [_pinned(model, pins.get(model.id)) for model in chosen.models]
    missing = [model.id for model, found in zip(chosen.models, pinned, strict=True) if found is None]
    ready = [model for model in pinned if model is not None]
    if missing:
        others = json.dumps([model.id for model in ready])
        leave_out = f", or leave out what is not pinned: DARKROOM_MODELS='{others}'" if ready else ""
        raise ConfigurationError(
            f"not pinned: {', '.join(missing)}. {lock} holds nothing that fits the catalogue. Run `make pin`"
            f" or `python -m gpu_worker.pin {' '.join(missing)}`{leave_out}"
        )
    return chosen.model_copy(update={"models": tuple(ready)})


def _pinned(model: ModelEntry, pin: Pin | None) -> ModelEntry | None:
    """``model`` with what its pin says, or none where no commit is known or the pin is of something else."""
    source = model.source
    if not isinstance(source, HubSource):
        return model
    if pin is None:
        return model if source.revision else None
    if (pin.repository, pin.variant) != (source.repository, source.variant):
        return None
    if source.revision not in (None, pin.revision):
        return None
    found = source.model_copy(update={"revision": pin.revision, "files": pin.files})
    return model.model_copy(update={"source": found})
