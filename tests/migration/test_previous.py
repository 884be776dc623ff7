"""Real processes of the last release beside those of this code, on its schema and streams.

The last release is the newest tag; where there is none, what there was before the newest migration came in.
A clone without that history has no old processes: there `test_contract.py` alone holds the two together.
"""

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from email import message_from_bytes
from io import BytesIO
from mailbox import Maildir
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.processes import Child, running
from core.accounts.passwords import PasswordHasher
from core.clock import now
from core.queue import Queue
from core.settings import DatabaseSettings, MailSettings, StorageSettings, TokenSettings
from infra.local.probes import Probe, healthy, listens
from tests.conftest import free_port
from tests.stack import PASSWORD, Customer

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]

ROOT: Final = Path(__file__).resolve().parents[2]
PICTURE: Final = {"prompt": "a red house", "width": 64, "height": 64, "steps": 2}


def git(*words: str) -> bytes:
    command = ["git", *words]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout


def last_release() -> str:
    """A name of its commit.

    Raises:
        subprocess.CalledProcessError: there is no repository, or its history does not go back so far.
    """
    if tags := git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD").decode().split():
        return tags[0]
    newest = max((ROOT / "core" / "migrations").glob("[0-9]*.py")).relative_to(ROOT)
    log = ("log", "-1", "--first-parent", "-m", "--diff-filter=A", "--format=%H")
    brought_in = git(*log, "--", str(newest)).decode().strip()
    return git("rev-parse", "--verify", f"{brought_in}^1").decode().strip()


@pytest.fixture(scope="module")
def old_tree(server_folder: Path) -> Path:
    try:
        archive = git("archive", "--format=tar", last_release())
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this clone does not have the last release")
    folder = server_folder / "last release"
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
async def customers(
    token_settings: TokenSettings, new_account: Callable[..., Awaitable[Any]]
) -> dict[str, str]:
    """A premium and a normal customer's address."""
    password_hash = await PasswordHasher(token_settings).hash(PASSWORD)
    until = now() + timedelta(days=1)
    await new_account("normal@example.org", password_hash=password_hash)
    await new_account("premium@example.org", password_hash=password_hash, premium_until=until)
    return {tier: f"{tier}@example.org" for tier in ("premium", "normal")}


@pytest.fixture
def environment(
    database_settings: DatabaseSettings,
    broker_environment: dict[str, str],
    storage_settings: StorageSettings,
    mail_settings: MailSettings,
    token_settings: TokenSettings,
    tmp_path: Path,
) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")},
        "DARKROOM_DATABASE_URL": database_settings.database_url.get_secret_value(),
        **broker_environment,
        "DARKROOM_STORAGE_URL": storage_settings.storage_url,
        "DARKROOM_SMTP_PORT": str(mail_settings.smtp_port),
        "DARKROOM_DOWNLOAD_SECRET": "d" * 40,
        "DARKROOM_JWT_SECRET": token_settings.jwt_secret.get_secret_value(),
        "DARKROOM_PASSWORD_PEPPER": token_settings.password_pepper.get_secret_value(),
        "DARKROOM_MODELS": json.dumps(["darkroom-demo"]),
        "DARKROOM_WEIGHTS_DIR": str(tmp_path / "weights"),
        "DARKROOM_WINDOW": "*/3 * * * * *",
    }


@asynccontextmanager
async def process(name: str, tree: Path, environment: dict[str, str], ready: Probe) -> AsyncIterator[Child]:
    """One of our processes from a source tree."""
    log = Path(environment["DARKROOM_WEIGHTS_DIR"]).with_name(f"{name}.log")
    env = {**environment, "PYTHONPATH": str(tree)}
    # -P: the folder in which it is started holds this code.
    async with running((sys.executable, "-P", "-m", name), env=env, log=log) as child:
        async with asyncio.timeout(120):
            while not await ready():
                child.check()
                await asyncio.sleep(0.1)
        yield child
        child.check()


@pytest.mark.parametrize("old", [("api", "batcher"), ("gpu_worker",), ("batcher",)], ids=" and ".join)
async def test_old_and_new_processes_make_pictures_together(
    old: tuple[str, ...],
    old_tree: Path,
    environment: dict[str, str],
    customers: dict[str, str],
    queue: Queue,
    mailbox: Path,
) -> None:
    port, metrics = free_port(), free_port()
    ready = {
        "batcher": listens(metrics),
        "api": healthy("127.0.0.1", port, "/health/serving"),
        "gpu_worker": healthy("127.0.0.1", port, "/health/ready", workers=1),
    }
    more = {"api": {"DARKROOM_PORT": str(port)}, "batcher": {"DARKROOM_METRICS_PORT": str(metrics)}}
    async with AsyncExitStack() as stack:
        for name, probe in ready.items():
            env = {**environment, **more.get(name, {})}
            await stack.enter_async_context(process(name, old_tree if name in old else ROOT, env, probe))
        url = f"http://127.0.0.1:{port}"
        premium = await Customer(url, customers["premium"]).sign_in()
        normal = await Customer(url, customers["normal"]).sign_in()
        async with asyncio.timeout(90):
            ends = await asyncio.gather(end_of(premium), end_of(normal))
        assert set(ends) == {"SUCCEEDED"}
        async with asyncio.timeout(20):
            while not letters(mailbox, customers["normal"]):  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.2)


async def end_of(customer: Customer) -> str:
    """The state in which a customer's picture ends."""
    events = await customer.watch_to_end(await customer.generate(**PICTURE))
    return str(events[-1]["state"])


def letters(mailbox: Path, address: str) -> list[str]:
    """The subjects of the letters to an address that have pictures."""
    box = Maildir(mailbox, create=False)
    found = [message_from_bytes(box.get_bytes(key)) for key in box.iterkeys()]
    return [str(letter["Subject"]) for letter in found if letter["To"] == address and letter.is_multipart()]
