"""``python -m api``: the process that the outside world reaches."""

import asyncio
import signal
import sys

import uvicorn
import uvloop

from api.app import Parts, build_app, build_parts
from api.server import server_config
from api.settings import ApiSettings
from core import telemetry
from core.errors import DarkroomError
from core.queue import Queue
from core.queue.topology import PREMIUM_RESULTS
from core.repository.database import database


def main() -> int:
    """Serve until told to stop; a setting that is wrong ends the process with status 1."""
    try:
        settings = ApiSettings.from_environment()
        telemetry.configure(settings.telemetry, process="api")
        uvloop.run(serve(settings))
    except DarkroomError as error:
        sys.stderr.write(f"api: {error}\n")
        return 1
    return 0


async def serve(settings: ApiSettings) -> None:
    """Run the HTTP server, the recorder of premium results and the relay in one process."""
    telemetry.serve_metrics(settings.telemetry)
    async with database(settings.database):
        queue = await Queue.connect_when_there(settings.broker, name="api")
        parts = build_parts(settings, queue=queue)
        server = _Server(settings, parts)
        try:
            await server.run()
        finally:
            await parts.close()
            await queue.close()


class _Server:
    def __init__(self, settings: ApiSettings, parts: Parts) -> None:
        self._parts = parts
        self._stop = asyncio.Event()
        self._uvicorn = uvicorn.Server(server_config(build_app(settings, parts), settings.http))

    async def run(self) -> None:
        """Until uvicorn is told to stop; the background work then ends at its next pause."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._parts.recorder.run(self._parts.queue.consumer(PREMIUM_RESULTS), stop=self._stop)
            )
            tasks.create_task(self._parts.outbox.run(stop=self._stop))
            tasks.create_task(self._parts.places.run(stop=self._stop))
            tasks.create_task(self._parts.connections.run(stop=self._stop))
            # After its own shutdown uvicorn raises the signal once more; ours is not over then.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            try:
                await self._uvicorn.serve()
            finally:
                self._stop.set()


if __name__ == "__main__":
    sys.exit(main())
