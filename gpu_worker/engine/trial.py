"""Pictures that nobody asked for: what only the first one pays for is then paid before a customer waits."""

from collections.abc import Callable
from typing import Final
from uuid import uuid4

from PIL import Image

from core.catalogue import ModelEntry
from core.lifecycle import Tier
from gpu_worker.engine.slots import Picture

WARM_UP_STEPS: Final = 2


class Trial:
    """Listens to a picture that nobody asked for."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.made: Image.Image | Exception | None = None

    def joined(self, picture: Picture) -> None:
        """See :class:`gpu_worker.engine.slots.Listener`."""

    def stepped(self, picture: Picture, step: int) -> None:
        """See :class:`gpu_worker.engine.slots.Listener`."""

    def wants_preview(self, picture: Picture) -> bool:  # noqa: ARG002 - a listener
        """See :class:`gpu_worker.engine.slots.Listener`."""
        return False

    def previewed(self, picture: Picture, image: Image.Image) -> None:
        """See :class:`gpu_worker.engine.slots.Listener`."""

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:  # noqa: ARG002 - a listener
        """See :class:`gpu_worker.engine.slots.Listener`."""
        self.made = made
        self._wake()


def trial_picture(entry: ModelEntry) -> Picture:
    """A picture of the model's default size, in few steps."""
    defaults = entry.defaults
    return Picture(
        job=uuid4(),
        index=0,
        tier=Tier.NORMAL,
        model=entry.id,
        prompt="",
        negative_prompt="",
        seed=0,
        width=defaults.width,
        height=defaults.height,
        steps=min(WARM_UP_STEPS, defaults.steps),
        guidance_scale=defaults.guidance_scale,
        scheduler=defaults.scheduler,
    )
