"""Draws the subjects, each standing on a foot at (x, y) and ``size`` high, in units of the sketch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpu_worker.demo_model import palette
from gpu_worker.demo_model.palette import Rgb, under
from gpu_worker.demo_model.scenes import Scene, Size, Subject
from gpu_worker.demo_model.sketch import Sketch

_HEIGHTS: Final = {Size.SMALL: (0.24, 0.29), Size.MEDIUM: (0.34, 0.4), Size.LARGE: (0.46, 0.54)}
_WIDEST: Final = 0.45
_HALF_WIDTHS: Final = {
    Subject.HOUSE: 0.62,
    Subject.BOAT: 0.62,
    Subject.TREE: 0.39,
    Subject.BALLOON: 0.36,
    Subject.CAR: 0.8,
    Subject.LIGHTHOUSE: 0.19,
    Subject.TENT: 0.7,
    Subject.WINDMILL: 0.4,
}
"""In units of the subject's height."""


@dataclass(frozen=True, slots=True)
class _Brush:
    """Where a subject stands, and the colours that it is painted with."""

    sketch: Sketch
    x: float
    foot: float
    size: float
    lit: Rgb
    main: Rgb
    shaded: Rgb
    window: Rgb
    dim: tuple[float, float, float]

    def at(self, across: float, up: float) -> tuple[float, float]:
        """A point in units of the subject's height: ``across`` from its middle, ``up`` from its foot."""
        return self.x + across * self.size, self.foot - up * self.size

    def shape(self, points: list[tuple[float, float]], colour: Rgb) -> None:
        """Fill a polygon given in units of the subject's height."""
        self.sketch.polygon([self.at(*point) for point in points], colour)

    def box(self, left: float, bottom: float, right: float, top: float, colour: Rgb) -> None:
        """Fill a rectangle given likewise."""
        self.shape([(left, bottom), (right, bottom), (right, top), (left, top)], colour)

    def oval(self, across: float, up: float, half_width: float, half_height: float, colour: Rgb) -> None:
        """Fill an ellipse given likewise."""
        self.sketch.ellipse(*self.at(across, up), half_width * self.size, half_height * self.size, colour)

    def line(self, points: list[tuple[float, float]], thickness: float, colour: Rgb) -> None:
        """Draw a line given likewise."""
        self.sketch.line([self.at(*point) for point in points], thickness * self.size, colour)

    def dimmed(self, colour: Rgb) -> Rgb:
        """A colour that is not the subject's own in the light of the scene."""
        return under(self.dim, colour)


def height_of(scene: Scene, random: np.random.Generator) -> float:
    """A height for the subject of ``scene``, in units of the sketch; wide subjects are lower."""
    narrower = min(1.0, _WIDEST / _HALF_WIDTHS[scene.subject])
    return float(random.uniform(*_HEIGHTS[scene.size])) * narrower


def draw_subject(sketch: Sketch, scene: Scene, x: float, foot: float, size: float) -> None:
    """Draw the subject of ``scene`` with the middle of its foot at (x, foot)."""
    light, colour = palette.LIGHT[scene.time], palette.SUBJECT[scene.colour]
    _DRAWN_BY[scene.subject](
        _Brush(
            sketch=sketch,
            x=x,
            foot=foot,
            size=size,
            lit=under(light, colour, 1.06),
            main=under(light, colour),
            shaded=under(light, colour, 0.86),
            window=palette.WINDOW[scene.time],
            dim=palette.DIM[scene.time],
        )
    )


def _house(brush: _Brush) -> None:
    roof = brush.dimmed(palette.ROOF)
    brush.box(0.2, 0.62, 0.32, 0.96, roof)
    brush.box(-0.5, 0, 0.5, 0.56, brush.main)
    brush.box(0.28, 0, 0.5, 0.56, brush.shaded)
    brush.shape([(-0.62, 0.54), (0, 1.0), (0.62, 0.54)], roof)
    brush.box(-0.09, 0, 0.11, 0.32, brush.dimmed(palette.WOOD))
    for left in (-0.39, 0.22):
        brush.box(left, 0.22, left + 0.18, 0.42, brush.window)


def _boat(brush: _Brush) -> None:
    cloth = brush.dimmed(palette.CLOTH)
    brush.line([(0, 0.2), (0, 1.0)], 0.035, brush.dimmed(palette.WOOD))
    brush.shape([(0.04, 0.97), (0.04, 0.36), (0.46, 0.36)], cloth)
    brush.shape([(-0.05, 0.86), (-0.05, 0.36), (-0.34, 0.36)], under((0.9, 0.9, 0.92), cloth))
    brush.shape([(-0.6, 0.3), (0.62, 0.3), (0.44, 0.0), (-0.42, 0.0)], brush.main)
    brush.shape([(-0.5, 0.13), (0.52, 0.13), (0.44, 0.0), (-0.42, 0.0)], brush.shaded)


def _tree(brush: _Brush) -> None:
    brush.shape([(-0.07, 0), (0.07, 0), (0.045, 0.5), (-0.045, 0.5)], brush.dimmed(palette.WOOD))
    brush.oval(0.16, 0.56, 0.22, 0.2, brush.shaded)
    brush.oval(-0.17, 0.56, 0.22, 0.2, brush.main)
    brush.oval(0, 0.7, 0.28, 0.3, brush.main)
    brush.oval(-0.09, 0.76, 0.14, 0.15, brush.lit)


