"""The colours of the scenes, as RGB from 0 to 255.

Landscapes are muted and subjects vivid, so that a subject's pixels can be told from everything around it:
no background reaches both the saturation and the brightness from which :mod:`gpu_worker.demo_model.measures`
calls a pixel vivid.
"""

from typing import Final

from gpu_worker.demo_model.scenes import Colour, Ground, Time

Rgb = tuple[int, int, int]

SUBJECT: Final[dict[Colour, Rgb]] = {
    Colour.RED: (224, 44, 44),
    Colour.ORANGE: (246, 130, 28),
    Colour.YELLOW: (246, 208, 40),
    Colour.GREEN: (44, 180, 74),
    Colour.TURQUOISE: (30, 196, 186),
    Colour.BLUE: (40, 100, 228),
    Colour.PURPLE: (140, 62, 204),
    Colour.PINK: (244, 84, 164),
}
SKY: Final[dict[Time, tuple[Rgb, Rgb]]] = {
    Time.DAY: ((134, 182, 226), (212, 232, 244)),
    Time.SUNSET: ((114, 96, 144), (250, 202, 150)),
    Time.NIGHT: ((14, 18, 42), (48, 58, 96)),
}
"""From the top of the picture to the horizon."""

GROUND: Final[dict[tuple[Ground, Time], tuple[Rgb, Rgb]]] = {
    (Ground.GRASS, Time.DAY): ((164, 192, 126), (120, 158, 96)),
    (Ground.GRASS, Time.SUNSET): ((150, 146, 92), (108, 110, 66)),
    (Ground.GRASS, Time.NIGHT): ((46, 70, 52), (30, 50, 40)),
    (Ground.SAND, Time.DAY): ((232, 214, 172), (212, 188, 142)),
    (Ground.SAND, Time.SUNSET): ((230, 184, 142), (200, 150, 114)),
    (Ground.SAND, Time.NIGHT): ((106, 92, 78), (80, 68, 60)),
    (Ground.SNOW, Time.DAY): ((244, 247, 252), (216, 226, 240)),
    (Ground.SNOW, Time.SUNSET): ((242, 220, 222), (206, 180, 198)),
    (Ground.SNOW, Time.NIGHT): ((140, 152, 184), (106, 118, 152)),
    (Ground.SEA, Time.DAY): ((124, 170, 192), (88, 132, 158)),
    (Ground.SEA, Time.SUNSET): ((158, 118, 140), (100, 78, 112)),
    (Ground.SEA, Time.NIGHT): ((30, 50, 84), (20, 32, 58)),
}
"""From the horizon to the bottom of the picture."""

MOUNTAIN: Final[dict[Time, tuple[Rgb, Rgb]]] = {
    Time.DAY: ((150, 164, 188), (122, 140, 160)),
    Time.SUNSET: ((148, 112, 140), (112, 86, 118)),
    Time.NIGHT: ((38, 44, 72), (28, 34, 56)),
}
"""The far ridge and the near one."""

MOUNTAIN_SNOW: Final[dict[Time, Rgb]] = {
    Time.DAY: (240, 244, 250),
    Time.SUNSET: (240, 206, 204),
    Time.NIGHT: (112, 122, 154),
}
CLOUD: Final[dict[Time, Rgb]] = {
    Time.DAY: (252, 253, 255),
    Time.SUNSET: (246, 190, 172),
    Time.NIGHT: (58, 66, 96),
}
LIGHT: Final[dict[Time, tuple[float, float, float]]] = {
    Time.DAY: (1.0, 1.0, 1.0),
    Time.SUNSET: (1.0, 0.92, 0.9),
    Time.NIGHT: (0.86, 0.84, 0.92),
}
"""What the light does to a subject's colour, per channel."""

DIM: Final[dict[Time, tuple[float, float, float]]] = {
    Time.DAY: (1.0, 1.0, 1.0),
    Time.SUNSET: (0.94, 0.84, 0.82),
    Time.NIGHT: (0.5, 0.52, 0.64),
}
"""What the light does to everything else that is not part of the landscape."""

WINDOW: Final[dict[Time, Rgb]] = {
    Time.DAY: (204, 224, 236),
    Time.SUNSET: (255, 230, 172),
    Time.NIGHT: (255, 236, 176),
}
"""Glass by day, lamplight later."""

SUN: Final = (255, 244, 206)
MOON: Final = (240, 240, 224)
ROOF: Final = (98, 84, 92)
WOOD: Final = (112, 88, 72)
CLOTH: Final = (250, 244, 230)
IRON: Final = (58, 60, 70)


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """``share`` (0 to 1) of ``second``, the rest of ``first``."""
    red, green, blue = (round(one + (two - one) * share) for one, two in zip(first, second, strict=True))
    return red, green, blue


def under(light: tuple[float, float, float], colour: Rgb, shade: float = 1.0) -> Rgb:
    """``colour`` under ``light``, with ``shade`` above 1 lit and below 1 in shadow."""
    red, green, blue = (
        min(255, round(part * factor * shade)) for part, factor in zip(colour, light, strict=True)
    )
    return red, green, blue
