"""``python -m batcher``: windows, their results, letters, what a crash left behind, and deletion."""

import asyncio
import signal
import sys
from datetime import timedelta

import structlog

from batcher import memory, reminders
from batcher.letters.contents import Author
from batcher.letters.pictures import Album
from batcher.letters.postman import Postman
from batcher.letters.rendering import Renderer
from batcher.release import Releaser
from batcher.retention import Retention
from batcher.settings import BatcherSettings
from batcher.survey import Survey
from core import failpoints, telemetry, tracing
from core.accounts.erasing import AccountEraser
from core.accounts.reminders import Reminders
from core.errors import DarkroomError
from core.mail import Mailer
from core.outbox import JobOutbox
from core.queue import Queue, Role, topology
from core.reconciler import Reconciler
from core.recording import Recorder
from core.repository.database import database, schema_there
from core.storage import DownloadLinks, Storage
from core.vitals import Vitals

_MEBIBYTE = 1024 * 1024
_PAUSE = 1.0

log = structlog.get_logger("batcher")


def main() -> int:
    """Work until told to stop; a wrong setting, or a task that ends by an error, gives status 1."""
    try:
        settings = BatcherSettings.from_environment()
        telemetry.configure(settings.telemetry, process="batcher")
        failpoints.arm(settings.failpoints.failpoints, nats_url=settings.broker.nats_url)
        memory.use_one_heap()
        asyncio.run(serve(settings))
    except DarkroomError as error:
        sys.stderr.write(f"batcher: {error}\n")
        return 1
    except Exception:
        log.exception("batcher_crashed")
        return 1
    finally:
        tracing.stop()
    return 0


async def serve(settings: BatcherSettings) -> None:
    """Wait for database and broker, then work until SIGTERM or SIGINT and finish what is under way.

    What is not finished within the grace, or when a second signal comes, is rolled back or is due again
    after its lease; whoever works next goes on with it.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    queue, begun = Queue(settings.broker, name="batcher", role=Role.BATCHER), asyncio.Event()
    needs = {
        "database, schema or broker: not there yet": begun.is_set,
        "broker: not connected": lambda: queue.connected,
    }
    Vitals(needs=needs).serve(settings.telemetry)
    async with telemetry.event_loop_measured(), database(settings.database):
        working = asyncio.create_task(_work_when_there(settings, queue, begun, stop))
        try:
            await _ended(working, settings.process.batcher_drain_seconds, begun, stop, hurry)
        finally:
            await queue.close()
        log.info("batcher_stopped")


async def _ended(
    working: asyncio.Task[None],
    grace: float,
    begun: asyncio.Event,
    stop: asyncio.Event,
    hurry: asyncio.Event,
) -> None:
    """Let the work end by itself for as long as there is time, then end it."""
    told, hurried = asyncio.create_task(stop.wait()), asyncio.create_task(hurry.wait())
    await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
    if begun.is_set():
        await asyncio.wait({working, hurried}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            log.warning("batcher_hurries", grace=grace)
    for task in (working, told, hurried):
        task.cancel()
    # A fetch may swallow that once, and goes on for its own short wait.
    while not working.done():
        await asyncio.wait({working}, timeout=_PAUSE)
        working.cancel()
    if not working.cancelled():
        working.result()


async def _work_when_there(
    settings: BatcherSettings, queue: Queue, begun: asyncio.Event, stop: asyncio.Event
) -> None:
    await schema_there()
    await queue.open()
    begun.set()
    await _work(settings, queue, stop)


async def _work(settings: BatcherSettings, queue: Queue, stop: asyncio.Event) -> None:
    recorder = Recorder(queue=queue)
    releaser = Releaser(queue=queue, settings=settings.window)
    reconciler = Reconciler(queue=queue, recorder=recorder, settings=settings.reconciler)
    outbox = JobOutbox(queue=queue)
    postman = build_postman(settings)
    retention = Retention(
        storage=Storage.open(settings.storage),
        eraser=AccountEraser(recorder=recorder, outbox=outbox),
        settings=settings.retention,
    )
    async with asyncio.TaskGroup() as tasks:
        for work in (
            releaser.run(stop=stop),
            recorder.run(queue.consumer(topology.NORMAL_RESULTS), stop=stop),
            outbox.run(stop=stop),
            reconciler.run(stop=stop),
            postman.run(stop=stop),
            retention.run(stop=stop),
            Survey(queue=queue).run(stop=stop),
            memory.trim(stop=stop),
            reminders.run(lead=timedelta(days=settings.letters.premium_reminder_days), stop=stop),
        ):
            # When one ends by an error the group cancels the rest, but a fetch may swallow that: so they
            # are told to stop as well.
            tasks.create_task(work).add_done_callback(lambda _: stop.set())
        log.info("batcher_started", window=settings.window.window)


def build_postman(settings: BatcherSettings) -> Postman:
    """The postman with all that letters are made of."""
    lifetime = timedelta(days=settings.letters.letter_link_days)
    mailed_links = settings.links.model_copy(
        update={"download_lifetime_seconds": int(lifetime.total_seconds())}
    )
    album = Album(
        storage=Storage.open(settings.storage),
        links=DownloadLinks(mailed_links),
        link_lifetime=lifetime,
        attachments_limit=int(settings.letters.letter_attachments_mebibytes * _MEBIBYTE),
    )
    mailer = Mailer(settings.mail)
    public_url = settings.links.public_url
    return Postman(
        author=Author(album=album, reminders=Reminders(settings.links), public_url=public_url),
        renderer=Renderer(sender=mailer.sender, public_url=public_url),
        mailer=mailer,
    )


if __name__ == "__main__":
    sys.exit(main())
