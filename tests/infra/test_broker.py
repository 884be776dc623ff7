"""The broker's production configuration: who gets in, and that each may do its part and nothing else."""

import asyncio
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import nats as nats_client
import pytest
from nats.aio.client import Client
from pydantic import SecretStr
from structlog.testing import capture_logs

from core.clock import now
from core.errors import ConfigurationError, ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Control, Heartbeat, Job, Outcome, Progress, Started
from core.queue import Lane, Queue, Role, topology
from core.settings import BrokerSettings, DatabaseSettings
from infra.local import nats
from infra.nats.certificates import Certificate
from infra.nats.node import BrokerNode
from infra.nats.users import USERS, write_users
from tests.conftest import free_port, run_server, wait_for_port
from tests.infra.rendering import REPOSITORY
from tests.jobs import job

STREAMS = ("PREMIUM", "NORMAL", "BATCH", "RESULTS", "CLOCK", "ADVISORIES", "PROGRESS", "KV_WORKERS")
JOB = "3f6c2a3e-0000-4000-8000-000000000000"
LANES = ("premium", "normal", "batch")


@dataclass(frozen=True)
class Broker:
    """A node alone, with the production configuration and every stream."""

    folder: Path
    node: BrokerNode
    process: subprocess.Popen[bytes]

    def settings(self, user: str) -> BrokerSettings:
        return BrokerSettings(
            nats_url=f"tls://127.0.0.1:{self.node.port}",
            nats_ca_file=self.node.certificate.authority,
            nats_user=user,
            nats_password=SecretStr((self.folder / "passwords" / user).read_text()),
        )

    def reload(self) -> None:
        """Have it read its files again."""
        self.process.send_signal(signal.SIGHUP)


def node(folder: Path, name: str, **more: object) -> BrokerNode:
    values = {
        "name": name,
        "port": free_port(),
        "monitoring_port": free_port(),
        "store": folder / "streams",
        "certificate": Certificate.make(folder, "clients"),
        "node_certificate": Certificate.make(folder, "nodes"),
        **more,
    }
    return BrokerNode(**values)  # type: ignore[arg-type] # each of its own type


@pytest.fixture(scope="module")
def broker(server_folder: Path) -> Iterator[Broker]:
    folder = server_folder / "broker"
    write_users(folder)
    alone = node(folder, "alone")
    for process in run_server(nats.command(alone.write(folder)), alone.port, folder / "nats.log"):
        made = Broker(folder, alone, process)
        asyncio.run(declare(made))
        yield made


async def declare(broker: Broker) -> None:
    queue = await Queue.connect(broker.settings("operator"), name="operator")
    await queue.declare()
    assert queue.refusal is None
    await queue.close()


@asynccontextmanager
async def connected(broker: Broker, role: Role, *, user: str | None = None) -> AsyncIterator[Queue]:
    queue = await Queue.connect_when_there(broker.settings(user or role.value), name="tests", role=role)
    try:
        yield queue
        assert queue.refusal is None
    finally:
        await queue.close()


async def test_an_operator_in_a_pod_of_the_api_asks_the_broker_as_the_documents_say(
    broker: Broker, database_settings: DatabaseSettings
) -> None:
    [script] = re.findall(r"sh -c '(.+?)'", (REPOSITORY / "docs" / "kubernetes.md").read_text())
    api, operator = broker.settings("api"), broker.settings("operator")
    assert api.nats_password
    assert operator.nats_password
    environment = {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "DARKROOM_DATABASE_URL": database_settings.database_url.get_secret_value(),
        "DARKROOM_NATS_URL": api.nats_url,
        "DARKROOM_NATS_CA_FILE": str(api.nats_ca_file),
        "DARKROOM_NATS_USER": "api",
        "DARKROOM_NATS_PASSWORD": api.nats_password.get_secret_value(),
    }
    asked = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, "-", "top", "--json"),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    told, _ = await asked.communicate(operator.nats_password.get_secret_value().encode())
    assert asked.returncode == 0
    assert set(json.loads(told)["queues"]) == set(LANES)


