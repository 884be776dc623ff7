"""The layout in which diffusers keeps a model: an index, and a folder for each component."""

import json
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from core.errors import WeightsError

INDEX: Final = "model_index.json"
"""The file that names a model's components."""

# The components that hold weights, of all that these families know; the rest is vocabulary and settings.
_REQUIRED: Final = {
    "sd1": frozenset({"unet", "vae", "text_encoder"}),
    "sdxl": frozenset({"unet", "vae", "text_encoder", "text_encoder_2"}),
}
_OPTIONAL: Final = frozenset({"safety_checker", "image_encoder"})
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def verify(folder: Path, family: str) -> None:
    """Check that ``folder`` holds every component of ``family`` as whole safetensors files.

    Reads headers and sizes, not the weights: it takes milliseconds.

    Raises:
        WeightsError: names the file and what was expected of it.
    """
    present = components(folder)
    required = _REQUIRED[family]
    if missing := sorted(required - present):
        raise WeightsError(f"{folder / INDEX} names no {', '.join(missing)}, which {family} needs")
    if unknown := sorted(_REQUIRED["sdxl"] & present - required):
        raise WeightsError(f"{folder / INDEX} names {', '.join(unknown)}: it is not of family {family}")
    for component in sorted(present):
        if not (folder / component).is_dir():
            raise WeightsError(f"{folder / component} is missing: {INDEX} names it")
        if component in required | _OPTIONAL:
            _verify_component(folder / component)


def components(folder: Path) -> frozenset[str]:
    """Names of the components that the index in ``folder`` lists.

    Raises:
        WeightsError: there is no index, it is not one, or it names something that is no folder beside it.
    """
    index = folder / INDEX
    if not index.is_file():
        raise WeightsError(f"{index} is missing: a folder in diffusers' layout was expected")
    # A component is [library, class]; one that the model goes without is [null, null].
    names = [name for name, kind in _json(index).items() if isinstance(kind, list) and all(kind)]
    if outside := [name for name in names if not name.isidentifier()]:
        raise WeightsError(f"{index} names {outside[0]!r}, which is no component")
    return frozenset(names)


def _json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise WeightsError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} is not a JSON object")
    return content


def _verify_component(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder / 'config.json'} is missing")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        instead = f"; {', '.join(pickles)} could run code when loaded and is refused" if pickles else ""
        raise WeightsError(f"{folder} holds no safetensors file{instead}")
    for listing in sorted(folder.glob("*.safetensors.index*.json")):
        _verify_shards(listing)
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                if not content.keys():
                    raise WeightsError(f"{file} holds no tensors")
        except SafetensorError as error:
            raise WeightsError(f"{file} is not a whole safetensors file: {error}") from error


def _verify_shards(listing: Path) -> None:
    shards = _json(listing).get("weight_map")
    if not isinstance(shards, dict):
        raise WeightsError(f"{listing} has no weight_map")
    for shard in sorted(set(shards.values())):
        if not (listing.parent / shard).is_file():
            raise WeightsError(f"{listing.parent / shard} is missing: {listing.name} names it")
