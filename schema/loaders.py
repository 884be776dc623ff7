"""Batches the look-ups that the fields of a list would otherwise each make."""

from collections import defaultdict
from uuid import UUID

from strawberry.dataloader import DataLoader

from core.generations import Generations, Outlook
from core.models import Generation, Image
from core.repository import generations as repository


class Loaders:
    """The loaders of one request."""

    def __init__(self, *, generations: Generations) -> None:
        self.images: DataLoader[UUID, list[Image]] = DataLoader(load_fn=_load_images, cache=False)
        self._generations = generations

    async def outlook(self, generation: Generation) -> Outlook | None:
        """Where a queued generation stands."""
        return await self._generations.outlook(generation)


async def _load_images(generation_ids: list[UUID]) -> list[list[Image]]:
    found = defaultdict(list)
    for image in await repository.images_of(generation_ids):
        found[image.generation_id].append(image)
    return [found[generation_id] for generation_id in generation_ids]
