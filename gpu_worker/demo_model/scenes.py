"""What the bundled model knows: scenes of one coloured thing in a landscape, as values, and at random."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import numpy as np


class Subject(StrEnum):
    """The one thing that a scene is about."""

    HOUSE = "house"
    BOAT = "boat"
    TREE = "tree"
    BALLOON = "balloon"
    CAR = "car"
    LIGHTHOUSE = "lighthouse"
    TENT = "tent"
    WINDMILL = "windmill"


class Colour(StrEnum):
    """The subject's colour. The landscape around it is never as vivid."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    TURQUOISE = "turquoise"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"


class Time(StrEnum):
    """The time of day, seen in the sky and in the light on everything."""

    DAY = "day"
    SUNSET = "sunset"
    NIGHT = "night"


class Ground(StrEnum):
    """What lies in front."""

    GRASS = "grass"
    SAND = "sand"
    SNOW = "snow"
    SEA = "sea"


class Place(StrEnum):
    """Which third of the picture the subject stands in."""

    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"


class Size(StrEnum):
    """How large the subject is."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Disc(StrEnum):
    """What hangs in the sky."""

    NONE = "none"
    SUN = "sun"
    FULL_MOON = "full moon"
    CRESCENT = "crescent"


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene. ``seed`` decides all that no caption speaks of, such as the shape of the clouds."""

    subject: Subject
    colour: Colour
    time: Time
    ground: Ground
    place: Place
    size: Size
    disc: Disc
    mountains: bool
    clouds: bool
    seed: int


HELD_OUT_PAIRS: Final = frozenset(
    {
        (Subject.HOUSE, Colour.TURQUOISE),
        (Subject.BOAT, Colour.PURPLE),
        (Subject.BALLOON, Colour.GREEN),
        (Subject.CAR, Colour.PINK),
    }
)
"""Pairs that no training scene shows at any time of day."""

HELD_OUT_TRIPLES: Final = frozenset(
    {
        (Subject.HOUSE, Colour.RED, Time.SUNSET),
        (Subject.HOUSE, Colour.BLUE, Time.NIGHT),
        (Subject.HOUSE, Colour.YELLOW, Time.DAY),
        (Subject.BOAT, Colour.RED, Time.NIGHT),
        (Subject.BOAT, Colour.YELLOW, Time.SUNSET),
        (Subject.BOAT, Colour.GREEN, Time.DAY),
        (Subject.TREE, Colour.ORANGE, Time.NIGHT),
        (Subject.TREE, Colour.PINK, Time.SUNSET),
        (Subject.TREE, Colour.GREEN, Time.SUNSET),
        (Subject.BALLOON, Colour.RED, Time.DAY),
        (Subject.BALLOON, Colour.BLUE, Time.SUNSET),
        (Subject.BALLOON, Colour.ORANGE, Time.NIGHT),
        (Subject.CAR, Colour.RED, Time.SUNSET),
        (Subject.CAR, Colour.TURQUOISE, Time.NIGHT),
        (Subject.CAR, Colour.YELLOW, Time.NIGHT),
        (Subject.LIGHTHOUSE, Colour.RED, Time.DAY),
        (Subject.LIGHTHOUSE, Colour.ORANGE, Time.SUNSET),
        (Subject.LIGHTHOUSE, Colour.PURPLE, Time.NIGHT),
        (Subject.TENT, Colour.GREEN, Time.NIGHT),
        (Subject.TENT, Colour.BLUE, Time.DAY),
        (Subject.TENT, Colour.PURPLE, Time.SUNSET),
        (Subject.WINDMILL, Colour.BLUE, Time.SUNSET),
        (Subject.WINDMILL, Colour.PINK, Time.DAY),
        (Subject.WINDMILL, Colour.RED, Time.NIGHT),
    }
)
"""Pairs that training scenes show at other times of day, but never at this one."""

_SEEDS: Final = 2**31
_MOUNTAINS: Final = 0.4
_CLOUDS: Final = 0.45
_DISCS: Final = {
    Time.DAY: ((Disc.SUN, 0.6), (Disc.NONE, 0.4)),
    Time.SUNSET: ((Disc.SUN, 0.7), (Disc.NONE, 0.3)),
    Time.NIGHT: ((Disc.FULL_MOON, 0.4), (Disc.CRESCENT, 0.35), (Disc.NONE, 0.25)),
}

_Kind = TypeVar("_Kind", bound=StrEnum)


def is_held_out(scene: Scene) -> bool:
    """Whether training must not show this combination."""
    return (scene.subject, scene.colour) in HELD_OUT_PAIRS or (
        scene.subject,
        scene.colour,
        scene.time,
    ) in HELD_OUT_TRIPLES


def random_scene(random: np.random.Generator, *, held_out: bool = False) -> Scene:
    """A scene for training, or one of a combination that training never shows."""
    return _draw_until(lambda scene: is_held_out(scene) is held_out, random)


def _draw_until(accept: Callable[[Scene], bool], random: np.random.Generator) -> Scene:
    while not accept(scene := _any_scene(random)):
        pass
    return scene


def _any_scene(random: np.random.Generator) -> Scene:
    time = _one_of(Time, random)
    discs, weights = zip(*_DISCS[time], strict=True)
    return Scene(
        subject=_one_of(Subject, random),
        colour=_one_of(Colour, random),
        time=time,
        ground=_one_of(Ground, random),
        place=_one_of(Place, random),
        size=_one_of(Size, random),
        disc=discs[int(random.choice(len(discs), p=weights))],
        mountains=bool(random.random() < _MOUNTAINS),
        clouds=bool(random.random() < _CLOUDS),
        seed=int(random.integers(_SEEDS)),
    )


def _one_of(kind: type[_Kind], random: np.random.Generator) -> _Kind:
    members = list(kind)
    return members[int(random.integers(len(members)))]
