"""Which slots take part in the next tick. Pure: no clock, no tensors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

from gpu_worker.engine.slots import Shape


class Candidate(Protocol):
    """What choosing looks at; see :class:`gpu_worker.engine.slots.Slot`."""

    @property
    def shape(self) -> Shape:
        """What it must share with others in a tick."""

    @property
    def premium(self) -> bool:
        """Whether it goes first."""

    @property
    def arrived(self) -> int:
        """Its place in the order of arrival."""

    @property
    def ticked(self) -> int:
        """The tick that it last took part in."""


_Slot = TypeVar("_Slot", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Policy:
    """How premium and batch share the device.

    Attributes:
        capacity: pictures in one tick at the most.
        fill: a tick with fewer premium pictures is filled up to so many with batch ones. That keeps the
            device fuller, and makes no tick of premium ones longer than one of so many pictures.
        patience: ticks after which the batch tier gets one to itself, however much premium waits. So the
            batch pictures of a shape stand still for at most ``patience`` ticks and two for each shape under
            way. With nobody else there, so does no shape of any tier for longer than there are shapes.
    """

    capacity: int
    fill: int
    patience: int

    def choose(
        self, slots: Sequence[_Slot], *, tick: int, fits: Mapping[Shape, int] = MappingProxyType({})
    ) -> list[_Slot]:
        """The slots of tick number ``tick``, all of one shape, in order; empty when there are none.

        Premium goes first, and of several shapes the one that has waited longest. Within a shape whoever came
        first goes first, so that pictures are finished rather than all held half done.

        Args:
            slots: every slot under way.
            tick: counts up.
            fits: how many pictures of a shape the device holds, where that is less than ``capacity``.
        """
        if not slots:
            return []
        leaders = self._leaders(slots, tick)
        shape = leaders[0].shape
        room = min(self.capacity, fits.get(shape, self.capacity))
        alike = sorted((slot for slot in slots if slot.shape == shape), key=_arrival)
        premium = [slot for slot in alike if slot.premium][:room]
        batch = [slot for slot in alike if not slot.premium]
        if not leaders[0].premium:
            # Its turn has come: batch fills the tick, and premium pictures of the shape take what is left.
            chosen = batch[:room]
            return [*premium[: room - len(chosen)], *chosen]
        return [*premium, *batch[: max(0, min(self.fill, room) - len(premium))]]

    def _leaders(self, slots: Sequence[_Slot], tick: int) -> list[_Slot]:
        """The slots whose shape is next: all of one tier and one shape."""
        premium = _by_shape(slot for slot in slots if slot.premium)
        batch = _by_shape(slot for slot in slots if not slot.premium)
        overdue = [alike for alike in batch if tick - _waits_since(alike) > self.patience]
        return min(overdue or premium or batch, key=_turn)


def _by_shape(slots: Iterable[_Slot]) -> list[list[_Slot]]:
    found: dict[Shape, list[_Slot]] = {}
    for slot in slots:
        found.setdefault(slot.shape, []).append(slot)
    return list(found.values())


def _waits_since(alike: Sequence[Candidate]) -> int:
    """The last tick that any slot of a shape took part in; those behind it wait for it, not for the shape."""
    return max(slot.ticked for slot in alike)


def _turn(alike: Sequence[Candidate]) -> tuple[int, int]:
    return _waits_since(alike), min(slot.arrived for slot in alike)


def _arrival(slot: Candidate) -> int:
    return slot.arrived