async def test_every_process_can_do_its_part(broker: Broker) -> None:
    premium, normal, unwanted = job(), job(Tier.NORMAL), job()
    heard: list[Progress | Control] = []
    async with (
        connected(broker, Role.API) as api,
        connected(broker, Role.BATCHER) as batcher,
        connected(broker, Role.GPU_WORKER) as worker,
    ):
        await batcher.restore()
        await batcher.schedule_window("@every 1h")
        await worker.subscribe_control(heard.append)
        await api.subscribe_progress(premium.id, heard.append)
        beat = Heartbeat(worker="w", models=("m",), device="cpu", slots=1, started_at=now(), beat_at=now())
        await worker.put_heartbeat(beat)
        assert await api.workers() == await batcher.workers() == [beat]

        for lane, one in ((Lane.PREMIUM, premium), (Lane.PREMIUM, unwanted), (Lane.NORMAL, normal)):
            assert await api.publish_job(lane, one)
        await api.purge_job(Lane.PREMIUM, unwanted.id)
        [waiting] = await batcher.consumer(topology.NORMAL_JOBS).fetch(5, wait=2)
        assert await batcher.publish_job(Lane.BATCH, Job.decode(waiting.data))
        await waiting.ack()

        for spec, one in ((topology.PREMIUM_JOBS, premium), (topology.BATCH_JOBS, normal)):
            [delivery] = await worker.consumer(spec).fetch(5, wait=2)
            assert Job.decode(delivery.data) == one
            await delivery.in_progress()
            await worker.publish_result(one.tier, Started(id=one.id, worker="w", attempt=1, started_at=now()))
            await worker.publish_progress(Progress(id=one.id, state=GenerationState.RUNNING))
            await worker.publish_result(
                one.tier,
                Outcome(id=one.id, worker="w", attempt=1, state=GenerationState.FAILED, finished_at=now()),
            )
            await delivery.ack()
        for recorder, spec in ((api, topology.PREMIUM_RESULTS), (batcher, topology.NORMAL_RESULTS)):
            results = await recorder.consumer(spec).fetch(5, wait=2)
            assert len(results) == 2
            for result in results:
                await result.ack()
            await recorder.publish_progress(Progress(id=premium.id, state=GenerationState.FAILED))
            await recorder.publish_control(Control(id=premium.id, action="cancel"))

        assert (await api.last_progress(premium.id)) is not None
        await batcher.beat()
        [tick] = await batcher.consumer(topology.TICKS).fetch(1, wait=2)
        await tick.ack()
        assert await batcher.consumer(topology.EXHAUSTED).fetch(1, wait=0.1) == []
        assert await batcher.last_beat_at() is not None
        assert await batcher.position_of(Lane.PREMIUM, premium.id) is None
        assert await batcher.job_at(Lane.BATCH, 1) is None
        assert await batcher.depth(Lane.NORMAL) == 0
        assert await batcher.last_stored(topology.RESULTS) >= 4
        for spec in topology.CONSUMERS:
            await batcher.standing(spec)
        await worker.remove_heartbeat("w")
        assert await api.workers() == []
    assert {type(message) for message in heard} == {Progress, Control}


def consumers() -> Iterator[tuple[str, str]]:
    for spec in topology.CONSUMERS:
        yield spec.stream, spec.name


