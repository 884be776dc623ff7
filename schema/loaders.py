"""Batches the look-ups that the fields of a list would otherwise each make."""

from collections import defaultdict
from uuid import UUID

from strawberry.dataloader import DataLoader

from core.models import Generation, Image
from core.outlook import Outlook, Outlooks
from core.repository import generations


class Loaders:
    """The loaders of one request."""

    def __init__(self, *, outlooks: Outlooks) -> None:
        self.images: DataLoader[UUID, list[Image]] = DataLoader(load_fn=_load_images, cache=False)
        self.outlooks: DataLoader[Generation, Outlook] = DataLoader(load_fn=outlooks.of, cache=False)


async def _load_images(generation_ids: list[UUID]) -> list[list[Image]]:
    found = defaultdict(list)
    for image in await generations.images_of(generation_ids):
        found[image.generation_id].append(image)
    return [found[generation_id] for generation_id in generation_ids]
