"""Which models make room on the device for another. Pure: no clock, no tensors."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A model on the device.

    Attributes:
        model: its id.
        size: bytes.
        since: the tick that it came after.
        used: the last tick that it worked in, or ``since``.
        premium: whether premium pictures of it are under way.
        batch: whether batch pictures of it are under way.
        held: whether something beside the ticks is using it.
    """

    model: str
    size: int
    since: int
    used: int
    premium: bool
    batch: bool
    held: bool


@dataclass(frozen=True, slots=True)
class Residency:
    """How models share the device's memory.

    Attributes:
        budget: bytes for all models together; none is no limit.
        patience: ticks for which a model that came may stay while others wait for its room. So with pictures
            waiting for a model, it comes after at most so many ticks for each model that stands in its way.
    """

    budget: int | None
    patience: int

    def leavers(
        self, residents: Iterable[Resident], *, size: int, premium: bool, tick: int
    ) -> list[str] | None:
        """The models that leave so that one of ``size`` bytes can come, or none while it has to wait.

        Least recently used first: those without pictures, then those with batch pictures alone, then others.
        The pictures under way of one that leaves are kept, and it comes back for them.

        Args:
            residents: all models on the device.
            size: bytes of the model that is to come.
            premium: whether premium pictures wait for it.
            tick: the number of the tick to come.
        """
        residents = list(residents)
        if self.budget is None:
            return []
        missing = sum(one.size for one in residents) + size - self.budget
        leaving: list[str] = []
        willing = (one for one in residents if not one.held and self._may_leave(one, premium, tick))
        for one in sorted(willing, key=_order):
            if missing <= 0:
                break
            leaving.append(one.model)
            missing -= one.size
        return leaving if missing <= 0 else None

    def _may_leave(self, one: Resident, premium: bool, tick: int) -> bool:
        if not (one.premium or one.batch) or tick - one.since > self.patience:
            return True
        # It has had a tick, or it would come and go without ever having worked.
        return premium and not one.premium and one.used > one.since


def _order(one: Resident) -> tuple[bool, bool, int]:
    return one.premium, one.batch, one.used
