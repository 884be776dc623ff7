import asyncio
import email.policy
import json
import os
import shlex
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from mailbox import Maildir
from pathlib import Path

import asyncpg
import nats
import pytest
from graphql import GraphQLSchema, build_schema, parse, validate
from pydantic import SecretStr

from core.catalogue import SHIPPED_CATALOGUE
from core.errors import ConfigurationError
from core.settings import read
from infra.local import banner, mail_server, postgres
from infra.local.credentials import Credentials
from infra.local.home import Home
from infra.local.ports import Ports, is_free
from infra.local.processes import Stack, declare
from infra.local.settings import StackSettings
from infra.local.supervisor import Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
SERVERS = ("postgres", "nats", "mail")


@dataclass(frozen=True)
class Declared:
    """A stack that is put together and not started."""

    home: Home
    ports: Ports
    credentials: Credentials
    stack: Stack

    def env(self, name: str) -> dict[str, str]:
        return next(dict(process.env) for process in self.stack.processes if process.name == name)


def declared(root: Path, **settings: object) -> Declared:
    home = Home(root)
    home.create()
    ports = Ports(root / "ports.json")
    credentials = Credentials.load(root / "secrets.json")
    chosen = StackSettings.model_validate({"home": root, "port": 0, **settings})
    stack = declare(chosen, home=home, ports=ports, credentials=credentials)
    ports.save()
    return Declared(home, ports, credentials, stack)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Declared]:
    """The backing servers of a stack, running."""
    made = declared(tmp_path / "home")
    supervisor = Supervisor(
        [process for process in made.stack.processes if process.name in SERVERS],
        run_dir=made.home.run,
        log_dir=made.home.logs,
        work_dir=REPOSITORY,
        report=lambda _: None,
    )
    await supervisor.start(seconds=30)
    yield made
    begin = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - begin < 10
    assert not list(made.home.run.glob("*.pid"))


async def connect_to_database(made: Declared) -> asyncpg.Connection:
    return await asyncpg.connect(made.stack.environment["DARKROOM_DATABASE_URL"])


async def test_a_letter_sent_to_the_mail_server_is_in_the_maildir(servers: Declared) -> None:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "a@darkroom.local", "b@example.com", "Grüße"
    letter.set_content("Hello.\n.\nA line of one dot, above.")
    letter.add_attachment(os.urandom(300_000), maintype="image", subtype="png", filename="p.png")

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", servers.ports.of("mail")) as server:
            server.send_message(letter, to_addrs=["b@example.com", "hidden@example.com"])
            assert server.esmtp_features["size"] == str(mail_server.MAX_LETTER_BYTES)

    await asyncio.to_thread(send)
    box = Maildir(servers.home.mail, create=False)
    [kept] = [message_from_bytes(box.get_bytes(key), policy=email.policy.default) for key in box.iterkeys()]
    assert kept["Subject"] == letter["Subject"]
    assert kept["Return-Path"] == "<a@darkroom.local>"
    assert kept.get_all("Delivered-To") == ["b@example.com", "hidden@example.com"]
    parts = [part.get_payload(decode=True) for part in kept.walk() if not part.is_multipart()]
    assert parts == [part.get_payload(decode=True) for part in letter.walk() if not part.is_multipart()]
    assert not list((servers.home.mail / "tmp").iterdir())


