"""Sheets of sample pictures, for eyes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

PROMPTS: Final = (
    # Held out from training,
    "a red house at sunset",
    "a purple boat on the sea by day",
    "a green hot air balloon over the sea at sunset",
    "a pink car in the snow at night with a crescent moon",
    "a turquoise house on the grass on the right by day",
    "a red lighthouse by the sea by day",
    "a purple tent on the sand at sunset",
    "a blue windmill in a meadow at sunset, with clouds",
    # and not.
    "sunset, sea, small red boat",
    "a blue boat on the left by day",
    "a pink tree on the grass on the left by day, mountains",
    "night, yellow lighthouse, sea, full moon",
    "an orange tent in the snow on the right under the stars",
    "a turquoise car on the beach on the left by day",
    "a large green tree in the snow at night",
    "lighthouse in winter",
)
STEPS: Final = 20
GUIDANCE: Final = 4.0
_COLUMNS: Final = 8
_GAP: Final = 4


@torch.no_grad()
def make_pictures(pipeline: Any, prompts: Sequence[str], *, seed: int) -> list[Image.Image]:  # noqa: ANN401 - diffusers
    """One picture for each of ``prompts``, with seeds that count up from ``seed``."""
    pipeline.set_progress_bar_config(disable=True)
    made: list[Image.Image] = pipeline(
        list(prompts),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=[torch.Generator("cpu").manual_seed(seed + index) for index in range(len(prompts))],
    ).images
    return made


def write_sheet(pipeline: Any, file: Path, *, prompts: Sequence[str] = PROMPTS, seed: int = 1) -> None:  # noqa: ANN401
    """Make a picture for each of ``prompts`` and write them to ``file``, in rows of eight."""
    pictures = make_pictures(pipeline, prompts, seed=seed)
    width, height = pictures[0].size
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % _COLUMNS * (width + _GAP), index // _COLUMNS * (height + _GAP)))
    sheet.save(file)