def _balloon(brush: _Brush) -> None:
    brush.line([(-0.07, 0.13), (-0.17, 0.4)], 0.016, brush.dimmed(palette.WOOD))
    brush.line([(0.07, 0.13), (0.17, 0.4)], 0.016, brush.dimmed(palette.WOOD))
    brush.box(-0.08, 0.0, 0.08, 0.13, brush.dimmed(palette.WOOD))
    brush.oval(0, 0.65, 0.36, 0.35, brush.shaded)
    brush.shape([(-0.31, 0.49), (0.31, 0.49), (0.1, 0.24), (-0.1, 0.24)], brush.shaded)
    brush.oval(0, 0.65, 0.22, 0.35, brush.main)
    brush.shape([(-0.19, 0.49), (0.19, 0.49), (0.07, 0.24), (-0.07, 0.24)], brush.main)
    brush.oval(0, 0.66, 0.08, 0.34, brush.lit)


def _car(brush: _Brush) -> None:
    iron = brush.dimmed(palette.IRON)
    brush.shape([(-0.48, 0.42), (-0.3, 0.78), (0.3, 0.78), (0.52, 0.42)], brush.main)
    brush.shape([(-0.34, 0.46), (-0.23, 0.69), (-0.03, 0.69), (-0.03, 0.46)], brush.window)
    brush.shape([(0.05, 0.46), (0.05, 0.69), (0.25, 0.69), (0.37, 0.46)], brush.window)
    left, top = brush.at(-0.78, 0.46)
    right, bottom = brush.at(0.8, 0.13)
    brush.sketch.rounded(left, top, right, bottom, 0.09 * brush.size, brush.main)
    brush.box(-0.7, 0.13, 0.72, 0.2, brush.shaded)
    brush.oval(0.73, 0.34, 0.05, 0.045, palette.CLOTH)
    for across in (-0.44, 0.46):
        brush.oval(across, 0.14, 0.16, 0.16, iron)
        brush.oval(across, 0.14, 0.065, 0.065, brush.dimmed((190, 192, 200)))


def _lighthouse(brush: _Brush) -> None:
    iron = brush.dimmed(palette.IRON)
    brush.shape([(-0.19, 0), (0.19, 0), (0.115, 0.74), (-0.115, 0.74)], brush.main)
    brush.shape([(0.06, 0), (0.19, 0), (0.115, 0.74), (0.04, 0.74)], brush.shaded)
    brush.box(-0.04, 0, 0.06, 0.14, brush.dimmed(palette.WOOD))
    for up in (0.3, 0.52):
        brush.box(-0.045, up, 0.025, up + 0.09, brush.window)
    brush.box(-0.17, 0.74, 0.17, 0.785, iron)
    brush.box(-0.09, 0.785, 0.09, 0.9, brush.window)
    brush.shape([(-0.13, 0.9), (0, 1.0), (0.13, 0.9)], iron)


def _tent(brush: _Brush) -> None:
    brush.shape([(-0.66, 0), (0.02, 0.86), (0.7, 0)], brush.main)
    brush.shape([(0.02, 0.86), (0.7, 0), (0.34, 0)], brush.shaded)
    brush.shape([(-0.2, 0), (0.0, 0.56), (0.2, 0)], brush.dimmed(palette.IRON))
    brush.line([(0.02, 0.84), (0.02, 0.96)], 0.03, brush.dimmed(palette.WOOD))


def _windmill(brush: _Brush) -> None:
    brush.shape([(-0.24, 0), (0.24, 0), (0.14, 0.62), (-0.14, 0.62)], brush.main)
    brush.shape([(0.08, 0), (0.24, 0), (0.14, 0.62), (0.06, 0.62)], brush.shaded)
    brush.box(-0.06, 0, 0.08, 0.19, brush.dimmed(palette.WOOD))
    brush.shape([(-0.17, 0.61), (0, 0.78), (0.17, 0.61)], brush.dimmed(palette.ROOF))
    cloth = brush.dimmed(palette.CLOTH)
    for quarter in range(4):
        angle = math.pi / 4 + quarter * math.pi / 2
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        corners = ((0.06, -0.01), (0.4, -0.01), (0.4, 0.085), (0.06, 0.085))
        brush.shape(
            [
                (out * along[0] + aside * across[0], 0.62 + out * along[1] + aside * across[1])
                for out, aside in corners
            ],
            cloth,
        )
    brush.oval(0, 0.62, 0.035, 0.035, brush.dimmed(palette.IRON))


_DRAWN_BY: Final[dict[Subject, Callable[[_Brush], None]]] = {
    Subject.HOUSE: _house,
    Subject.BOAT: _boat,
    Subject.TREE: _tree,
    Subject.BALLOON: _balloon,
    Subject.CAR: _car,
    Subject.LIGHTHOUSE: _lighthouse,
    Subject.TENT: _tent,
    Subject.WINDMILL: _windmill,
}
