"""What travels between the processes: frozen, versioned, validated when made and when read.

Every message is one JSON object. A reader accepts the versions it knows and refuses the rest with
:class:`~core.errors.InvalidMessageError`; unknown fields are ignored, so that a newer writer may add some.
"""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from core.errors import InvalidMessageError
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier

MAX_SEED = 2**31 - 1
"""GraphQL's Int is signed and 32 bits wide, so that is the range of seeds."""


class Message(BaseModel):
    """Base of the wire messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    version: Literal[1] = 1

    def encode(self) -> bytes:
        """The message as UTF-8 JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a message.

        Raises:
            InvalidMessageError: not JSON, another version, or a field outside its range.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidMessageError(f"not a {cls.__name__}: {_reasons(error)}") from None


class Parameters(BaseModel):
    """Everything that decides what a picture looks like. Width and height are in pixels."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    negative_prompt: str = ""
    model: str
    width: int = Field(gt=0, multiple_of=8)
    height: int = Field(gt=0, multiple_of=8)
    steps: int = Field(gt=0)
    guidance_scale: float = Field(ge=0)
    seed: int = Field(ge=0, le=MAX_SEED)
    count: int = Field(default=1, gt=0)
    scheduler: Scheduler
    format: ImageFormat = ImageFormat.PNG

    def seed_of(self, index: int) -> int:
        """Seed of the picture ``index`` (from 0): consecutive, wrapping at the end of the range."""
        return (self.seed + index) % (MAX_SEED + 1)


class Job(Message):
    """One accepted generation on its way to a GPU worker; carries all the worker needs.

    ``deadline`` is when the result stops being of use (the batch window's end), or none.
    """

    id: UUID
    tier: Tier
    delivery: Delivery
    parameters: Parameters
    accepted_at: AwareDatetime
    deadline: AwareDatetime | None = None
    request_id: str = ""


class StoredImage(BaseModel):
    """A picture in the object store. Sizes are in pixels and bytes, ``sha256`` in lowercase hex."""

    model_config = ConfigDict(frozen=True)

    key: str
    width: int
    height: int
    seed: int
    content_type: str
    byte_size: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Started(Message):
    """A worker began with a job."""

    kind: Literal["started"] = "started"
    id: UUID
    worker: str
    attempt: int
    started_at: AwareDatetime
    request_id: str = ""


class Outcome(Message):
    """How a job ended on a worker: pictures, or a reason fit for the customer.

    ``cause`` is what went wrong on our side, for the operator: such an end is a dead letter.
    """

    kind: Literal["outcome"] = "outcome"
    id: UUID
    worker: str
    attempt: int
    state: GenerationState
    images: tuple[StoredImage, ...] = ()
    reason: str | None = None
    cause: str | None = None
    finished_at: AwareDatetime
    request_id: str = ""


Result = Annotated[Started | Outcome, Field(discriminator="kind")]
_RESULT: TypeAdapter[Started | Outcome] = TypeAdapter(Result)


def decode_result(data: bytes) -> Started | Outcome:
    """Read what a worker says on ``results.<tier>``.

    Raises:
        InvalidMessageError: neither a :class:`Started` nor an :class:`Outcome`.
    """
    try:
        return _RESULT.validate_json(data)
    except ValidationError as error:
        raise InvalidMessageError(f"not a result: {_reasons(error)}") from None


def _reasons(error: ValidationError) -> str:
    """What is wrong with which field, without the values: they hold prompts, and this is logged."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False)
    )


class Progress(Message):
    """A lossy sign of life on ``progress.<id>``.

    Workers publish steps (``state`` RUNNING); the recorder publishes the terminal state after its commit.
    ``preview`` is a small JPEG as a data URL, or none.
    """

    id: UUID
    state: GenerationState
    step: int = 0
    total_steps: int = 0
    preview: str | None = None


class Speed(BaseModel):
    """How fast a worker is with one model, as it has measured lately.

    ``megapixel_steps_per_second`` is the work it does, width * height / 1e6 * steps summed over pictures, for
    each second in which it has something to do, decoding included; ``seconds_per_step`` is the time from one
    step of a picture to its next, while it takes part.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    megapixel_steps_per_second: float = Field(gt=0, allow_inf_nan=False)
    seconds_per_step: float = Field(gt=0, allow_inf_nan=False)


class Heartbeat(Message):
    """What a warm worker says of itself every few seconds.

    ``slots`` is how many pictures it denoises at once, ``busy`` how many it does now;
    ``images_per_second`` is its recent rate, 0 before the first picture;
    ``speeds`` has one entry for each model that it has measured; ``jobs`` are those that it holds.
    """

    worker: str
    models: tuple[str, ...]
    device: str
    slots: int
    busy: int = 0
    images_per_second: float = 0.0
    speeds: tuple[Speed, ...] = ()
    tiers: tuple[Tier, ...] = (Tier.PREMIUM, Tier.NORMAL)
    jobs: tuple[UUID, ...] = ()
    started_at: AwareDatetime
    beat_at: AwareDatetime


class Control(Message):
    """An order about a running job, on ``control.<id>``."""

    id: UUID
    action: Literal["cancel", "preview"]


class Tick(BaseModel):
    """One beat of the batch window's clock, as the broker gives it.

    ``at`` is when the broker emitted it, ``next_at`` when it will emit the next.
    """

    model_config = ConfigDict(frozen=True)

    at: datetime
    next_at: datetime
