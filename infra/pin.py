"""``python -m infra.pin [FILE …]``: writes the digests of other people's images beside their tags."""

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from core.errors import ServiceUnavailableError
from infra.registry import Registry

REPOSITORY: Final = Path(__file__).resolve().parents[1]

_PLACES: Final = (
    "infra/docker/Dockerfile",
    "infra/docker/compose*.yaml",
    "infra/kubernetes/**/*.yaml",
)
_NAMED: Final = re.compile(r"^(\s*(?:FROM|(?:- )?image:|(?:- )?imageName:)\s+)([^\s]+)", re.MULTILINE)
_REFERENCE: Final = re.compile(
    r"(?:(?P<host>[\w-]+(?:\.[\w-]+)+(?::\d+)?|localhost(?::\d+)?)/)?"
    r"(?P<path>[a-z0-9][a-z0-9._/-]*):(?P<tag>[\w][\w.-]*)(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image by its tag, and by its digest where that is known.

    ``host`` is the registry, or empty for the one that container engines take when none is said.
    """

    host: str
    path: str
    tag: str
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The image that is named, or none for what has no tag: an image of ours, or a build's stage."""
        found = _REFERENCE.fullmatch(text)
        return cls(found["host"] or "", found["path"], found["tag"], found["digest"]) if found else None

    @property
    def tagged(self) -> str:
        """Without the digest."""
        return f"{self.host}/{self.path}:{self.tag}" if self.host else f"{self.path}:{self.tag}"


def main() -> int:
    """Pin every image that is named; the status is 1 when one of them could not be pinned."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.pin",
        description="Pin images to the digests that their tags have at present.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="where; by default everywhere")
    files = parser.parse_args().files or [
        path for place in _PLACES for path in sorted(REPOSITORY.glob(place))
    ]
    return pin_images(files, registry=Registry())


def pin_images(files: Iterable[Path], *, registry: Registry) -> int:
    """Write each image's digest beside its tag, and say so, a line for each image.

    One that cannot be pinned is named on standard error and stays as it is.

    Returns:
        How the process ends: 0, or 1 when an image could not be pinned.
    """
    texts = {path: path.read_text() for path in files}
    images = {
        found[2]: image
        for text in texts.values()
        for found in _NAMED.finditer(text)
        if (image := ImageName.parse(found[2])) is not None
    }
    digests: dict[str, str] = {}
    for image in sorted(images.values(), key=lambda one: one.tagged):
        try:
            digest = digests[image.tagged] = registry.digest_of(image.host, image.path, image.tag)
        except ServiceUnavailableError as error:
            sys.stderr.write(f"{image.tagged}: {error}\n")
            continue
        change = "unchanged" if digest == image.digest else f"was {image.digest or 'not pinned'}"
        sys.stdout.write(f"{image.tagged}@{digest}, {change}\n")

    def pinned(found: re.Match[str]) -> str:
        image = images.get(found[2])
        if image is None or image.tagged not in digests:
            return found[0]
        return f"{found[1]}{image.tagged}@{digests[image.tagged]}"

    for path, text in texts.items():
        if (changed := _NAMED.sub(pinned, text)) != text:
            path.write_text(changed)
    return 0 if len(digests) == len({image.tagged for image in images.values()}) else 1


if __name__ == "__main__":
    sys.exit(main())
