"""Generations, their pictures, their listing and their live status."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Self, TypeVar
from uuid import UUID

import strawberry

from core import models
from core.clock import now
from core.lifecycle import Delivery as DeliveryValue
from core.lifecycle import GenerationState as StateValue
from core.outlook import Outlook
from core.repository.generations import Position
from schema.context import Context
from schema.cost import Cost, ListSize
from schema.types.enums import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from schema.types.node import Node, to_global_id

_Part = TypeVar("_Part")


@strawberry.type(description="One finished picture.")
class Image:
    """A stored picture."""

    width: int = strawberry.field(description="Pixels.")
    height: int = strawberry.field(description="Pixels.")
    seed: int = strawberry.field(description="The seed that makes this very picture again.")
    content_type: str = strawberry.field(description="Such as `image/png`.")
    byte_size: int = strawberry.field(description="Size of the file in bytes.")
    sha256: str = strawberry.field(description="SHA-256 of the file, in hex.")
    key: strawberry.Private[UUID]
    extension: strawberry.Private[str]
    downloadable: strawberry.Private[bool]

    @classmethod
    def of(cls, row: models.Image, *, generation: models.Generation) -> Self:
        """The picture of a row."""
        return cls(
            width=row.width,
            height=row.height,
            seed=row.seed,
            content_type=row.content_type,
            byte_size=row.byte_size,
            sha256=row.sha256,
            key=row.id,
            extension=generation.format.extension,
            downloadable=generation.delivery is DeliveryValue.DOWNLOAD,
        )

    @strawberry.field(
        description="A signed link that expires; ask again for a fresh one. Null for delivery by e-mail."
    )
    def url(self, info: strawberry.Info[Context, None]) -> str | None:
        """Made anew each time it is asked for."""
        if not self.downloadable:
            return None
        return info.context.services.links.make(self.key, extension=self.extension, now=now())


@strawberry.type(description="Why a generation has no pictures.")
class GenerationError:
    """The reason, fit for the customer."""

    message: str = strawberry.field(description="The reason, in a sentence.")


@strawberry.type(description="A request for pictures, and what became of it.")
class Generation(Node):
    """A generation as its owner sees it."""

    prompt: str = strawberry.field(description="What to draw.")
    negative_prompt: str = strawberry.field(description="What to keep away from.")
    model: strawberry.ID = strawberry.field(description="The model's id, as in `models`.")
    width: int = strawberry.field(description="Pixels.")
    height: int = strawberry.field(description="Pixels.")
    steps: int = strawberry.field(description="Denoising steps.")
    guidance_scale: float = strawberry.field(
        description="How strictly the prompt is followed; 1 and below: not at all guided."
    )
    seed: int = strawberry.field(description="Seed of the first picture; the others follow it one by one.")
    count: int = strawberry.field(description="How many pictures.")
    scheduler: Scheduler = strawberry.field(description="The sampler.")
    format: ImageFormat = strawberry.field(description="The pictures' encoding.")
    tier: Tier = strawberry.field(description="What it was accepted as; that does not change.")
    delivery: Delivery = strawberry.field(description="How the pictures arrive.")
    state: GenerationState = strawberry.field(description="Where it stands.")
    error: GenerationError | None = strawberry.field(description="For FAILED and REJECTED.")
    created_at: datetime = strawberry.field(description="When it was accepted.")
    started_at: datetime | None = strawberry.field(description="When a worker began.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    row: strawberry.Private[models.Generation]
    outlook: strawberry.Private[Outlook | None]

    @classmethod
    def of(cls, row: models.Generation, *, outlook: Outlook | None = None) -> Self:
        """The generation of a row; an outlook that is not known yet is looked up when a field needs it."""
        if row.state.terminal:
            outlook = Outlook()
        return cls(
            id=to_global_id("Generation", row.id),
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            model=strawberry.ID(row.model),
            width=row.width,
            height=row.height,
            steps=row.steps,
            guidance_scale=row.guidance_scale,
            seed=row.seed,
            count=row.count,
            scheduler=row.scheduler,
            format=row.format,
            tier=row.tier,
            delivery=row.delivery,
            state=row.state,
            error=GenerationError(message=row.error) if row.error else None,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            row=row,
            outlook=outlook,
        )

    # What is known already is returned as it is: the coroutines would be a fifth of what an event of a
    # subscription costs.

    @strawberry.field(
        description="The pictures, once it SUCCEEDED.",
        graphql_type=list[Image],
        directives=[ListSize(assumed_size=4)],
    )
    def images(self, info: strawberry.Info[Context, None]) -> Awaitable[list[Image]] | list[Image]:
        """Looked up together for all generations of a list; there are none before it SUCCEEDED."""
        return self._images(info) if self.row.state is StateValue.SUCCEEDED else []

    @strawberry.field(
        description="When it is deleted, with prompt and pictures, and its id becomes unknown; null until it "
        "has ended."
    )
    def expires_at(self, info: strawberry.Info[Context, None]) -> datetime | None:
        """Counted from its end."""
        return info.context.services.lifetimes.expires_at(self.row)

    @strawberry.field(
        description="Place in the queue of its tier from 1, while QUEUED.",
        graphql_type=int | None,
        directives=[Cost(weight="1")],
    )
    def queue_position(self, info: strawberry.Info[Context, None]) -> Awaitable[int | None] | int | None:
        """Counted now, together for all generations of a list."""
        return self._outlook(info, attrgetter("queue_position"))

    @strawberry.field(
        description="While QUEUED or RUNNING: when it should be finished, by the work ahead of it and the "
        "speed that the workers have measured. Never in the past; null while nobody has measured it.",
        graphql_type=datetime | None,
        directives=[Cost(weight="1")],
    )
    def estimated_finish_at(
        self, info: strawberry.Info[Context, None]
    ) -> Awaitable[datetime | None] | datetime | None:
        """Estimated now, together for all generations of a list."""
        return self._outlook(info, attrgetter("estimated_finish_at"))

    async def _images(self, info: strawberry.Info[Context, None]) -> list[Image]:
        rows = await info.context.loaders.images.load(self.row.id)
        return [Image.of(row, generation=self.row) for row in rows]

    def _outlook(
        self, info: strawberry.Info[Context, None], part: Callable[[Outlook], _Part]
    ) -> Awaitable[_Part] | _Part:
        async def looked_up() -> _Part:
            return part(await info.context.loaders.outlooks.load(self.row))

        return looked_up() if self.outlook is None else part(self.outlook)


@strawberry.type(description="Where a page of a listing begins and ends, as Relay has it.")
class PageInfo:
    """Relay's page info; pages only go forward."""

    has_next_page: bool = strawberry.field(description="Whether more follow.")
    has_previous_page: bool = strawberry.field(description="Whether this page follows another.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first edge.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last edge: the next page's `after`.")