PUBLISHED = {
    # What is stored or heard.
    *(f"jobs.{lane}.{JOB}" for lane in LANES),
    *(f"results.{tier}" for tier in ("premium", "normal")),
    *("clock.schedule.batch", "clock.tick.batch", f"progress.{JOB}", f"control.{JOB}", "$KV.WORKERS.w"),
    *("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.PREMIUM.gpu_worker", "something.else"),
    # Answers to others.
    *(f"_INBOX_{role}.x" for role in (*Role, "monitor")),
    "_INBOX.x",
    # Requests about streams and about what they hold.
    *("$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES", "$JS.API.META.LEADER.STEPDOWN"),
    *(
        f"$JS.API.{verb}.{stream}"
        for stream in (*STREAMS, "OTHER")
        for verb in (
            *("STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE"),
            *("STREAM.MSG.GET", "STREAM.MSG.DELETE", "DIRECT.GET", "STREAM.SNAPSHOT", "STREAM.RESTORE"),
            *("STREAM.LEADER.STEPDOWN", "STREAM.PEER.REMOVE", "CONSUMER.LIST", "CONSUMER.NAMES"),
            "CONSUMER.CREATE",
        )
    ),
    *(f"$JS.API.DIRECT.GET.{name}" for name in (f"PROGRESS.progress.{JOB}", f"PREMIUM.jobs.premium.{JOB}")),
    "$JS.API.DIRECT.GET.KV_WORKERS.$KV.WORKERS.w",
    # Requests about consumers, and answers to what they deliver.
    *(
        f"$JS.API.CONSUMER.{verb}.{stream}.{name}"
        for stream, name in (*consumers(), ("PREMIUM", "other"), ("RESULTS", "other"))
        for verb in ("INFO", "DELETE", "MSG.NEXT", "DURABLE.CREATE", "CREATE", "PAUSE", "RESET", "UNPIN")
    ),
    *(
        f"$JS.API.CONSUMER.CREATE.{spec.stream}.{spec.name}.{spec.filter_subject.replace('>', 'x')}"
        for spec in topology.CONSUMERS
    ),
    *(
        "$JS.API.CONSUMER.CREATE.PREMIUM.other.jobs.premium.x",
        "$JS.API.CONSUMER.CREATE.RESULTS.api.results.x",
    ),
    *(f"$JS.ACK.{stream}.{name}.1.1.1.1.1" for stream, name in consumers()),
    # The servers themselves.
    *("$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.JSZ", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.X.RELOAD"),
}
HEARD = {
    *(">", "*", "_INBOX.>", "jobs.>", "results.>", "clock.>", "$KV.>", "$JS.>", "$SYS.>", "something.else"),
    *("control.*", f"control.{JOB}", "progress.*", f"progress.{JOB}", "progress.>"),
    *(f"_INBOX_{role}.>" for role in (*Role, "monitor")),
}

# Each of these lines is a decision: what a process may send, out of all of the above.
_LANES_IN = {f"jobs.{lane}.{JOB}" for lane in LANES}
_PURGES = {f"$JS.API.STREAM.PURGE.{lane.upper()}" for lane in LANES}
_READS = {"INFO", "MSG.NEXT"}
_LOOKS = {
    "$JS.API.INFO",
    *(f"$JS.API.STREAM.INFO.{stream}" for stream in (*STREAMS, "OTHER")),
    *(f"$JS.API.CONSUMER.INFO.{stream}.{name}" for stream, name in consumers()),
    *("$JS.API.CONSUMER.INFO.PREMIUM.other", "$JS.API.CONSUMER.INFO.RESULTS.other"),
}


def _reading(stream: str, name: str) -> set[str]:
    verbs = {f"$JS.API.CONSUMER.{verb}.{stream}.{name}" for verb in _READS}
    return {*verbs, f"$JS.ACK.{stream}.{name}.1.1.1.1.1"}


MAY_SEND = {
    Role.GPU_WORKER: {
        *(*_reading("PREMIUM", "gpu_worker"), *_reading("BATCH", "gpu_worker")),
        *("results.premium", "results.normal", f"progress.{JOB}", "$KV.WORKERS.w"),
    },
    Role.API: {
        *(*_LANES_IN, *_PURGES, *_reading("RESULTS", "api")),
        *(f"control.{JOB}", f"progress.{JOB}", "clock.tick.batch"),
        f"$JS.API.DIRECT.GET.PROGRESS.progress.{JOB}",
        *("$JS.API.STREAM.INFO.KV_WORKERS", "$JS.API.STREAM.MSG.GET.KV_WORKERS"),
    },
    Role.BATCHER: {
        *(*_LANES_IN, *_PURGES, *_LOOKS),
        *(*_reading("NORMAL", "batcher"), *_reading("RESULTS", "batcher")),
        *(*_reading("CLOCK", "batcher"), *_reading("ADVISORIES", "reconciler")),
        *(
            f"$JS.API.STREAM.MSG.GET.{stream}"
            for stream in ("PREMIUM", "NORMAL", "BATCH", "CLOCK", "KV_WORKERS")
        ),
        *("clock.schedule.batch", "clock.tick.batch", f"control.{JOB}", f"progress.{JOB}"),
        *(f"$JS.API.STREAM.CREATE.{stream}" for stream in STREAMS),
        *(
            f"$JS.API.CONSUMER.CREATE.{spec.stream}.{spec.name}.{spec.filter_subject.replace('>', 'x')}"
            for spec in topology.CONSUMERS
        ),
    },
    Role.OPERATOR: {
        *(*_LANES_IN, *_LOOKS),
        "$JS.API.STREAM.MSG.GET.KV_WORKERS",
        *(f"$JS.API.STREAM.{verb}.{s}" for s in (*STREAMS, "OTHER") for verb in ("CREATE", "UPDATE")),
        *(
            subject
            for subject in PUBLISHED
            if subject.startswith("$JS.API.CONSUMER.CREATE.") and subject.count(".") > 5
        ),
    },
}
MAY_HEAR = {
    Role.GPU_WORKER: {"_INBOX_gpu_worker.>", "control.*", f"control.{JOB}"},
    # The server takes the last for one word of the first.
    Role.API: {"_INBOX_api.>", "progress.*", f"progress.{JOB}", "progress.>"},
    Role.BATCHER: {"_INBOX_batcher.>"},
    Role.OPERATOR: {"_INBOX_operator.>"},
}


async def refused(broker: Broker, user: str, sent: Iterable[str], heard: Iterable[str]) -> set[str]:
    """What the broker refuses of this, a listening one written as ``<subject``."""
    complaints: list[str] = []

    async def note(error: Exception) -> None:
        complaints.append(str(error).lower())

    client = await raw(broker, user, note)
    for subject in sent:
        await client.publish(subject, b"")
    for subject in heard:
        await client.subscribe(subject)
    await client.flush(timeout=10)
    # A refusal comes before the answer to what was sent after it, and is told by a task of its own.
    await asyncio.sleep(0.1)
    await client.close()
    return {
        *(
            subject
            for subject in sent
            if any(f'publish to "{subject.lower()}"' in words for words in complaints)
        ),
        *(
            f"<{subject}"
            for subject in heard
            if any(f'subscription to "{subject.lower()}"' in words for words in complaints)
        ),
    }


async def raw(broker: Broker, user: str, note: object = None) -> Client:
    settings = broker.settings(user)
    assert settings.nats_password
    return await nats_client.connect(
        settings.nats_url,
        user=user,
        password=settings.nats_password.get_secret_value(),
        tls=ssl.create_default_context(cafile=settings.nats_ca_file),
        tls_handshake_first=True,
        error_cb=note,
        allow_reconnect=False,
    )


@pytest.mark.parametrize("spare", ["", "_spare"])
@pytest.mark.parametrize("role", list(Role))
async def test_every_process_can_do_nothing_else(broker: Broker, role: Role, spare: str) -> None:
    no = await refused(broker, f"{role}{spare}", PUBLISHED, HEARD)
    assert PUBLISHED - no == MAY_SEND[role]
    assert {subject for subject in HEARD if f"<{subject}" not in no} == MAY_HEAR[role]
    await declare(broker)


async def test_the_monitor_sees_servers_and_no_message(broker: Broker) -> None:
    no = await refused(broker, "monitor", PUBLISHED, HEARD)
    assert PUBLISHED - no == {"$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.JSZ"}
    assert {subject for subject in HEARD if f"<{subject}" not in no} == {"_INBOX_monitor.>"}


def test_the_configuration_knows_every_role_and_nobody_twice() -> None:
    assert {f"{role}" for role in Role} < set(USERS)
    assert len(set(USERS)) == len(USERS)


async def test_what_is_refused_is_said_in_the_brokers_words(broker: Broker) -> None:
    worker = await Queue.connect(broker.settings("gpu_worker"), name="tests", role=Role.GPU_WORKER)
    sent = job()
    with pytest.raises(
        ServiceUnavailableError,
        match=rf'gpu_worker is refused: permissions violation for publish to "jobs.premium.{sent.id}"',
    ):
        await worker.publish_job(Lane.PREMIUM, sent)
    assert worker.refusal
    assert worker.trouble is None
    await worker.close()


async def test_a_wrong_password_is_said(broker: Broker) -> None:
    guessing = broker.settings("api").model_copy(update={"nats_password": SecretStr("guessed")})
    with pytest.raises(ServiceUnavailableError, match="user api or its password is refused"):
        await Queue.connect(guessing, name="tests", role=Role.API)


async def test_a_server_of_another_authority_is_not_told_the_password(broker: Broker, tmp_path: Path) -> None:
    other = Certificate.make(tmp_path, "other")
    settings = broker.settings("api").model_copy(update={"nats_ca_file": other.authority})
    with pytest.raises(ServiceUnavailableError, match="the server's certificate does not hold"):
        await Queue.connect(settings, name="tests", role=Role.API)


async def test_a_server_under_another_name_is_not_trusted(broker: Broker) -> None:
    # The same address, which the certificate does not have in this form.
    alias = broker.settings("api").nats_url.replace("127.0.0.1", "127.1")
    settings = broker.settings("api").model_copy(update={"nats_url": alias})
    with pytest.raises(ServiceUnavailableError, match=r"certificate does not hold: .*127\.1"):
        await Queue.connect(settings, name="tests", role=Role.API)


async def test_who_speaks_in_the_clear_gets_no_answer(broker: Broker) -> None:
    plain = BrokerSettings(
        nats_url=f"nats://127.0.0.1:{broker.node.port}", nats_user="api", nats_password=SecretStr("x")
    )
    with pytest.raises(ServiceUnavailableError, match="a server that wants tls:// gives none"):
        await Queue.connect(plain, name="tests", role=Role.API)
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.node.port)
    writer.write(b'CONNECT {"verbose": false}\r\nPING\r\n')
    # Not even that it is a NATS server.
    assert b"INFO" not in await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_server_that_offers_no_encryption_is_not_told_the_password(
    broker_settings: BrokerSettings,
) -> None:
    """Whoever stands in between could say so."""
    encrypted = broker_settings.nats_url.replace("nats://", "tls://")
    with pytest.raises(ServiceUnavailableError, match="does not speak TLS"):
        await Queue.connect(broker_settings.model_copy(update={"nats_url": encrypted}), name="tests")


