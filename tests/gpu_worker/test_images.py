import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngImageFile

from core.errors import InvalidMessageError
from core.lifecycle import ImageFormat, Scheduler
from core.messages import MAX_SEED, Parameters
from gpu_worker.images import encode, read_parameters

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def _parameters(**changes: object) -> Parameters:
    values: dict[str, object] = {
        "prompt": "a red fox, 雪, 🦊",
        "negative_prompt": "blurry\ndark",
        "model": "darkroom-demo",
        "width": 32,
        "height": 24,
        "steps": 20,
        "guidance_scale": 7.5,
        "seed": 41,
        "count": 3,
        "scheduler": Scheduler.EULER_ANCESTRAL,
    }
    return Parameters.model_validate(values | changes)


def _noise() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _gradient() -> Image.Image:
    red, blue = np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 24))
    return Image.fromarray(np.stack([red, red[::-1], blue], axis=-1).astype(np.uint8))


READABLE = (
    "a red fox, 雪, 🦊\nNegative prompt: blurry\ndark\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 43, Size: 32x24, Model: darkroom-demo"
)


@pytest.mark.parametrize("format", ImageFormat)
def test_a_picture_is_a_file_of_the_format_asked_for(format: ImageFormat) -> None:  # noqa: A002 - what it is called
    with Image.open(io.BytesIO(encode(_noise(), format=format, parameters=_parameters(), index=0))) as read:
        assert (read.format, read.size, read.mode) == (format.value, (32, 24), "RGB")
        read.load()


def test_png_keeps_every_pixel() -> None:
    data = encode(_noise(), format=ImageFormat.PNG, parameters=_parameters(), index=0)
    assert Image.open(io.BytesIO(data)).tobytes() == _noise().tobytes()


@pytest.mark.parametrize("format", [ImageFormat.JPEG, ImageFormat.WEBP])
def test_jpeg_and_webp_stay_close(format: ImageFormat) -> None:  # noqa: A002 - what it is called
    data = encode(_gradient(), format=format, parameters=_parameters(), index=0)
    read = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
    assert np.abs(read - np.asarray(_gradient(), dtype=float)).mean() < 4


def test_jpeg_has_full_colour_resolution() -> None:
    data = encode(_noise(), format=ImageFormat.JPEG, parameters=_parameters(), index=0)
    with Image.open(io.BytesIO(data)) as read:
        assert [layer[1:3] for layer in read.layer] == [(1, 1)] * 3  # type: ignore[attr-defined] # of JPEG files alone


@pytest.mark.parametrize("format", ImageFormat)
def test_a_file_says_what_makes_this_one_picture_again(format: ImageFormat) -> None:  # noqa: A002 - what it is called
    asked = _parameters(format=format)
    read = read_parameters(encode(_noise(), format=format, parameters=asked, index=2))
    assert Parameters.model_validate(read) == asked.model_copy(update={"seed": 43, "count": 1})


def test_the_seed_inside_wraps_as_the_seed_of_the_job_does() -> None:
    data = encode(_noise(), format=ImageFormat.PNG, parameters=_parameters(seed=MAX_SEED), index=1)
    assert read_parameters(data)["seed"] == 0


def test_png_carries_the_text_that_other_programs_read() -> None:
    data = encode(_noise(), format=ImageFormat.PNG, parameters=_parameters(), index=2)
    with Image.open(io.BytesIO(data)) as read:
        assert isinstance(read, PngImageFile)
        assert read.text["parameters"] == READABLE
        assert json.loads(read.text["darkroom"])["seed"] == 43


@pytest.mark.parametrize("format", [ImageFormat.JPEG, ImageFormat.WEBP])
def test_jpeg_and_webp_carry_the_text_that_other_programs_read(format: ImageFormat) -> None:  # noqa: A002 - what it is called
    data = encode(_noise(), format=format, parameters=_parameters(), index=2)
    with Image.open(io.BytesIO(data)) as read:
        comment = read.getexif().get_ifd(IFD.Exif)[Base.UserComment]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == READABLE


def test_the_readable_text_leaves_out_a_negative_prompt_that_is_empty() -> None:
    data = encode(_noise(), format=ImageFormat.PNG, parameters=_parameters(negative_prompt=""), index=0)
    with Image.open(io.BytesIO(data)) as read:
        assert isinstance(read, PngImageFile)
        assert "Negative" not in read.text["parameters"]


@settings(max_examples=40, deadline=None)
@given(prompt=TEXTS, negative_prompt=TEXTS, format=st.sampled_from(ImageFormat))
def test_any_prompt_survives_in_every_format(
    prompt: str,
    negative_prompt: str,
    format: ImageFormat,  # noqa: A002 - what it is called
) -> None:
    asked = _parameters(prompt=prompt, negative_prompt=negative_prompt, format=format, count=1)
    data = encode(Image.new("RGB", (8, 8)), format=format, parameters=asked, index=0)
    assert Parameters.model_validate(read_parameters(data)) == asked


@pytest.mark.parametrize("format", [ImageFormat.PNG, ImageFormat.WEBP])
def test_very_long_prompts_survive_where_the_format_has_room(format: ImageFormat) -> None:  # noqa: A002 - what it is called
    asked = _parameters(prompt="🦊" * 50_000, format=format, count=1)
    data = encode(_noise(), format=format, parameters=asked, index=0)
    assert read_parameters(data)["prompt"] == asked.prompt


def test_a_jpeg_without_room_for_the_parameters_is_a_good_picture_without_them() -> None:
    data = encode(_noise(), format=ImageFormat.JPEG, parameters=_parameters(prompt="🦊" * 50_000), index=0)
    with Image.open(io.BytesIO(data)) as read:
        read.load()
    with pytest.raises(InvalidMessageError, match="carries no parameters"):
        read_parameters(data)


def test_a_foreign_file_has_no_parameters() -> None:
    file = io.BytesIO()
    _noise().save(file, "PNG")
    for data, reason in [(file.getvalue(), "carries no parameters"), (b"text", "not a picture")]:
        with pytest.raises(InvalidMessageError, match=reason):
            read_parameters(data)
