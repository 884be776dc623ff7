"""Draws a scene: flat vector shapes with gradients, smoothed by drawing large and reducing."""

import math
from typing import Final

import numpy as np
from PIL import Image

from gpu_worker.demo_model import palette
from gpu_worker.demo_model.palette import Rgb, mix
from gpu_worker.demo_model.scenes import Disc, Ground, Place, Scene, Subject, Time
from gpu_worker.demo_model.sketch import Sketch
from gpu_worker.demo_model.subjects import draw_subject, height_of

PICTURE_SIZE: Final = 128
"""Pixels on the shorter side of the pictures that the model is trained on."""

_CENTRES: Final = {Place.LEFT: (0.23, 0.28), Place.MIDDLE: (0.46, 0.54), Place.RIGHT: (0.72, 0.77)}
_ON_LAND_ONLY: Final = frozenset(
    {Subject.HOUSE, Subject.TREE, Subject.CAR, Subject.LIGHTHOUSE, Subject.TENT, Subject.WINDMILL}
)


def draw(scene: Scene, *, width: int, height: int) -> Image.Image:
    """The picture of ``scene``, RGB. The same scene and size give the same pixels.

    Args:
        scene: what to show.
        width: in pixels.
        height: in pixels.
    """
    random = np.random.default_rng(scene.seed)
    sketch = Sketch(width, height)
    horizon = sketch.height * random.uniform(0.52, 0.64)
    _sky(sketch, scene, horizon, random)
    if scene.mountains:
        _mountains(sketch, scene, horizon, random)
    _ground(sketch, scene, horizon, random)
    _subject(sketch, scene, horizon, random)
    return sketch.finished()


def _sky(sketch: Sketch, scene: Scene, horizon: float, random: np.random.Generator) -> None:
    top, bottom = (_varied(colour, random) for colour in palette.SKY[scene.time])
    sketch.gradient(0, horizon, top, bottom)
    if scene.time is Time.NIGHT:
        _stars(sketch, horizon, random)
    if scene.disc is not Disc.NONE:
        _disc(sketch, scene, horizon, random)
    if scene.clouds:
        _clouds(sketch, scene, horizon, random)


def _stars(sketch: Sketch, horizon: float, random: np.random.Generator) -> None:
    for _ in range(int(18 * sketch.width * sketch.height)):
        x, y = random.uniform(0, sketch.width), random.uniform(0, horizon * 0.9)
        radius = random.uniform(0.006, 0.011)
        sketch.circle(x, y, radius, (236, 236, 228), opacity=random.uniform(0.6, 1.0))


def _disc(sketch: Sketch, scene: Scene, horizon: float, random: np.random.Generator) -> None:
    # Beside the subject's third, so that neither hides the other.
    shares = [share for place, share in _CENTRES.items() if place is not scene.place]
    low, high = shares[int(random.integers(len(shares)))]
    x = sketch.width * random.uniform(low, high)
    if scene.disc is Disc.SUN and scene.time is Time.SUNSET:
        y, radius = horizon - random.uniform(0.01, 0.09), random.uniform(0.085, 0.115)
        _glow(sketch, x, y, radius, (255, 226, 176))
        sketch.circle(x, y, radius, mix(palette.SUN, (255, 206, 150), 0.5))
        return
    y, radius = random.uniform(0.13, 0.22), random.uniform(0.065, 0.085)
    if scene.disc is Disc.SUN:
        _glow(sketch, x, y, radius, palette.SUN)
        sketch.circle(x, y, radius, palette.SUN)
        return
    _glow(sketch, x, y, radius, (120, 128, 160))
    if scene.disc is Disc.FULL_MOON:
        sketch.circle(x, y, radius, palette.MOON)
        for dx, dy, share in ((-0.3, -0.2, 0.22), (0.3, 0.25, 0.28), (0.25, -0.4, 0.14)):
            sketch.circle(x + dx * radius, y + dy * radius, share * radius, (212, 212, 198))
    else:
        _crescent(sketch, x, y, radius)


