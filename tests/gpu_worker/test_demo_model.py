"""The shipped model and the code that made it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook

from gpu_worker.demo_model import WEIGHTS, train
from gpu_worker.demo_model.captions import caption, full_caption
from gpu_worker.demo_model.drawing import draw
from gpu_worker.demo_model.evaluate import shares_right
from gpu_worker.demo_model.measures import look_at
from gpu_worker.demo_model.scenes import (
    HELD_OUT_PAIRS,
    HELD_OUT_TRIPLES,
    Colour,
    Ground,
    Scene,
    Subject,
    Time,
    is_held_out,
    random_scene,
)
from gpu_worker.demo_model.sheet import make_pictures

MAX_BYTES = 24_000_000
SHAPES = ((128, 128), (192, 128), (128, 192))


@pytest.fixture(scope="module")
def shipped() -> Any:
    return StableDiffusionPipeline.from_pretrained(WEIGHTS, use_safetensors=True)


def _scenes(count: int, *, held_out: bool = False) -> list[Scene]:
    random = np.random.default_rng(3)
    return [random_scene(random, held_out=held_out) for _ in range(count)]


def test_the_shipped_files_are_small_and_hold_no_pickle() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    assert {file.suffix for file in files} == {".json", ".safetensors"}


def test_plain_diffusers_loads_all_parts_in_one_precision(shipped: Any) -> None:
    assert {shipped.unet.dtype, shipped.vae.dtype, shipped.text_encoder.dtype} == {torch.float32}
    assert shipped.scheduler.config.prediction_type == "v_prediction"


def test_the_shipped_model_follows_prompts_that_it_never_saw(shipped: Any) -> None:
    # Few pictures, so that a test may make them; python -m gpu_worker.demo_model.evaluate makes enough.
    random = np.random.default_rng(5)
    scenes = [random_scene(random, held_out=True) for _ in range(16)]
    prompts = [full_caption(scene, random) for scene in scenes]
    right = shares_right(scenes, make_pictures(shipped, prompts, seed=40))
    assert right["time"] >= 85
    assert right["ground"] >= 85
    assert right["colour"] >= 75


@pytest.mark.parametrize(
    ("prompt", "colour", "time", "ground"),
    [
        ("sunset, sea, small red boat", Colour.RED, Time.SUNSET, Ground.SEA),
        ("a blue house in the snow at night", Colour.BLUE, Time.NIGHT, Ground.SNOW),
        ("A green tree in a meadow, by day.", Colour.GREEN, Time.DAY, Ground.GRASS),
    ],
)
def test_free_prompts_are_followed_too(
    prompt: str, colour: Colour, time: Time, ground: Ground, shipped: Any
) -> None:
    [picture] = make_pictures(shipped, [prompt], seed=1)
    seen = look_at(picture)
    assert (seen.colour, seen.time, seen.ground) == (colour, time, ground)


def test_a_seed_gives_the_same_pixels_again_and_another_seed_another_picture(shipped: Any) -> None:
    [first], [again], [other] = (make_pictures(shipped, ["a red boat"], seed=seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert np.abs(np.asarray(first, float) - np.asarray(other, float)).mean() > 3


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_every_rule_is_right_about_drawn_scenes(width: int, height: int) -> None:
    scenes = _scenes(100)
    right = shares_right(scenes, [draw(scene, width=width, height=height) for scene in scenes])
    assert min(right.values()) >= 99


def test_a_rule_sees_what_is_wrong() -> None:
    scene = _scenes(1)[0]
    picture = draw(scene, width=128, height=128)
    twice = Image.new("RGB", (256, 128))
    twice.paste(picture, (0, 0))
    twice.paste(picture, (128, 0))
    assert look_at(twice).subjects == 2
    grey = look_at(picture.convert("L").convert("RGB"))
    assert (grey.colour, grey.place, grey.subjects) == (None, None, 0)


def test_training_never_shows_what_is_held_out_and_evaluation_shows_nothing_else() -> None:
    trained, tested = _scenes(4000), _scenes(400, held_out=True)
    assert not any(is_held_out(scene) for scene in trained)
    pairs = {(scene.subject, scene.colour) for scene in trained}
    assert len(pairs) == len(Subject) * len(Colour) - len(HELD_OUT_PAIRS)
    for scene in tested:
        pair = (scene.subject, scene.colour)
        assert pair in HELD_OUT_PAIRS or (*pair, scene.time) in HELD_OUT_TRIPLES


def test_a_scene_and_a_size_give_the_same_pixels_again() -> None:
    [scene] = _scenes(1)
    first, again = (draw(scene, width=160, height=96) for _ in range(2))
    assert first.size == (160, 96)
    assert first.tobytes() == again.tobytes()


def test_captions_vary_and_leave_things_out_but_full_ones_do_not() -> None:
    random = np.random.default_rng(1)
    [scene] = _scenes(1)
    told = Counter(caption(scene, random) for _ in range(300))
    assert len(told) > 200
    time_unsaid = [text for text in told if not any(word in text for word in _words_for(scene.time))]
    assert 10 < len(time_unsaid) < 150
    for _ in range(50):
        text = full_caption(scene, random)
        assert any(word in text for word in _words_for(scene.time))


def _words_for(time: Time) -> tuple[str, ...]:
    return {
        Time.DAY: ("day", "noon", "blue sky"),
        Time.SUNSET: ("sunset", "dusk", "evening", "sundown"),
        Time.NIGHT: ("night", "stars", "starry"),
    }[time]


@pytest.mark.timeout(400)
def test_training_ends_in_a_model_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def arguments(steps: int) -> list[str]:
        size = {"scenes": 5, "vae-steps": 2, "text-steps": 2, "unet-steps": steps, "sheet": 1}
        size |= {"vae-batch": 2, "text-batch": 2, "unet-batch": 2}
        return [str(tmp_path), "--device=cpu", *(f"--{name}={value}" for name, value in size.items())]

    command = [sys.executable, "-m", "gpu_worker.demo_model.train", *arguments(2)]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "vae-000002.png").exists()
    assert (tmp_path / "unet-000002.png").exists()
    # The second time in this process, where all libraries are there already.
    monkeypatch.setattr(sys, "argv", ["train", *arguments(3)])
    computed: set[torch.dtype] = set()

    def note(_module: Any, _inputs: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            computed.add(made.dtype)

    with register_module_forward_hook(note):
        train.main()
    # A processor takes twice as long in bfloat16, unless it is a recent one.
    assert computed == {torch.float32}
    log = capfd.readouterr().err
    assert "2/3" in log
    assert "0/3" not in log
    made = StableDiffusionPipeline.from_pretrained(tmp_path / "model", use_safetensors=True)
    assert len(make_pictures(made, ["a red house"], seed=1)) == 1
