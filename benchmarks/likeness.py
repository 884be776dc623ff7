"""How much two pictures are alike."""

import math
from typing import Final

import numpy as np
from PIL import Image

SAME_DB: Final = 50
"""Peak signal-to-noise ratio, in dB, from which two pictures count as the same."""

IDENTICAL_DB: Final = 99.0
"""Stands for the infinite ratio of two pictures that are equal in every byte."""


def psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio, 10 log10(255² / mean squared error), in dB; both of one size."""
    error = np.mean((np.asarray(first, dtype=float) - np.asarray(second, dtype=float)) ** 2)
    return IDENTICAL_DB if error == 0 else 10 * math.log10(255**2 / error)
