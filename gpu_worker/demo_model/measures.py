"""Reads from a picture's pixels what it shows: the rules by which the bundled model is judged.

Every rule is a statement about pixels and knows nothing of the model; each is checked on drawn scenes first,
since a rule that errs there says nothing about the model.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from PIL import Image

from gpu_worker.demo_model import palette
from gpu_worker.demo_model.palette import Rgb
from gpu_worker.demo_model.scenes import Colour, Ground, Place, Time

VIVID_SATURATION: Final = 0.52
VIVID_VALUE: Final = 0.42
"""From both on (HSV, 0 to 1) a pixel is the subject's; landscapes stay below one of them."""

_SECOND_REGION: Final = 0.15
"""A region with at least this share of the largest one's pixels is a subject of its own."""

_MIN_PIXELS: Final = 24
_SKY: Final = 0.08
_FRONT: Final = 0.12
_MIDDLE_THIRD: Final = (0.37, 0.63)

_Array = np.ndarray[Any, np.dtype[Any]]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the pixels of one picture show. ``colour`` and ``place`` are none where nothing is vivid."""

    time: Time
    ground: Ground
    colour: Colour | None
    place: Place | None
    subjects: int


def look_at(picture: Image.Image) -> Seen:
    """Apply every rule to an RGB picture of at least 64 pixels on each side.

    - **Time**: the mean of the top 8 % of rows is nearest to that time's sky, in RGB.
    - **Ground**: of the pixels in the bottom 12 % of rows that are not vivid, most are nearest to that
      ground's colours at that time.
    - **Colour**: of the vivid pixels, most have the hue nearest to that colour's.
    - **Subjects**: the connected regions (through four neighbours) of vivid pixels of that hue that have at
      least 15 % of the largest region's pixels.
    - **Place**: the middle of the largest region's pixels, left of 0.37 of the width, right of 0.63, or
      between.
    """
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    hue, saturation, value = _hsv(pixels)
    vivid = (saturation >= VIVID_SATURATION) & (value >= VIVID_VALUE)
    time = _time(pixels)
    ground = _ground(pixels, vivid, time)
    nearest = _nearest_hue(hue)
    counts = Counter(nearest[vivid].tolist())
    if sum(counts.values()) < _MIN_PIXELS:
        return Seen(time=time, ground=ground, colour=None, place=None, subjects=0)
    colour = list(Colour)[counts.most_common(1)[0][0]]
    regions = _regions(vivid & (nearest == list(Colour).index(colour)))
    largest = max(regions, key=len)
    return Seen(
        time=time,
        ground=ground,
        colour=colour,
        place=_place(float(np.mean([x for _, x in largest])) / pixels.shape[1]),
        subjects=sum(len(region) >= _SECOND_REGION * len(largest) for region in regions),
    )


def _time(pixels: _Array) -> Time:
    sky = pixels[: max(1, round(_SKY * len(pixels)))].mean(axis=(0, 1))
    return _nearest(sky, {time: top for time, (top, _) in palette.SKY.items()})


def _ground(pixels: _Array, vivid: _Array, time: Time) -> Ground:
    rows = slice(len(pixels) - round(_FRONT * len(pixels)), None)
    front = pixels[rows][~vivid[rows]]
    candidates = [
        (ground, palette.mix(*palette.GROUND[ground, time], share))
        for ground in Ground
        for share in (0.8, 1.0)
    ]
    distances = np.linalg.norm(
        front[:, None, :] - np.array([colour for _, colour in candidates])[None], axis=-1
    )
    votes: Counter[Ground] = Counter(candidates[index][0] for index in distances.argmin(axis=1).tolist())
    return max(votes, key=lambda ground: votes[ground])


def _place(middle: float) -> Place:
    low, high = _MIDDLE_THIRD
    if middle < low:
        return Place.LEFT
    return Place.MIDDLE if middle <= high else Place.RIGHT


def _nearest(colour: _Array, choices: Mapping[_Kind, Rgb]) -> _Kind:
    return min(choices, key=lambda choice: float(np.linalg.norm(colour - np.array(choices[choice]))))


def _hsv(pixels: _Array) -> tuple[_Array, _Array, _Array]:
    """Hue in degrees, saturation and value from 0 to 1, each of shape (height, width)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    high, low = pixels.max(axis=-1), pixels.min(axis=-1)
    spread = np.where(high > low, high - low, 1.0)
    hue = np.select(
        [high == red, high == green],
        [(green - blue) / spread % 6, (blue - red) / spread + 2],
        (red - green) / spread + 4,
    )
    return 60 * hue, (high - low) / np.maximum(high, 1.0), high / 255


def _nearest_hue(hue: _Array) -> _Array:
    """For each pixel the index of the colour whose hue is nearest on the circle."""
    centres = _hsv(np.array([[palette.SUBJECT[colour] for colour in Colour]], dtype=np.float64))[0][0]
    apart = np.abs(hue[..., None] - centres)
    return np.asarray(np.minimum(apart, 360 - apart).argmin(axis=-1))


def _regions(mask: _Array) -> list[list[tuple[int, int]]]:
    """The connected regions of ``mask`` as (row, column) lists; neighbours share an edge."""
    open_ = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while open_:
        region, frontier = [], [open_.pop()]
        while frontier:
            row, column = frontier.pop()
            region.append((row, column))
            for neighbour in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if neighbour in open_:
                    open_.remove(neighbour)
                    frontier.append(neighbour)
        regions.append(region)
    return regions
