"""``python -m api``: the process that the outside world reaches."""

import asyncio
import gc
import sys
from typing import Final

import uvloop

from api.app import Parts, build_app, build_parts
from api.server import ApiServer, server_config
from api.settings import ApiSettings
from core import failpoints, telemetry, tracing
from core.errors import DarkroomError
from core.queue import Queue, Role
from core.queue.topology import PREMIUM_RESULTS
from core.repository.database import database, schema_there

_GARBAGE: Final = (2_000, 20, 1_000)
"""So many new objects until the young are looked at, so many times that until the older, until all are."""


def main() -> int:
    """Serve until told to stop; a setting that is wrong ends the process with status 1."""
    try:
        settings = ApiSettings.from_environment()
        telemetry.configure(settings.telemetry, process="api")
        failpoints.arm(settings.failpoints.failpoints, nats_url=settings.broker.nats_url)
        uvloop.run(serve(settings))
    except DarkroomError as error:
        sys.stderr.write(f"api: {error}\n")
        return 1
    finally:
        tracing.stop()
    return 0


async def serve(settings: ApiSettings) -> None:
    """Run the HTTP server, the recorder of premium results and the relay in one process.

    It serves from the start: what needs the database or the broker is unavailable until they are there.
    """
    telemetry.serve_metrics(settings.telemetry)
    queue = Queue(settings.broker, name="api", role=Role.API)
    async with telemetry.event_loop_measured(), database(settings.database):
        parts, begun, stop = build_parts(settings, queue=queue), asyncio.Event(), asyncio.Event()
        app = build_app(settings, parts)
        _collect_garbage_seldom()
        server = ApiServer(
            server_config(app, settings.http), health=parts.health, drain_seconds=settings.http.drain_seconds
        )
        try:
            # What goes on beside the server ends at its next pause, once nobody is served any more.
            async with asyncio.TaskGroup() as tasks:
                beside = tasks.create_task(_work_beside(parts, queue, begun, stop))
                try:
                    await server.serve()
                finally:
                    stop.set()
                    if not begun.is_set():
                        beside.cancel()
        finally:
            await parts.close()
            await queue.close()


async def _work_beside(parts: Parts, queue: Queue, begun: asyncio.Event, stop: asyncio.Event) -> None:
    """Record, relay and look after connections, once broker and schema are there."""
    await queue.open()
    await schema_there()
    begun.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(parts.recorder.run(queue.consumer(PREMIUM_RESULTS), stop=stop))
        tasks.create_task(parts.outbox.run(stop=stop))
        tasks.create_task(parts.places.run(stop=stop))
        tasks.create_task(parts.connections.run(stop=stop))


def _collect_garbage_seldom() -> None:
    """Spare the event loop full collections, which take a second where thousands are connected.

    What is made for a request or a connection is freed when its last reference goes, or is young when it is
    collected. What is there now stays, and is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


if __name__ == "__main__":
    sys.exit(main())