def test_a_file_of_authorities_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = BrokerSettings(nats_url="tls://127.0.0.1:1", nats_ca_file=tmp_path / "none.pem")
    with pytest.raises(ConfigurationError, match="DARKROOM_NATS_CA_FILE"):
        Queue(settings, name="tests")


async def test_who_leaves_while_the_broker_speaks_tells_of_no_refusal(broker: Broker) -> None:
    """TLS takes what still comes after the goodbye for an error."""
    one = Progress(id=UUID(JOB), state=GenerationState.RUNNING, preview="x" * 4096)
    async with connected(broker, Role.BATCHER) as batcher:

        async def speak() -> None:
            while True:
                for _ in range(20):
                    await batcher.publish_progress(one)
                await asyncio.sleep(0)

        speaking = asyncio.create_task(speak())
        try:
            for _ in range(5):
                async with connected(broker, Role.API) as api:
                    await api.subscribe_progress(one.id, lambda _: None)
                    await asyncio.sleep(0.2)
                    with capture_logs() as told:
                        await api.close()
                assert [line for line in told if line["log_level"] in ("warning", "error")] == []
        finally:
            speaking.cancel()


async def test_a_password_is_changed_without_an_interruption(broker: Broker) -> None:
    """The other user takes over; who still uses the old one is told, and comes back by itself."""
    users = broker.folder / "users.conf"
    (broker.folder / "passwords" / "api_spare").unlink()
    async with connected(broker, Role.API) as old:
        write_users(broker.folder)
        broker.reload()
        async with connected(broker, Role.API, user="api_spare") as new:
            await new.standing(topology.PREMIUM_RESULTS)
            assert old.trouble is None

            lines = [line for line in users.read_text().splitlines() if not line.startswith("API_PASSWORD")]
            users.write_text("\n".join([*lines, 'API_PASSWORD: "$2b$04$' + "x" * 53 + '"']) + "\n")
            broker.reload()
            await until(lambda: old.trouble == "not connected: user api or its password is refused")
            assert new.trouble is None

            write_users(broker.folder)
            broker.reload()
            await until(lambda: old.trouble is None)
            await old.standing(topology.PREMIUM_RESULTS)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a server has no event
            await asyncio.sleep(0.05)