async def test_the_servers_ask_for_their_passwords(servers: Declared) -> None:
    connection = await connect_to_database(servers)
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url(port=servers.ports.of("postgres"), password="guessed"))
    told = servers.stack.environment
    trusting = ssl.create_default_context(cafile=told["DARKROOM_NATS_CA_FILE"])
    broker = await nats.connect(
        told["DARKROOM_NATS_URL"],
        user=told["DARKROOM_NATS_USER"],
        password=told["DARKROOM_NATS_PASSWORD"],
        inbox_prefix="_INBOX_operator",
        tls=trusting,
        tls_handshake_first=True,
    )
    assert (await broker.jetstream().account_info()).streams == 0
    await broker.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", servers.ports.of("nats"), ssl=trusting)
    writer.write(b'CONNECT {"verbose": false}\r\nPING\r\n')
    assert b"Authorization Violation" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_the_database_comes_back_with_its_rows_after_it_was_killed(servers: Declared) -> None:
    connection = await connect_to_database(servers)
    await connection.execute("CREATE TABLE kept (value int); INSERT INTO kept VALUES (42)")
    first = int((servers.home.run / "postgres.pid").read_text())
    assert (servers.home.postgres / "postmaster.pid").read_text().startswith(f"{first}\n")
    os.kill(first, signal.SIGKILL)
    connection.terminate()
    deadline = time.monotonic() + 10
    while True:
        try:
            connection = await connect_to_database(servers)
            break
        except (OSError, asyncpg.PostgresError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    assert await connection.fetchval("SELECT value FROM kept") == 42
    await connection.close()
    assert int((servers.home.run / "postgres.pid").read_text()) != first


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("home") / "postgres"
    postgres.prepare(data, password="secret")
    return data


def a_program_called_postgres(folder: Path, *argv: str) -> "subprocess.Popen[bytes]":
    program = folder / "postgres"
    shutil.copy(shutil.which(argv[0]) or "", program)
    return subprocess.Popen([program, *argv[1:]])


def lock_for(data_folder: Path, pid: int) -> Path:
    lock = data_folder / "postmaster.pid"
    lock.write_text(f"{pid}\n{data_folder}\n")
    return lock


def test_a_lock_of_a_killed_database_is_removed_where_its_number_is_anothers(data_folder: Path) -> None:
    lock = lock_for(data_folder, os.getpid())
    postgres.prepare(data_folder, password="secret")
    assert not lock.exists()


def test_a_lock_of_a_killed_database_that_nobody_fetched_is_removed(
    data_folder: Path, tmp_path: Path
) -> None:
    with a_program_called_postgres(tmp_path, "true") as ended:
        # Until it has ended, without fetching it.
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        lock = lock_for(data_folder, ended.pid)
        postgres.prepare(data_folder, password="secret")
        assert not lock.exists()


def test_a_lock_of_a_database_that_runs_is_left_alone(data_folder: Path, tmp_path: Path) -> None:
    with a_program_called_postgres(tmp_path, "sleep", "60") as running:
        lock = lock_for(data_folder, running.pid)
        postgres.prepare(data_folder, password="secret")
        assert lock.exists()
        running.kill()


def test_a_database_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(ConfigurationError, match=r"PostgreSQL cannot make .*password"):
        postgres.prepare(home / "postgres", password="")
    assert list(home.iterdir()) == []


async def test_each_process_is_told_what_it_needs_and_no_more(tmp_path: Path) -> None:
    made = declared(tmp_path / "home", gpu_workers=2)
    for name in ("gpu_worker", "gpu_worker-2"):
        told = made.env(name)
        assert told["DARKROOM_WORKER_NAME"] == name
        assert not [variable for variable in told if "DATABASE" in variable or "SMTP" in variable]
        assert not {"DARKROOM_JWT_SECRET", "DARKROOM_DOWNLOAD_SECRET"} & told.keys()
    assert "DARKROOM_SMTP_PORT" not in made.env("api")
    assert made.env("batcher")["DARKROOM_SMTP_PORT"] == str(made.ports.of("mail"))
    ports = [
        made.env(name)["DARKROOM_METRICS_PORT"] for name in ("api", "gpu_worker", "gpu_worker-2", "batcher")
    ]
    assert len(set(ports)) == 4
    passwords = {
        name: made.env(name)["DARKROOM_NATS_PASSWORD"] for name in ("api", "gpu_worker", "batcher", "streams")
    }
    assert len(set(passwords.values())) == 4
    private = {made.credentials.database_password, *passwords.values()}
    assert not private & set(made.env("mail").values())


async def test_a_variable_of_the_shell_reaches_the_processes_unless_it_is_the_stacks_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("DARKROOM_SMTP_USER", "somebody")
    monkeypatch.setenv("DARKROOM_DATABASE_URL", "postgres://elsewhere/")
    monkeypatch.setenv("DARKROOM_DEMO_PASSWORD", "not for everybody")
    made = declared(tmp_path / "home")
    assert made.env("gpu_worker")["DARKROOM_LOG_LEVEL"] == "DEBUG"
    assert "DARKROOM_SMTP_USER" not in made.env("batcher")
    assert "DARKROOM_DATABASE_URL" not in made.env("gpu_worker")
    assert "127.0.0.1" in made.env("api")["DARKROOM_DATABASE_URL"]
    assert "DARKROOM_DEMO_PASSWORD" not in made.env("api")


@pytest.fixture
def own_catalogue(tmp_path: Path) -> Path:
    """The shipped catalogue's first model alone."""
    path = tmp_path / "models.toml"
    path.write_text("[[model]]".join(SHIPPED_CATALOGUE.read_text().split("[[model]]")[:2]))
    return path


async def test_the_bundled_model_alone_is_offered_unless_somebody_chooses(
    tmp_path: Path, own_catalogue: Path
) -> None:
    def told(**settings: object) -> list[tuple[str | None, str | None]]:
        made = declared(tmp_path / "home", **settings)
        names = ("DARKROOM_CATALOGUE", "DARKROOM_MODELS")
        return [
            (made.env(process).get(names[0]), made.env(process).get(names[1]))
            for process in ("api", "gpu_worker")
        ]

    own = str(own_catalogue)
    assert told() == [(None, '["darkroom-demo"]')] * 2
    assert told(catalogue=own) == [(own, "[]")] * 2
    assert told(catalogue=own, models=["darkroom-demo"]) == [(own, '["darkroom-demo"]')] * 2


@pytest.mark.parametrize(
    ("models", "message"),
    [(["sd-turbo"], "not pinned: sd-turbo"), ([], "not pinned"), (["nonesuch"], "no model nonesuch")],
)
def test_models_that_cannot_be_offered_end_the_stack_before_it_starts(
    tmp_path: Path, models: list[str], message: str
) -> None:
    unpinned = tmp_path / "models.toml"
    unpinned.write_text(SHIPPED_CATALOGUE.read_text())
    with pytest.raises(ConfigurationError, match=message):
        declared(tmp_path / "home", catalogue=unpinned, models=models)


async def test_more_apis_take_the_next_free_ports(tmp_path: Path) -> None:
    made = declared(tmp_path / "home", api_processes=3)
    ports = [int(made.env(name)["DARKROOM_PORT"]) for name in ("api", "api-2", "api-3")]
    assert ports == sorted(set(ports))
    assert made.stack.url == f"http://127.0.0.1:{ports[0]}"
    assert {made.env(name)["DARKROOM_PUBLIC_URL"] for name in ("api", "api-2", "batcher")} == {made.stack.url}


def test_a_taken_port_is_named_with_the_setting_that_changes_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} .* in use.*DARKROOM_PORT"):
            declared(tmp_path / "home", port=port)


