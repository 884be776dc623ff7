"""``python -m gpu_worker.demo_model.evaluate``: how well the bundled model follows prompts that it never saw.

Makes pictures of held-out combinations and reads them with :mod:`gpu_worker.demo_model.measures`; the same
rules read the same scenes as drawn, which is the most that any model could reach. Also measures the
autoencoder on fresh scenes, and time and memory.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.logging import disable_progress_bar
from PIL import Image
from tqdm import tqdm

from gpu_worker.demo_model import WEIGHTS
from gpu_worker.demo_model.captions import full_caption
from gpu_worker.demo_model.drawing import PICTURE_SIZE, draw
from gpu_worker.demo_model.measures import look_at
from gpu_worker.demo_model.scenes import Scene, random_scene
from gpu_worker.demo_model.sheet import PROMPTS, make_pictures, write_sheet
from gpu_worker.pipeline import use_cores

_AT_ONCE: Final = 8
_FRESH_SCENES: Final = 200
_SPEED_BATCHES: Final = (1, 4, 8)
_SPEED_RUNS: Final = 5


def main() -> None:
    """Evaluate what the command line says and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="gpu_worker.demo_model.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=WEIGHTS, help="folder; the shipped model unless given")
    parser.add_argument("--prompts", type=int, default=240, help="how many held-out prompts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sheet", type=Path, help="also write sample pictures to this file")
    options = parser.parse_args()
    disable_progress_bar()
    use_cores()
    begun = time.monotonic()
    pipeline = StableDiffusionPipeline.from_pretrained(options.model, use_safetensors=True).to(options.device)
    figures: dict[str, Any] = {"load_seconds": round(time.monotonic() - begun, 2)}
    figures["seconds"] = {str(count): _seconds(pipeline, count) for count in _SPEED_BATCHES}
    figures["peak_memory_mebibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    random = np.random.default_rng(options.seed)
    scenes = [random_scene(random, held_out=True) for _ in range(options.prompts)]
    prompts = [full_caption(scene, random) for scene in scenes]
    figures["drawn"] = shares_right(
        scenes, (draw(scene, width=PICTURE_SIZE, height=PICTURE_SIZE) for scene in scenes)
    )
    figures["made"] = shares_right(scenes, _made(pipeline, prompts, options.seed))
    figures["vae_psnr"] = round(_reconstruction(pipeline.vae, random), 2)
    if options.sheet:
        write_sheet(pipeline, options.sheet)
    print(json.dumps(figures, indent=2))


def shares_right(scenes: Sequence[Scene], pictures: Iterable[Image.Image]) -> dict[str, float]:
    """For each rule the share of ``pictures`` that show what their scene says, in percent."""
    right = {"colour": 0, "time": 0, "ground": 0, "place": 0, "one_subject": 0}
    for scene, picture in zip(scenes, pictures, strict=True):
        seen = look_at(picture)
        right["colour"] += seen.colour is scene.colour
        right["time"] += seen.time is scene.time
        right["ground"] += seen.ground is scene.ground
        right["place"] += seen.place is scene.place
        right["one_subject"] += seen.subjects == 1
    return {rule: round(100 * count / len(scenes), 1) for rule, count in right.items()}


def _made(pipeline: Any, prompts: Sequence[str], seed: int) -> Iterable[Image.Image]:  # noqa: ANN401 - diffusers
    for start in tqdm(range(0, len(prompts), _AT_ONCE), desc="pictures", unit="batch"):
        yield from make_pictures(pipeline, prompts[start : start + _AT_ONCE], seed=seed + start)


def _seconds(pipeline: Any, count: int) -> float:  # noqa: ANN401 - diffusers
    """The median time of a batch of ``count``, after one that does not count."""
    times = []
    for run in range(_SPEED_RUNS + 1):
        begun = time.monotonic()
        make_pictures(pipeline, PROMPTS[:count], seed=run)
        times.append(time.monotonic() - begun)
    return round(statistics.median(times[1:]), 2)


@torch.no_grad()
def _reconstruction(vae: Any, random: np.random.Generator) -> float:  # noqa: ANN401 - diffusers
    """The mean over fresh scenes of PSNR = 10 log10(255² / mean squared error), in dB."""
    ratios = []
    for _ in range(_FRESH_SCENES):
        pixels = np.asarray(draw(random_scene(random), width=PICTURE_SIZE, height=PICTURE_SIZE))
        given = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(vae.device) / 127.5 - 1
        made = vae.decode(vae.encode(given).latent_dist.mean).sample.clamp(-1, 1)
        ratios.append(10 * float(torch.log10(4 / ((made - given) ** 2).mean())))
    return statistics.mean(ratios)


if __name__ == "__main__":
    main()
