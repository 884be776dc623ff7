"""Pictures as letters carry them: a thumbnail to look at, and the whole picture attached or behind a link."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from typing import Final
from uuid import UUID

import PIL.Image
import structlog

from core.errors import ObjectNotFoundError
from core.models import Generation, Image
from core.repository import generations
from core.storage import DownloadLinks, Storage

THUMBNAIL: Final = 516
"""Width of a thumbnail in pixels: twice what it is shown at, for sharp screens."""

SMALL_THUMBNAIL: Final = 258
"""Of one in a letter with more than ``_FEW`` pictures."""

_FEW = 12
_TALLEST = 2
"""A thumbnail's greatest height, in widths."""

_THUMBNAIL_QUALITY = 82

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG of a picture. Sizes in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of a letter.

    ``attachment`` is the picture as it was made; where that would have made the letter too heavy there is a
    ``link`` instead. A picture that is gone from the object store has neither, and no thumbnail.
    """

    name: str
    content_type: str
    content_id: str
    seed: int
    thumbnail: Thumbnail | None = None
    attachment: bytes | None = None
    link: str | None = None

    def shown_width(self, most: int) -> int:
        """How wide the thumbnail is shown in a column of ``most`` pixels: at twice its size if it is tiny."""
        return 0 if self.thumbnail is None else min(most, 2 * self.thumbnail.width)


class Album:
    """Fetches the pictures of a letter and decides how each of them travels."""

    def __init__(
        self, *, storage: Storage, links: DownloadLinks, link_lifetime: timedelta, attachments_limit: int
    ) -> None:
        """Make an album.

        Args:
            storage: where the pictures are.
            links: makes the links to those that are not attached.
            link_lifetime: how long these links work.
            attachments_limit: bytes of attachments in one letter.
        """
        self._storage = storage
        self._links = links
        self._limit = attachments_limit
        self.link_lifetime = link_lifetime

    async def collect(
        self, asked: Sequence[Generation], *, at: datetime, attach: bool
    ) -> dict[UUID, list[Picture]]:
        """The pictures of a letter's generations, by generation and in their order.

        Args:
            asked: the generations, in the order in which their pictures are attached while there is room.
            at: the moment from which links count.
            attach: whether any picture may be attached; otherwise all are links.

        Raises:
            ServiceUnavailableError: the object store does not answer.
        """
        rows = await generations.images_of([generation.id for generation in asked])
        album: dict[UUID, list[Picture]] = {generation.id: [] for generation in asked}
        room = self._limit if attach else 0
        side = THUMBNAIL if len(rows) <= _FEW else SMALL_THUMBNAIL
        for generation in asked:
            for image in (row for row in rows if row.generation_id == generation.id):
                picture = await self._fetch(generation, image, room=room, side=side, at=at)
                room -= len(picture.attachment or b"")
                album[generation.id].append(picture)
        return album

    async def _fetch(
        self, generation: Generation, image: Image, *, room: int, side: int, at: datetime
    ) -> Picture:
        extension = generation.format.extension
        try:
            data = await self._storage.get(image.key)
        except ObjectNotFoundError:
            # The rest of the letter is still worth having, and says which picture is missing.
            log.exception("picture_missing", generation=str(generation.id), key=image.key)
            data = None
        fits = data is not None and len(data) <= room
        return Picture(
            name=f"darkroom-{generation.id.hex[:8]}-{image.index + 1}.{extension}",
            content_type=image.content_type,
            content_id=f"{image.id.hex}@darkroom",
            seed=image.seed,
            thumbnail=await asyncio.to_thread(_thumbnail, data, side) if data else None,
            attachment=data if fits else None,
            link=self._links.make(image.id, extension=extension, now=at) if data and not fits else None,
        )


def _thumbnail(data: bytes, side: int) -> Thumbnail:
    with PIL.Image.open(BytesIO(data)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((side, side * _TALLEST), PIL.Image.Resampling.LANCZOS)
    encoded = BytesIO()
    small.save(encoded, "JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    return Thumbnail(data=encoded.getvalue(), width=small.width, height=small.height)
