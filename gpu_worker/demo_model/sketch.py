"""A drawing surface in units of the picture's shorter side, drawn large and reduced for smooth edges."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from gpu_worker.demo_model.palette import Rgb

_OVERSAMPLING: Final = 3


class Sketch:
    """An RGB picture under way. The origin is its upper left corner, y grows downwards.

    Attributes:
        width: in units of the shorter side, so 1.0 for a square.
        height: likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        shorter = min(width, height)
        self.width = width / shorter
        self.height = height / shorter
        self._scale = shorter * _OVERSAMPLING
        self._image = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING))
        self._pen = ImageDraw.Draw(self._image, "RGBA")

    def gradient(self, top: float, bottom: float, first: Rgb, last: Rgb) -> None:
        """Fill the full width from ``top`` to ``bottom``, from colour ``first`` to ``last``."""
        begin, end = round(top * self._scale), round(bottom * self._scale)
        share = np.linspace(0, 1, end - begin)[:, None, None]
        rows = np.asarray(first) * (1 - share) + np.asarray(last) * share
        column = Image.fromarray(rows.round().astype(np.uint8))
        self._image.paste(column.resize((self._image.width, end - begin)), (0, begin))

    def polygon(self, points: Sequence[tuple[float, float]], colour: Rgb, *, opacity: float = 1.0) -> None:
        """Fill the polygon with corners ``points``."""
        self._pen.polygon([(x * self._scale, y * self._scale) for x, y in points], self._ink(colour, opacity))

    def rounded(
        self, left: float, top: float, right: float, bottom: float, radius: float, colour: Rgb
    ) -> None:
        """Fill an upright rectangle with round corners."""
        box = [part * self._scale for part in (left, top, right, bottom)]
        self._pen.rounded_rectangle(box, radius * self._scale, self._ink(colour, 1.0))

    def ellipse(
        self, x: float, y: float, half_width: float, half_height: float, colour: Rgb, *, opacity: float = 1.0
    ) -> None:
        """Fill the ellipse around (x, y)."""
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        self._pen.ellipse([part * self._scale for part in box], self._ink(colour, opacity))

    def circle(self, x: float, y: float, radius: float, colour: Rgb, *, opacity: float = 1.0) -> None:
        """Fill the circle around (x, y)."""
        self.ellipse(x, y, radius, radius, colour, opacity=opacity)

    def line(self, points: Sequence[tuple[float, float]], thickness: float, colour: Rgb) -> None:
        """Draw the open line through ``points``."""
        path = [(x * self._scale, y * self._scale) for x, y in points]
        self._pen.line(
            path, self._ink(colour, 1.0), width=max(1, round(thickness * self._scale)), joint="curve"
        )

    def finished(self) -> Image.Image:
        """The picture at its own size."""
        return self._image.resize(self._size, Image.Resampling.BOX)

    @staticmethod
    def _ink(colour: Rgb, opacity: float) -> tuple[int, int, int, int]:
        return (*colour, round(255 * opacity))
