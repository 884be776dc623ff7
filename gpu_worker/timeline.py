"""When a job's pictures came how far on this worker, for its trace."""

import time
from collections.abc import Callable

from core import tracing


class Timeline:
    """Noted by the engine's thread as it happens, told by the event loop once all is over.

    All steps are one span: twenty for each picture would say no more, and cost more than the rest.

    Args:
        clock: Unix time.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._submitted = self._joined = self._first_step = self._last_step = self._ended = 0.0
        self._steps = 0

    def submitted(self) -> None:
        """The engine has the pictures."""
        self._submitted = self._clock()

    def joined(self) -> None:
        """Prompts of one more picture are embedded."""
        self._joined = self._clock()

    def stepped(self) -> None:
        """A picture has done a step."""
        self._last_step = self._clock()
        self._first_step = self._first_step or self._last_step
        self._steps += 1

    def ended(self) -> None:
        """One more picture is made, or will not be."""
        self._ended = self._clock()

    def tell(self) -> None:
        """Write what is known into the trace of what goes on here."""
        if self._joined:
            tracing.record("embed prompts", began=self._submitted, ended=self._joined)
        if self._first_step:
            tracing.record(
                "denoise",
                began=self._joined,
                ended=self._last_step,
                darkroom__steps=self._steps,
                darkroom__first_step_seconds=round(self._first_step - self._joined, 4),
            )
        if self._last_step and self._ended:
            tracing.record("decode", began=self._last_step, ended=self._ended)
