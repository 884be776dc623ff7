"""Where pictures go: into files, and onto the terminal where it can show them."""

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

_NAME_CHARACTERS: Final = 40
_COLUMNS: Final = 48

FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""What a file's ending says of its encoding."""

_ENDINGS: Final = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


def targets(output: Path | None, *, prompt: str, images: Sequence[dict[str, Any]]) -> list[Path]:
    """A file for each picture.

    Args:
        output: the file that was asked for; of several pictures it names all, with numbers. Without one they
            are named for their prompt and seed. A folder that exists takes files with such names.
        prompt: what they show.
        images: the pictures.
    """
    if output is None or output.is_dir():
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:_NAME_CHARACTERS].strip("-") or "picture"
        folder = output or Path()
        return [
            folder / f"{words}-{image['seed']}{_ENDINGS.get(image['contentType'], '')}" for image in images
        ]
    if len(images) == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(images) + 1)]


def show(data: bytes, *, console: Console) -> None:
    """Draw a picture on the terminal, as well as that can; nowhere else.

    By its graphics protocol (kitty's, or sixel as iTerm2 and others have it), else in half blocks.
    """
    # On being imported the library asks the terminal what it can do, and reads the answer.
    if not console.is_terminal or console.is_dumb_terminal or not sys.stdin.isatty():
        return
    # Some terminals do not know how large they are.
    if 0 in os.get_terminal_size(sys.stdout.fileno()):
        return
    from PIL import Image as Pillow  # noqa: PLC0415
    from textual_image.renderable import Image  # noqa: PLC0415

    with Pillow.open(io.BytesIO(data)) as picture:
        console.print(Image(picture, width=min(_COLUMNS, console.width), height="auto"))
