"""The services that the tests use are the real ones, started once per test process."""

import asyncio
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from aiosmtpd.controller import Controller
from hypothesis import settings
from pydantic import SecretStr
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from api.settings import HttpSettings, WebSocketSettings
from core.clock import now
from core.lifecycle import Delivery, ImageFormat, Scheduler, Tier
from core.messages import Heartbeat
from core.models import Account, Generation
from core.queue import Queue
from core.repository.database import database as open_database
from core.repository.database import migrate
from core.settings import (
    BrokerSettings,
    DatabaseSettings,
    DocumentSettings,
    LimitSettings,
    LinkSettings,
    MailSettings,
    StorageSettings,
    TokenSettings,
)
from core.storage import Storage
from infra.local import nats, postgres
from infra.local.command import Command
from infra.local.mail_server import MaildirHandler
from tests.stack import stack, traces

__all__ = ["stack", "traces"]

# Read when torch is first imported, here and by workers. Several processes compute at once in these tests,
# and a step of two threads waits at each of its operations until both have got a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

PASSWORD = "for the tests only"
TEMPLATE = "darkroom_template"
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of chance
ROOM_BYTES = 2 * 2**30
"""Many times what the servers of a test process write."""

STACK_FOLDERS = ("tests/acceptance/", "tests/browser/", "tests/console/", "tests/docs/")


@dataclass(frozen=True)
class Server:
    """A server of this test process."""

    port: int
    password: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


def run_server(command: Command, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command.argv, user=command.user, stdout=output, stderr=output)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        # SIGINT does not wait for clients; hundreds of streams are not worth an orderly end.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Tracebacks in a test's log without the values of all variables: rendering a model's takes a minute."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Where the servers keep their files: in memory if it has room, since a database is hundreds."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="darkroom-tests-", dir=MEMORY if roomy else None) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[Server]:
    port, data = free_port(), server_folder / "postgres"
    postgres.prepare(data, password=PASSWORD)
    # Crash safety of the server itself is not what these tests are about.
    fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
    command = postgres.command(data, port=port, settings=fast)
    for _ in run_server(command, port, server_folder / "postgres.log"):
        server = Server(port=port, password=PASSWORD)
        asyncio.run(make_template(server))
        yield server


async def make_template(server: Server) -> None:
    """The migrated database that others are copied from."""
    port = server.port
    for attempt in range(100):
        try:
            admin = await asyncpg.connect(postgres.url(port=port, password=PASSWORD))
            break
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.05 * (attempt > 0))
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    await migrate(
        DatabaseSettings(database_url=SecretStr(postgres.url(port=port, password=PASSWORD, name=TEMPLATE)))
    )


@asynccontextmanager
async def new_database(server: Server) -> AsyncIterator[DatabaseSettings]:
    """A migrated database, dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    admin_url = postgres.url(port=server.port, password=server.password)
    admin = await asyncpg.connect(admin_url)
    # File by file: the other way reads every page into the server and writes it to its log as well.
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    await admin.close()
    url = postgres.url(port=server.port, password=server.password, name=name)
    yield DatabaseSettings(database_url=SecretStr(url), database_pool_size=5)
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def database_settings(postgres_server: Server) -> AsyncIterator[DatabaseSettings]:
    """A migrated database of the test's own."""
    async with new_database(postgres_server) as settings:
        yield settings


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[DatabaseSettings]:
    """The test's database, opened for this test."""
    async with open_database(database_settings):
        yield database_settings


@pytest.fixture
def database_away(
    postgres_server: Server, database_settings: DatabaseSettings
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Takes the test's database away, for as long as a block runs: its connections end, and none is made."""
    name = urlsplit(database_settings.database_url.get_secret_value()).path.lstrip("/")

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        admin = await asyncpg.connect(
            postgres.url(port=postgres_server.port, password=postgres_server.password)
        )
        for _ in range(100):
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
            )
            with suppress(asyncpg.ObjectInUseError):
                await admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
                break
        yield
        await admin.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
        await admin.close()

    return away


@pytest.fixture(scope="session")
def nats_server(request: pytest.FixtureRequest, server_folder: Path) -> Iterator[Server]:
    port, config = free_port(), server_folder / "nats.json"
    # One for each test and one for what a session's tests share: accounts are cheap, and running out of them
    # would fail whichever test comes last.
    accounts = [
        nats.NatsAccount(name=f"test{number}", user=f"test{number}", password=PASSWORD)
        for number in range(len(request.session.items) + 1)
    ]
    nats.write_config(config, port=port, store_dir=server_folder / "jetstream", accounts=accounts)
    for _ in run_server(nats.command(config), port, server_folder / "nats.log"):
        yield Server(port=port, password=PASSWORD)


_account_numbers = itertools.count()


def new_broker_account(server: Server) -> BrokerSettings:
    """A broker account whose streams, subjects and advisories are seen by nobody else."""
    return BrokerSettings(
        nats_url=f"nats://127.0.0.1:{server.port}",
        nats_user=f"test{next(_account_numbers)}",
        nats_password=SecretStr(server.password),
    )


@pytest.fixture
def broker_settings(nats_server: Server) -> BrokerSettings:
    """A broker account of the test's own."""
    return new_broker_account(nats_server)


