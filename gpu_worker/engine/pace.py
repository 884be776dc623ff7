"""How far the engine's thread may run ahead of the device."""

import torch


class Pace:
    """Keeps this thread at most one tick ahead of the device.

    So the device always has the next tick waiting, and a picture that arrives waits for no more than that.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._launched: torch.cuda.Event | None = None

    def keep(self) -> None:
        """After launching a tick: wait until the one before it is done."""
        if not self._cuda:
            return
        before, self._launched = self._launched, torch.cuda.Event()  # type: ignore[no-untyped-call] # as in Aside
        self._launched.record()
        if before is not None:
            before.synchronize()