def test_secrets_and_ports_stay_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    first, second = declared(tmp_path / "home"), declared(tmp_path / "home")
    assert first.credentials == second.credentials
    assert [first.ports.of(name) for name in SERVERS] == [second.ports.of(name) for name in SERVERS]
    assert (tmp_path / "home" / "secrets.json").stat().st_mode & 0o777 == 0o600
    other = Credentials.load(tmp_path / "home" / "secrets.json", demo_password="my own")
    assert other.demo_password == "my own"
    assert Credentials.load(tmp_path / "home" / "secrets.json") == first.credentials


def test_a_kept_port_that_somebody_else_took_is_given_up(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    kept = ports.of("nats")
    ports.save()
    with socket.create_server(("127.0.0.1", kept)):
        assert not is_free("127.0.0.1", kept)
        assert Ports(tmp_path / "ports.json").of("nats") != kept
    assert Ports(tmp_path / "ports.json").of("nats") == kept


@pytest.mark.parametrize("damage", ["{", "[]", '{"jwt_secret": '])
def test_a_damaged_file_of_secrets_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(damage)
    with pytest.raises(ConfigurationError, match=r"secrets\.json is damaged"):
        Credentials.load(path)
    assert path.read_text() == damage


def test_a_second_stack_on_the_same_folder_says_who_is_there_and_ends(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with home.lock():
        second = subprocess.run(
            [sys.executable, "-m", "infra.local"],
            check=False,
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "DARKROOM_HOME": str(home.root)},
        )
    assert second.returncode == 1
    assert f"a stack runs on {home.root} already (process {os.getpid()})" in second.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "infra.local"],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "DARKROOM_HOME": str(tmp_path / "home"), "DARKROOM_PORT": "90000"},
    )
    assert ended.returncode == 1
    assert "DARKROOM_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema((REPOSITORY / "schema" / "schema.graphql").read_text())


def test_the_first_query_can_be_pasted_and_follows_the_schema(tmp_path: Path, schema: GraphQLSchema) -> None:
    password = 'it\'s "quoted" $HOME \\ `too`'
    settings = StackSettings(home=tmp_path, demo_password=SecretStr(password))
    text = banner.compose(settings, url="http://127.0.0.1:8000", home=Home(tmp_path), password=password)
    lines = [line for line in text.splitlines() if "ask -" in line]
    words = [shlex.split(line.replace("TOKEN=$(", "").replace(" | ", " ")) for line in lines]
    bodies = [json.loads(line[line.index("-d") + 1]) for line in words]
    assert bodies[0]["variables"]["input"] == {"email": "premium@darkroom.local", "password": password}
    assert len(bodies) == 3
    for body in bodies:
        assert validate(schema, parse(body["query"])) == []


def test_the_banner_says_when_the_window_is_not_the_services_usual_one(tmp_path: Path) -> None:
    def composed(settings: StackSettings) -> str:
        return banner.compose(settings, url="http://x", home=Home(tmp_path), password="p")

    assert "every 2 minutes" in composed(StackSettings(home=tmp_path))
    assert "every 2 minutes" not in composed(StackSettings(home=tmp_path, window="@every 5s"))


def test_the_banner_says_which_models_are_offered(tmp_path: Path) -> None:
    def composed(settings: StackSettings) -> str:
        text = banner.compose(settings, url="http://x", home=Home(tmp_path), password="p")
        return next(line for line in text.splitlines() if "Models" in line)

    assert "darkroom-demo   (bundled; `make pin`" in composed(StackSettings(home=tmp_path))
    assert composed(StackSettings(home=tmp_path, models=("a", "b"))) == "  Models     a, b"
    assert "all of the catalogue" in composed(StackSettings(home=tmp_path, models=()))


def test_variables_that_are_empty_choose_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_MODELS", "")
    monkeypatch.setenv("DARKROOM_CATALOGUE", "")
    assert read(StackSettings).offer.models == ("darkroom-demo",)
    monkeypatch.setenv("DARKROOM_MODELS", "[]")
    assert read(StackSettings).offer.models == ()