def _glow(sketch: Sketch, x: float, y: float, radius: float, colour: Rgb) -> None:
    for reach in (2.1, 1.7, 1.35):
        sketch.circle(x, y, radius * reach, colour, opacity=0.16)


def _crescent(sketch: Sketch, x: float, y: float, radius: float) -> None:
    outer = [
        (x + radius * math.sin(angle), y - radius * math.cos(angle)) for angle in np.linspace(0, math.pi, 24)
    ]
    inner = [
        (x + 0.45 * radius * math.sin(angle), y - radius * math.cos(angle))
        for angle in np.linspace(math.pi, 0, 24)
    ]
    sketch.polygon([*outer, *inner], palette.MOON)


def _clouds(sketch: Sketch, scene: Scene, horizon: float, random: np.random.Generator) -> None:
    colour = palette.CLOUD[scene.time]
    for number in range(int(random.integers(2, 4))):
        x = sketch.width * ((number + random.uniform(0.1, 0.9)) / 3)
        y = random.uniform(0.1, horizon * 0.55)
        size = random.uniform(0.05, 0.085)
        for share in (-1.5, -0.6, 0.4, 1.3):
            puff = size * random.uniform(0.55, 0.95)
            sketch.ellipse(x + share * size, y - puff * 0.35, puff * 1.2, puff * 0.8, colour, opacity=0.92)
        sketch.ellipse(x, y, size * 2.2, size * 0.42, colour, opacity=0.95)


def _mountains(sketch: Sketch, scene: Scene, horizon: float, random: np.random.Generator) -> None:
    far, near = palette.MOUNTAIN[scene.time]
    for colour, tallest, capped in ((far, 0.34, True), (near, 0.17, False)):
        x = -random.uniform(0.05, 0.3)
        while x < sketch.width:
            half = random.uniform(0.17, 0.3)
            peak = horizon - tallest * random.uniform(0.6, 1.0)
            top = x + half
            sketch.polygon([(x, horizon), (top, peak), (top + half, horizon)], colour)
            sketch.polygon(
                [(top, peak), (top + half, horizon), (top - half * 0.1, horizon)],
                mix(colour, (20, 24, 44), 0.1),
            )
            if capped:
                _cap(sketch, (top, peak), half, horizon, palette.MOUNTAIN_SNOW[scene.time])
            x += half * random.uniform(1.0, 1.5)


def _cap(sketch: Sketch, peak: tuple[float, float], half: float, foot: float, colour: Rgb) -> None:
    x, y = peak
    down = 0.3 * (foot - y)
    aside = 0.3 * half
    sketch.polygon(
        [
            (x, y),
            (x + aside, y + down),
            (x + aside * 0.3, y + down * 0.75),
            (x - aside * 0.3, y + down * 1.1),
            (x - aside, y + down),
        ],
        colour,
    )


def _ground(sketch: Sketch, scene: Scene, horizon: float, random: np.random.Generator) -> None:
    far, near = (_varied(colour, random) for colour in palette.GROUND[scene.ground, scene.time])
    if scene.ground is Ground.SEA:
        sketch.gradient(horizon, sketch.height, far, near)
        _waves(sketch, horizon, mix(far, (255, 255, 255), 0.35), random)
        return
    _hill(sketch, horizon, mix(far, palette.SKY[scene.time][1], 0.3), random)
    sketch.gradient(horizon + 0.03, sketch.height, far, near)
    match scene.ground:
        case Ground.GRASS:
            _tufts(sketch, horizon, mix(near, (10, 40, 20), 0.28), random)
        case Ground.SAND:
            _ripples(sketch, horizon, mix(near, (90, 60, 40), 0.22), random)
        case _:
            _ripples(sketch, horizon, mix(near, (120, 140, 190), 0.2), random)


def _hill(sketch: Sketch, horizon: float, colour: Rgb, random: np.random.Generator) -> None:
    phase, waves, rise = random.uniform(0, 6.28), random.uniform(1.0, 2.2), random.uniform(0.015, 0.035)
    line = [
        (x, horizon - rise * (1 + math.sin(phase + waves * 2 * math.pi * x)))
        for x in np.linspace(0, sketch.width, 40)
    ]
    sketch.polygon([*line, (sketch.width, horizon + 0.04), (0, horizon + 0.04)], colour)


