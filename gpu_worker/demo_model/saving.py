"""Writes the model so that plain ``from_pretrained`` loads it, in half precision on disk."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline


def save_half(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write ``pipeline`` to ``folder``; its own weights become half precision.

    Raises:
        OSError: the folder cannot be written.
    """
    pipeline.to("cpu", dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for file in folder.rglob("*.json"):
        _tidy(file)


def _tidy(file: Path) -> None:
    settings = json.loads(file.read_text())
    # Where the parts were loaded from when training went on from another model.
    settings.pop("_name_or_path", None)
    if "dtype" in settings:
        # The precision to load: transformers reads it here, diffusers has a default, and they must agree.
        settings["dtype"] = "float32"
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
