"""The states of a generation and what may follow what. Pure: no clock, no I/O."""

from enum import StrEnum
from typing import Final


class Tier(StrEnum):
    """Which promise a customer bought: the next batch window, or at once."""

    NORMAL = "NORMAL"
    PREMIUM = "PREMIUM"


class Delivery(StrEnum):
    """How finished pictures reach the customer."""

    DOWNLOAD = "DOWNLOAD"
    EMAIL = "EMAIL"


class ImageFormat(StrEnum):
    """Encodings a picture can be asked for in."""

    PNG = "PNG"
    JPEG = "JPEG"
    WEBP = "WEBP"

    @property
    def content_type(self) -> str:
        """The media type, such as ``image/png``."""
        return f"image/{self.value.lower()}"

    @property
    def extension(self) -> str:
        """The file name's ending without its dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value.lower()


class Scheduler(StrEnum):
    """The samplers on offer, by the field's usual names."""

    DDIM = "DDIM"
    EULER = "EULER"
    EULER_ANCESTRAL = "EULER_ANCESTRAL"
    DPMPP_2M = "DPMPP_2M"
    DPMPP_2M_KARRAS = "DPMPP_2M_KARRAS"
    LCM = "LCM"


class GenerationState(StrEnum):
    """Where a generation stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return not FOLLOWING[self]


_OUTCOMES = frozenset(
    {
        GenerationState.SUCCEEDED,
        GenerationState.FAILED,
        GenerationState.REJECTED,
        GenerationState.CANCELED,
    }
)

# A worker's outcome may arrive before its `started` was recorded, so QUEUED leads straight to every end.
FOLLOWING: Final[dict[GenerationState, frozenset[GenerationState]]] = {
    GenerationState.QUEUED: _OUTCOMES | {GenerationState.RUNNING},
    GenerationState.RUNNING: _OUTCOMES,
    GenerationState.SUCCEEDED: frozenset(),
    GenerationState.FAILED: frozenset(),
    GenerationState.REJECTED: frozenset(),
    GenerationState.CANCELED: frozenset(),
}

OPEN_STATES: Final = frozenset(state for state, following in FOLLOWING.items() if following)


def preceding(state: GenerationState) -> frozenset[GenerationState]:
    """The states from which ``state`` may be entered: the guard of its UPDATE."""
    return frozenset(before for before, following in FOLLOWING.items() if state in following)