def _waves(sketch: Sketch, horizon: float, colour: Rgb, random: np.random.Generator) -> None:
    for _ in range(int(16 * sketch.width)):
        depth = random.uniform(0.05, 0.95)
        y = horizon + depth * (sketch.height - horizon)
        x, half = random.uniform(0, sketch.width), 0.025 + 0.05 * depth
        sketch.ellipse(x, y, half, 0.004 + 0.004 * depth, colour, opacity=0.55)


def _tufts(sketch: Sketch, horizon: float, colour: Rgb, random: np.random.Generator) -> None:
    for _ in range(int(22 * sketch.width)):
        depth = random.uniform(0.15, 0.97)
        y = horizon + depth * (sketch.height - horizon)
        x, size = random.uniform(0, sketch.width), 0.012 + 0.02 * depth
        sketch.polygon(
            [
                (x - size * 0.5, y),
                (x - size * 0.4, y - size),
                (x, y - size * 0.3),
                (x + size * 0.1, y - size * 1.2),
                (x + size * 0.5, y),
            ],
            colour,
            opacity=0.8,
        )


def _ripples(sketch: Sketch, horizon: float, colour: Rgb, random: np.random.Generator) -> None:
    for _ in range(int(7 * sketch.width)):
        depth = random.uniform(0.15, 0.95)
        y = horizon + depth * (sketch.height - horizon)
        x, half = random.uniform(0, sketch.width), 0.06 + 0.12 * depth
        arc = [(x + share * half, y - 0.02 * (1 - share * share)) for share in np.linspace(-1, 1, 14)]
        back = [(x + share * half, y - 0.012 * (1 - share * share)) for share in np.linspace(1, -1, 14)]
        sketch.polygon([*arc, *back], colour, opacity=0.7)


def _subject(sketch: Sketch, scene: Scene, horizon: float, random: np.random.Generator) -> None:
    size = height_of(scene, random)
    low, high = _CENTRES[scene.place]
    x = sketch.width * random.uniform(low, high)
    if scene.subject is Subject.BALLOON:
        foot = random.uniform(max(size + 0.03, horizon - 0.2), horizon + 0.06)
        draw_subject(sketch, scene, x, max(foot, size + 0.04), size)
        return
    foot = horizon + (sketch.height - horizon) * random.uniform(0.35, 0.72)
    foot = max(foot, size + 0.04)
    if scene.ground is Ground.SEA and scene.subject in _ON_LAND_ONLY:
        _island(sketch, scene, x, foot, size)
    elif scene.ground is Ground.SEA:
        sketch.ellipse(
            x,
            foot,
            size * 0.62,
            size * 0.09,
            mix(palette.GROUND[scene.ground, scene.time][1], (8, 10, 30), 0.25),
            opacity=0.7,
        )
    else:
        sketch.ellipse(
            x,
            foot,
            size * 0.6,
            size * 0.085,
            mix(palette.GROUND[scene.ground, scene.time][1], (8, 10, 30), 0.35),
            opacity=0.75,
        )
    draw_subject(sketch, scene, x, foot, size)


def _island(sketch: Sketch, scene: Scene, x: float, foot: float, size: float) -> None:
    sand = palette.GROUND[Ground.SAND, scene.time]
    foam = mix(palette.GROUND[Ground.SEA, scene.time][0], (255, 255, 255), 0.45)
    sketch.ellipse(x, foot + 0.03 * size, size * 0.86, size * 0.17, foam)
    sketch.ellipse(x, foot + 0.015 * size, size * 0.8, size * 0.14, sand[1])
    sketch.ellipse(x, foot - 0.01 * size, size * 0.76, size * 0.115, sand[0])


def _varied(colour: Rgb, random: np.random.Generator) -> Rgb:
    """``colour`` a little lighter or darker, and not always of the same tone."""
    lightness = random.normal(0, 4)
    red, green, blue = (int(np.clip(part + lightness + random.normal(0, 3), 0, 255)) for part in colour)
    return red, green, blue
