"""``python -m batcher``: windows, their results, letters, what a crash left behind, and deletion."""

import asyncio
import signal
import sys
from contextlib import suppress
from datetime import timedelta

import structlog

from batcher import reminders
from batcher.letters.contents import Author
from batcher.letters.pictures import Album
from batcher.letters.postman import Postman
from batcher.letters.rendering import Renderer
from batcher.release import Releaser
from batcher.retention import Retention
from batcher.settings import BatcherSettings
from core import telemetry
from core.accounts.erasing import AccountEraser
from core.accounts.reminders import Reminders
from core.clock import pause
from core.errors import DarkroomError
from core.mail import Mailer
from core.outbox import JobOutbox
from core.queue import Queue, topology
from core.reconciler import Reconciler
from core.recording import Recorder
from core.repository import windows
from core.repository.database import UNAVAILABLE, database
from core.storage import DownloadLinks, Storage

_MEBIBYTE = 1024 * 1024
_PAUSE = 1.0

log = structlog.get_logger("batcher")


def main() -> int:
    """Work until told to stop; a wrong setting, or a task that ends by an error, gives status 1."""
    try:
        settings = BatcherSettings.from_environment()
        telemetry.configure(settings.telemetry, process="batcher")
        asyncio.run(serve(settings))
    except DarkroomError as error:
        sys.stderr.write(f"batcher: {error}\n")
        return 1
    except Exception:
        log.exception("batcher_crashed")
        return 1
    return 0


async def serve(settings: BatcherSettings) -> None:
    """Wait for database and broker, then work until SIGTERM or SIGINT and finish what is under way."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    telemetry.serve_metrics(settings.telemetry)
    async with telemetry.event_loop_measured(), database(settings.database):
        queue = await _opened(settings, stop)
        if queue is None:
            return
        try:
            await _work(settings, queue, stop)
        finally:
            await queue.close()
        log.info("batcher_stopped")


async def _opened(settings: BatcherSettings, stop: asyncio.Event) -> Queue | None:
    """The broker's connection once it and the database are there, or none when told to stop before."""
    opening = asyncio.create_task(_open(settings, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (opening, stopping):
        task.cancel()
    with suppress(asyncio.CancelledError):
        return await opening
    return None


async def _open(settings: BatcherSettings, stop: asyncio.Event) -> Queue:
    while True:
        try:
            # The schema as well as the server: a migration may be under way.
            await windows.clock()
            break
        except UNAVAILABLE as error:
            log.warning("waiting_for_database", error=repr(error))
            await pause(stop, seconds=_PAUSE)
    return await Queue.connect_when_there(settings.broker, name="batcher")


async def _work(settings: BatcherSettings, queue: Queue, stop: asyncio.Event) -> None:
    recorder = Recorder(queue=queue)
    releaser = Releaser(queue=queue, settings=settings.window)
    reconciler = Reconciler(queue=queue, recorder=recorder)
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
