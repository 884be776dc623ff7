"""Draws the training pictures into arrays on disk, with several captions for each."""

import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from gpu_worker.demo_model.captions import caption
from gpu_worker.demo_model.drawing import PICTURE_SIZE, draw
from gpu_worker.demo_model.scenes import Colour, Ground, Place, Scene, Size, Subject, Time, random_scene

CAPTIONS_PER_SCENE: Final = 6
_CHUNK: Final = 500
_LONGER = PICTURE_SIZE * 3 // 2

SHAPES: Final = {
    (PICTURE_SIZE, PICTURE_SIZE): 0.6,
    (_LONGER, PICTURE_SIZE): 0.2,
    (PICTURE_SIZE, _LONGER): 0.2,
}
"""Widths and heights in pixels, each with its share of the pictures."""


ATTRIBUTES: Final = (Subject, Colour, Time, Ground, Place, Size)
"""What a caption may say of a scene, each one of several."""

_Drawn = tuple[list[str], list[int]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures of one size.

    Attributes:
        pictures: shape (count, height, width, 3), values 0 to 255; stays on disk.
        captions: ``CAPTIONS_PER_SCENE`` for each picture, in its order.
        attributes: shape (count, attributes), the place of each of ``ATTRIBUTES`` in its kind.
    """

    pictures: np.ndarray[Any, np.dtype[np.uint8]]
    captions: Sequence[Sequence[str]]
    attributes: np.ndarray[Any, np.dtype[np.int64]]


def drawn(folder: Path, *, scenes: int, seed: int) -> list[Dataset]:
    """Draw ``scenes`` scenes in the sizes of ``SHAPES`` into ``folder``, or take those that lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _drawn(folder / f"{width}x{height}", width, height, round(scenes * share), seed + number)
        for number, ((width, height), share) in enumerate(SHAPES.items())
    ]


def _drawn(name: Path, width: int, height: int, count: int, seed: int) -> Dataset:
    pictures, captions = name.with_suffix(".npy"), name.with_suffix(".json")
    # The captions are written last: where they are, the pictures are complete.
    if not captions.exists():
        captions.write_text(json.dumps(_draw_all(pictures, width, height, count, seed)))
    words, attributes = zip(*json.loads(captions.read_text()), strict=True)
    return Dataset(np.load(pictures, mmap_mode="r"), words, np.array(attributes))


def _draw_all(file: Path, width: int, height: int, count: int, seed: int) -> list[_Drawn]:
    np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, height, width, 3)).flush()
    starts = range(0, count, _CHUNK)
    work = partial(_draw_chunk, file, width, height, count, seed)
    # Forked: a fresh interpreter for each process would import torch first. Nothing runs beside this yet.
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        chunks = list(
            tqdm(pool.imap(work, starts), total=len(starts), desc=f"drawing {width}x{height}", unit="chunk")
        )
    return [drawn for chunk in chunks for drawn in chunk]


def _draw_chunk(file: Path, width: int, height: int, count: int, seed: int, start: int) -> list[_Drawn]:
    random = np.random.default_rng([seed, start])
    pictures = np.load(file, mmap_mode="r+")
    drawn = []
    for index in range(start, min(start + _CHUNK, count)):
        scene = random_scene(random)
        pictures[index] = np.asarray(draw(scene, width=width, height=height))
        drawn.append(([caption(scene, random) for _ in range(CAPTIONS_PER_SCENE)], _attributes(scene)))
    return drawn


def _attributes(scene: Scene) -> list[int]:
    values = (scene.subject, scene.colour, scene.time, scene.ground, scene.place, scene.size)
    return [list(kind).index(value) for kind, value in zip(ATTRIBUTES, values, strict=True)]