@pytest.fixture
def broker_environment(broker_settings: BrokerSettings) -> dict[str, str]:
    """How a process is told of the broker."""
    assert broker_settings.nats_user
    assert broker_settings.nats_password
    return {
        "DARKROOM_NATS_URL": broker_settings.nats_url,
        "DARKROOM_NATS_USER": broker_settings.nats_user,
        "DARKROOM_NATS_PASSWORD": broker_settings.nats_password.get_secret_value(),
    }


@pytest.fixture
async def queue(broker_settings: BrokerSettings) -> AsyncIterator[Queue]:
    """A connection to the test's broker account, with every stream declared."""
    connected = await Queue.connect(broker_settings, name="tests")
    await connected.declare()
    yield connected
    await connected.close()


@pytest.fixture
def storage_settings(tmp_path: Path) -> StorageSettings:
    return StorageSettings(storage_url=f"file://{tmp_path}/objects")


@pytest.fixture
def storage(storage_settings: StorageSettings) -> Storage:
    return Storage.open(storage_settings)


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    """The Maildir into which the test's mail server puts letters."""
    return tmp_path / "mail"


@pytest.fixture
def mail_settings(mailbox: Path) -> Iterator[MailSettings]:
    """A mail server of the test's own."""
    controller = Controller(MaildirHandler(mailbox), hostname="127.0.0.1", port=free_port())
    controller.start()
    yield MailSettings(smtp_host="127.0.0.1", smtp_port=controller.port)
    controller.stop()


@pytest.fixture
def token_settings() -> TokenSettings:
    return TokenSettings(jwt_secret=SecretStr("j" * 40), password_pepper=SecretStr("p" * 20), bcrypt_rounds=4)


@pytest.fixture
def link_settings() -> LinkSettings:
    return LinkSettings(download_secret=SecretStr("d" * 20))


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(signin_attempts_per_minute=1000, signup_attempts_per_hour=1000)


@pytest.fixture
def document_settings() -> DocumentSettings:
    return DocumentSettings()


@pytest.fixture
def http_settings() -> HttpSettings:
    return HttpSettings(shutdown_seconds=1)


@pytest.fixture
def websocket_settings() -> WebSocketSettings:
    return WebSocketSettings(session_check_seconds=0.2)


class NewAccount(Protocol):
    """Makes an account: somebody verified on the normal tier, unless told otherwise."""

    async def __call__(self, email: str | None = None, **fields: Any) -> Account: ...


class NewGeneration(Protocol):
    """Makes an accepted generation of the normal tier, unless told otherwise; its job is not published."""

    async def __call__(self, account: Account, **fields: Any) -> Generation: ...


@pytest.fixture
def new_account(database: DatabaseSettings) -> NewAccount:
    async def make(email: str | None = None, **fields: Any) -> Account:
        email = email or f"{secrets.token_hex(4)}@example.com"
        defaults = {"password_hash": "-", "email_verified_at": now()}
        return await Account.create(email=email, email_key=email.lower(), **{**defaults, **fields})

    return make


@pytest.fixture
def new_generation(database: DatabaseSettings) -> NewGeneration:
    async def make(account: Account, **fields: Any) -> Generation:
        defaults = {
            "tier": Tier.NORMAL,
            "delivery": Delivery.EMAIL,
            "prompt": "a lighthouse in the fog",
            "model": "darkroom-demo",
            "width": 64,
            "height": 64,
            "steps": 20,
            "guidance_scale": 4.0,
            "seed": 42,
            "count": 1,
            "scheduler": Scheduler.DDIM,
            "format": ImageFormat.PNG,
            "request_fingerprint": "-",
        }
        return await Generation.create(account=account, **{**defaults, **fields})

    return make


class NewWorker(Protocol):
    """Gives a sign of life, good for 10 s, of a worker with the bundled model that has measured nothing."""

    async def __call__(self, name: str = "w1", **fields: Any) -> Heartbeat: ...


@pytest.fixture
def new_worker(queue: Queue) -> NewWorker:
    async def make(name: str = "w1", **fields: Any) -> Heartbeat:
        defaults = {"models": ("darkroom-demo",), "device": "cpu", "slots": 4}
        beat = Heartbeat(worker=name, started_at=now(), beat_at=now(), **{**defaults, **fields})
        await queue.put_heartbeat(beat)
        return beat

    return make


class StackTogether(LoadFileScheduling):  # type: ignore[misc] # xdist ships no annotations
    """Gives each file to one of the test processes, and those with the stack to the same: it starts once."""

    def _split_scope(self, nodeid: str) -> str:
        return "stack" if nodeid.startswith(STACK_FOLDERS) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> StackTogether | None:
    return StackTogether(config, log) if config.getvalue("dist") == "loadfile" else None


# How long a case takes says more of what else the machine does than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    # Settings come from the fixtures above, never from the shell that runs the tests.
    for name in [name for name in os.environ if name.startswith("DARKROOM_")]:
        if name not in ("DARKROOM_REQUIRE_BROWSER", "DARKROOM_REQUIRE_PROMTOOL"):
            del os.environ[name]
