"""The bundled model: a small Stable Diffusion, trained on drawn scenes by the code in this folder."""

from pathlib import Path
from typing import Final

WEIGHTS: Final = Path(__file__).with_name("weights")
"""The shipped model, in diffusers' layout."""
