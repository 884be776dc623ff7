"""Pictures as files, with the parameters that made them inside."""

import io
import json
from typing import Final

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngImageFile, PngInfo

from core.errors import InvalidMessageError
from core.lifecycle import ImageFormat, Scheduler
from core.messages import Parameters

QUALITY: Final = 95

PNG_LEVEL: Final = 4
"""Of zlib: half the time of its usual 6 for files that are 4 % larger."""

# The samplers by the names that other programs for Stable Diffusion read and write.
_SAMPLERS: Final = {
    Scheduler.DDIM: "DDIM",
    Scheduler.EULER: "Euler",
    Scheduler.EULER_ANCESTRAL: "Euler a",
    Scheduler.DPMPP_2M: "DPM++ 2M",
    Scheduler.DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    Scheduler.LCM: "LCM",
}
_OWN_KEY: Final = "darkroom"
_OWN_MARK: Final = b"darkroom\0"
_UTF16_MARK: Final = b"UNICODE\0"
_MAX_JPEG_EXIF_BYTES: Final = 65_000
"""A JPEG segment ends at 65,535 bytes, its own header among them."""


def encode(image: Image.Image, *, format: ImageFormat, parameters: Parameters, index: int) -> bytes:  # noqa: A002 - what it is called
    """The file of picture ``index`` of those that ``parameters`` asked for.

    PNG and WebP always carry the parameters; JPEG does unless they are longer than it has room for.

    Args:
        image: RGB.
        format: PNG is lossless; JPEG and WebP are of quality 95, JPEG with full colour resolution.
        parameters: of the whole job; the file says the seed of this picture alone.
        index: from 0.
    """
    own = parameters.model_copy(update={"seed": parameters.seed_of(index), "count": 1})
    file = io.BytesIO()
    match format:
        case ImageFormat.PNG:
            image.save(file, "PNG", compress_level=PNG_LEVEL, pnginfo=_png_info(own))
        case ImageFormat.JPEG:
            exif = _exif(own)
            room = len(exif) <= _MAX_JPEG_EXIF_BYTES
            image.save(file, "JPEG", quality=QUALITY, subsampling=0, exif=exif if room else b"")
        case ImageFormat.WEBP:
            image.save(file, "WEBP", quality=QUALITY, exif=_exif(own))
    return file.getvalue()


def read_parameters(data: bytes) -> dict[str, object]:
    """The parameters inside a picture's file, as :class:`~core.messages.Parameters` reads them.

    Raises:
        InvalidMessageError: not a picture, or one without parameters.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            text = _own_text(image)
    except OSError as error:
        raise InvalidMessageError(f"not a picture that can be read: {error}") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InvalidMessageError("the picture carries no parameters") from error
    if not isinstance(content, dict):
        raise InvalidMessageError("the picture's parameters are not an object")
    return content


def _own_text(image: Image.Image) -> str:
    if isinstance(image, PngImageFile):
        return str(image.text.get(_OWN_KEY, ""))
    note = image.getexif().get_ifd(IFD.Exif).get(Base.MakerNote, b"")
    return note.removeprefix(_OWN_MARK).decode() if note.startswith(_OWN_MARK) else ""


def _png_info(parameters: Parameters) -> PngInfo:
    info = PngInfo()
    info.add_itxt("parameters", _readable(parameters))
    info.add_itxt(_OWN_KEY, parameters.model_dump_json())
    return info


def _exif(parameters: Parameters) -> bytes:
    """The user's comment as people and programs read it, the maker's note as we do."""
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update(
        {
            Base.UserComment: _UTF16_MARK + _readable(parameters).encode("utf-16-be"),
            Base.MakerNote: _OWN_MARK + parameters.model_dump_json().encode(),
        }
    )
    return exif.tobytes()


def _readable(parameters: Parameters) -> str:
    """The text that programs for Stable Diffusion put into pictures and read from them."""
    settings = {
        "Steps": parameters.steps,
        "Sampler": _SAMPLERS[parameters.scheduler],
        "CFG scale": f"{parameters.guidance_scale:g}",
        "Seed": parameters.seed,
        "Size": f"{parameters.width}x{parameters.height}",
        "Model": parameters.model,
    }
    lines = [parameters.prompt]
    if parameters.negative_prompt:
        lines.append(f"Negative prompt: {parameters.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)