@strawberry.type(description="One place in the listing.")
class GenerationEdge:
    """A generation with its cursor."""

    cursor: str = strawberry.field(description="Opaque; good as `after`.")
    node: Generation = strawberry.field(description="The generation.")


@strawberry.type(description="A page of your generations, newest first.")
class GenerationConnection:
    """A page of generations."""

    edges: list[GenerationEdge] = strawberry.field(description="The generations with their cursors.")
    page_info: PageInfo = strawberry.field(description="Whether and how to go on.")

    @classmethod
    def of(cls, rows: list[models.Generation], *, more: bool, first_page: bool) -> Self:
        """The page of these rows."""
        edges = [GenerationEdge(cursor=to_cursor(row), node=Generation.of(row)) for row in rows]
        return cls(
            edges=edges,
            page_info=PageInfo(
                has_next_page=more,
                has_previous_page=not first_page,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


def to_cursor(row: models.Generation) -> str:
    """The cursor of a row: its place in the order, not its number, so that pages stay true as rows come."""
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()}|{row.id}".encode()).decode()


def from_cursor(value: str) -> Position | None:
    """The place that a cursor names, or none when it is not one."""
    try:
        text, _, key = base64.urlsafe_b64decode(value).decode().partition("|")
        created_at = datetime.fromisoformat(text)
        if created_at.tzinfo is None:
            return None
        return Position(created_at=created_at.astimezone(UTC), id=UUID(key))
    except (binascii.Error, ValueError, OverflowError):
        return None


@strawberry.type(description="A moment in a generation's life.")
class GenerationStatus:
    """What a subscriber of ``generationStatus`` receives."""

    generation: Generation = strawberry.field(description="The generation as it is at this moment.")
    state: GenerationState = strawberry.field(description="Where it stands.")
    step: int = strawberry.field(description="Denoising steps taken; never falls.")
    total_steps: int = strawberry.field(description="Denoising steps in all.")
    fraction: float = strawberry.field(description="Share of the steps taken, 0 to 1.")
    queue_position: int | None = strawberry.field(
        description="Place in the queue of its tier from 1, while QUEUED."
    )
    eta_seconds: float | None = strawberry.field(
        description="Seconds until the `estimatedFinishAt` of `generation`; null where that is. "
        "While RUNNING it goes by its own pace, once a step is done."
    )
    preview: str | None = strawberry.field(
        description="A small JPEG of what is being made, as a data URL, where asked for and when it is new."
    )
