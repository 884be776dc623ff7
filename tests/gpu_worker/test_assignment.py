"""What a job that is held here tells of itself, to whom and how often."""

import asyncio
import base64
import io
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from PIL import Image

from core.clock import now
from core.lifecycle import Delivery, Scheduler, Tier
from core.messages import Control, Job, Parameters, Progress
from core.queue import Lane, Queue
from core.queue.topology import PREMIUM_JOBS
from gpu_worker.assignment import PREVIEW_SECONDS, Assignment, News
from gpu_worker.engine import Picture, pictures_of
from gpu_worker.reports import Reports
from gpu_worker.watching import Watched


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def job(*, count: int) -> Job:
    return Job(
        id=uuid4(),
        tier=Tier.PREMIUM,
        delivery=Delivery.DOWNLOAD,
        parameters=Parameters(
            prompt="a red house",
            model="darkroom-demo",
            width=64,
            height=64,
            steps=20,
            guidance_scale=4.0,
            seed=1,
            count=count,
            scheduler=Scheduler.DDIM,
        ),
        accepted_at=now(),
    )


def drawing(shade: int = 0) -> Image.Image:
    return Image.new("RGB", (16, 16), (shade, shade, shade))


class Held:
    """A watched job in this worker's hands, of which a clock's owner decides what the time is."""

    def __init__(self, assignment: Assignment, clock: Clock, watched: set[UUID]) -> None:
        self.assignment = assignment
        self.clock = clock
        self.watched = watched
        self.pictures: list[Picture] = pictures_of(assignment.job)

    def wanted(self) -> list[int]:
        return [one.index for one in self.pictures if self.assignment.wants_preview(one)]


async def hold(queue: Queue, *, count: int, freed: Callable[[], None] = lambda: None) -> Held:
    sent = job(count=count)
    await queue.publish_job(Lane.PREMIUM, sent)
    [delivery] = await queue.consumer(PREMIUM_JOBS).fetch(1, wait=5)
    clock, watched = Clock(), {sent.id}
    return Held(Assignment(sent, delivery, watched=watched, freed=freed, clock=clock), clock, watched)


@pytest.fixture
async def held(queue: Queue) -> Held:
    return await hold(queue, count=1)


@pytest.fixture
async def held_pair(queue: Queue) -> Held:
    return await hold(queue, count=2)


async def test_steps_are_news_once_and_those_of_the_slowest_picture(held_pair: Held) -> None:
    one, (first, second) = held_pair.assignment, held_pair.pictures
    assert one.news() is None
    one.stepped(first, 3)
    assert one.news() is None
    one.stepped(second, 2)
    assert one.news() == News(2)
    assert one.news() is None


async def test_a_preview_is_told_once_even_where_no_step_is_new(held_pair: Held) -> None:
    one, image = held_pair.assignment, drawing()
    one.stepped(held_pair.pictures[0], 1)
    one.previewed(held_pair.pictures[0], image)
    assert one.news() == News(0, image)
    assert one.news() is None


async def test_the_newest_preview_is_told_when_its_time_has_come_and_steps_meanwhile(held: Held) -> None:
    one, [picture] = held.assignment, held.pictures
    told = []
    for step in range(1, 10):
        image = drawing(step)
        one.stepped(picture, step)
        one.previewed(picture, image)
        news = one.news()
        assert news is not None
        assert news.step == step
        if news.preview is not None:
            assert news.preview is image
            told.append(held.clock.now)
        held.clock.now += PREVIEW_SECONDS / 4
    assert told == [1000.0, 1000.0 + PREVIEW_SECONDS, 1000.0 + 2 * PREVIEW_SECONDS]


async def test_previews_are_wanted_while_somebody_watches_and_no_more_than_can_be_told(held: Held) -> None:
    one, [picture] = held.assignment, held.pictures
    assert held.wanted() == [0]
    one.previewed(picture, drawing())
    assert held.wanted() == []
    one.news()
    assert held.wanted() == []
    held.clock.now += PREVIEW_SECONDS
    assert held.wanted() == [0]
    held.watched.clear()
    assert held.wanted() == []


async def test_the_first_picture_that_has_not_ended_is_the_one_that_is_shown(held_pair: Held) -> None:
    one, (first, second) = held_pair.assignment, held_pair.pictures
    assert held_pair.wanted() == [0]
    one.previewed(second, drawing())
    assert one.news() is None
    one.ended(first, drawing())
    assert held_pair.wanted() == [1]
    image = drawing()
    one.previewed(second, image)
    assert one.news() == News(0, image)
    one.ended(second, RuntimeError("out of luck"))
    held_pair.clock.now += PREVIEW_SECONDS
    assert held_pair.wanted() == []


async def test_nothing_is_told_of_a_job_that_has_ended_or_is_canceled(held: Held) -> None:
    one, [picture] = held.assignment, held.pictures
    one.stepped(picture, 3)
    one.previewed(picture, drawing())
    one.cancel()
    assert one.news() is None


async def test_a_preview_travels_as_a_jpeg_with_the_step_it_shows(held: Held, queue: Queue) -> None:
    heard: asyncio.Queue[Progress] = asyncio.Queue()
    stop = await queue.subscribe_progress(held.assignment.id, heard.put_nowait)
    reports = Reports(queue, "w1")
    await reports.progress(held.assignment, News(4))
    await reports.progress(held.assignment, News(5, drawing(255)))
    plain, shown = [await asyncio.wait_for(heard.get(), 20) for _ in range(2)]
    await stop()
    assert (plain.step, plain.total_steps, plain.preview) == (4, 20, None)
    assert (shown.step, shown.total_steps) == (5, 20)
    assert shown.preview is not None
    with Image.open(io.BytesIO(base64.b64decode(shown.preview.partition(",")[2]))) as image:
        assert (image.format, image.size, image.getpixel((8, 8))) == ("JPEG", (16, 16), (255, 255, 255))


async def test_a_request_that_came_before_the_job_counts(queue: Queue) -> None:
    watched, heard = Watched(), asyncio.Event()

    def obey(control: Control) -> None:
        watched.note(control.id)
        heard.set()

    stop = await queue.subscribe_control(obey)
    sent = job(count=1)
    await queue.publish_control(Control(id=sent.id, action="preview"))
    await asyncio.wait_for(heard.wait(), 20)
    await stop()
    await queue.publish_job(Lane.PREMIUM, sent)
    [delivery] = await queue.consumer(PREMIUM_JOBS).fetch(1, wait=5)
    one = Assignment(sent, delivery, watched=watched)
    assert one.wants_preview(pictures_of(sent)[0])


async def test_a_picture_leaves_its_slot_with_its_last_step_and_the_engine_with_its_end(queue: Queue) -> None:
    freed = asyncio.Event()
    held = await hold(queue, count=2, freed=freed.set)
    one, (first, second) = held.assignment, held.pictures
    one.stepped(first, first.steps - 1)
    assert one.in_slots == 2
    one.stepped(first, first.steps)
    await asyncio.wait_for(freed.wait(), 5)
    assert (one.in_slots, one.under_way) == (1, 2)
    one.ended(first, drawing())
    one.ended(second, ValueError("broken half-way"))
    await one.made()
    assert (one.in_slots, one.under_way) == (0, 0)