def test_passwords_stay_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first, second = write_users(tmp_path), write_users(tmp_path)
    assert first == second
    assert len(set(first.values())) == len(USERS)
    for path in (tmp_path / "users.conf", *(tmp_path / "passwords").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not any(password in (tmp_path / "users.conf").read_text() for password in first.values())


def test_a_node_without_a_certificate_of_the_nodes_is_no_part_of_the_cluster(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("one", "two", "stranger")}
    clients, nodes = Certificate.make(tmp_path, "clients"), Certificate.make(tmp_path, "nodes")
    # Signed, but by the authority of what clients are shown.
    strange = Certificate(nodes.authority, clients.certificate, clients.key)
    write_users(tmp_path)
    made, processes = {}, []
    for name, port in ports.items():
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(tmp_path / "users.conf", folder)
        made[name] = node(
            folder,
            name,
            certificate=clients,
            node_certificate=strange if name == "stranger" else nodes,
            nodes_port=port,
            routes=[other for other in ports.values() if other != port],
        )
        with (folder / "nats.log").open("wb") as output:
            argv = nats.command(made[name].write(folder)).argv
            processes.append(subprocess.Popen(argv, stdout=output, stderr=output))
    try:
        for one, process in zip(made.values(), processes, strict=True):
            wait_for_port(one.monitoring_port, process)
        log = tmp_path / "stranger" / "nats.log"
        deadline = time.monotonic() + 20
        while routes(made["one"]) != {"two"} or "TLS route handshake error" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert routes(made["one"]) == {"two"}
        assert routes(made["stranger"]) == set()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def routes(made: BrokerNode) -> set[str]:
    """The other nodes that one knows."""
    page = httpx.get(f"http://127.0.0.1:{made.monitoring_port}/routez").json()
    return {route["remote_name"] for route in page["routes"]}
