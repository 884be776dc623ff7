"""The whole service as real processes, two of each, with a link between each of them and each server."""

import asyncio
import json
import os
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import nats as nats_client
from nats.aio.client import Client
from pydantic import SecretStr

from core.accounts.passwords import PasswordHasher
from core.clock import now
from core.repository.database import migrate
from core.settings import DatabaseSettings, TokenSettings
from infra.local import nats, postgres
from infra.local.command import Command
from infra.local.ports import Ports
from infra.local.probes import Probe, healthy, listens, succeeds
from infra.nats.certificates import Certificate
from infra.nats.node import BrokerNode
from infra.nats.users import write_users
from tests.faults.links import Link
from tests.faults.nodes import REPOSITORY, Node, Nursery, Spawn, program
from tests.graphql_client import NO_AUTHORITIES

PASSWORD: Final = "for the faults only"
ACK_WAIT: Final = 3
"""Seconds until a silent worker's jobs go to another: a fifth of what it is by default, as all such waits."""

WINDOW: Final = "*/3 * * * * *"
MODEL: Final = "tiny"
_KINDS: Final = ("api", "batcher", "gpu_worker")
_SECRET: Final = "f" * 40
_CATALOGUE: Final = """
[[model]]
id = "tiny"
name = "Tiny"
description = "Of the true shape, with random weights."
license = "Apache-2.0"
family = "sd1"

[model.source]
kind = "directory"
path = {folder}

[model.defaults]
width = 64
height = 64
steps = 1
guidance_scale = 1.0
scheduler = "DDIM"

[model.limits]
min_size = 64
max_size = 128
max_steps = 50
max_guidance_scale = 20.0
max_count = 4
max_prompt_length = 1000
"""


@dataclass(frozen=True)
class Customer:
    """Somebody with an account, verified."""

    id: str
    email: str
    premium: bool


@dataclass
class Service:
    """Everything that runs.

    Attributes:
        home: the state folder.
        nodes: every process by name; ``api api-2 batcher batcher-2 gpu_worker gpu_worker-2``, the servers
            ``postgres mail``, perhaps ``store``, and ``nats`` or ``nats-1`` to ``nats-3``.
        links: by ``process>server``; of a cluster also ``nats-2>nats-1`` and so on.
        urls: of the two api processes.
        broker_ports: of the brokers, past every link.
    """

    home: Path
    database_port: int
    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    broker_ports: tuple[int, ...] = ()

    @property
    def database_url(self) -> str:
        """PostgreSQL without a link in between, for whoever looks on."""
        return postgres.url(port=self.database_port, password=PASSWORD, name=postgres.DATABASE)

    @property
    def brokers(self) -> list[Node]:
        """The nats-servers."""
        return [node for name, node in self.nodes.items() if name.startswith("nats")]

    def routes_of(self, broker: str) -> list[Link]:
        """Every link between a broker and the others of its cluster."""
        return [
            link
            for name, link in self.links.items()
            if name.startswith("nats-") and broker in name.split(">")
        ]

    def replicas(self, process: str) -> list[Node]:
        """Both processes of a kind."""
        return [self.nodes[process], self.nodes[f"{process}-2"]]

    def links_to(self, server: str) -> list[Link]:
        """Every link to a server, or to every server of a kind."""
        return [link for name, link in self.links.items() if name.partition(">")[2].startswith(server)]

    def links_from(self, process: str) -> list[Link]:
        """Every link of one process."""
        return [link for name, link in self.links.items() if name.startswith(f"{process}>")]

    async def broker_client(self, **options: Any) -> Client:
        """A connection to the brokers past every link, which may do everything."""
        return await nats_client.connect(
            [f"tls://127.0.0.1:{port}" for port in self.broker_ports],
            user="emergency",
            password=(self.home / "passwords" / "emergency").read_text(),
            tls=ssl.create_default_context(cafile=Certificate.make(self.home, "clients").authority),
            tls_handshake_first=True,
            **options,
        )

    async def heal(self) -> None:
        """Take every fault away, and wait until everything is ready."""
        for link in self.links.values():
            link.heal()
        for node in self.nodes.values():
            node.charges.clear()
            node.send(signal.SIGCONT)
        for node in self.nodes.values():
            await node.until_ready()

    async def new_customers(self, *, normal: int, premium: int, prefix: str) -> list[Customer]:
        """Verified accounts, all with ``PASSWORD``."""
        hasher = PasswordHasher(
            TokenSettings(jwt_secret=SecretStr(_SECRET), password_pepper=SecretStr(_SECRET), bcrypt_rounds=4)
        )
        stored = await hasher.hash(PASSWORD)
        customers = []
        connection = await asyncpg.connect(self.database_url)
        try:
            for number in range(normal + premium):
                is_premium = number >= normal
                email = f"{prefix}-{number}@example.org"
                account_id = await connection.fetchval(
                    "INSERT INTO account"
                    " (id, email, email_key, password_hash, email_verified_at, premium_until, created_at)"
                    " VALUES (gen_random_uuid(), $1, $1, $2, $3, $4, $3) RETURNING id",
                    email,
                    stored,
                    now(),
                    now() + timedelta(days=30) if is_premium else None,
                )
                customers.append(Customer(id=str(account_id), email=email, premium=is_premium))
        finally:
            await connection.close()
        return customers


@asynccontextmanager
async def running(
    home: Path, *, model: Path, brokers: int, remote_store: bool = False
) -> AsyncIterator[Service]:
    """The service, ready; ended when the block is left.

    Args:
        home: an empty folder.
        model: the weights of the model on offer.
        brokers: 1, or 3 for a cluster with as many copies of each stream.
        remote_store: whether objects are stored over links as well, on the server ``store``.
    """
    builder = _Builder(home, model=model, brokers=brokers, remote_store=remote_store)
    service = builder.service
    try:
        await builder.start()
        yield service
    finally:
        # The servers last: the processes say good-bye to them.
        for link in service.links.values():
            link.heal()
        await asyncio.gather(
            *(node.end() for name, node in service.nodes.items() if name.removesuffix("-2") in _KINDS)
        )
        await asyncio.gather(*(node.end(signal.SIGINT, seconds=5) for node in service.nodes.values()))
        await asyncio.gather(*(link.close() for link in service.links.values()))
        await asyncio.gather(*(nursery.close() for nursery in builder.nurseries.values()))


class _Builder:
    """Puts the service together, servers first."""

    def __init__(self, home: Path, *, model: Path, brokers: int, remote_store: bool) -> None:
        self._home = home
        self._remote_store = remote_store
        self._ports = Ports(home / "ports.json")
        self._model = model
        self._brokers = [f"nats-{number + 1}" for number in range(brokers)] if brokers > 1 else ["nats"]
        self._bare = {
            name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "COV_"))
        } | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
        self.service = Service(
            home=home,
            database_port=self._ports.of("postgres"),
            broker_ports=tuple(self._ports.of(name) for name in self._brokers),
        )
        logs = home / "logs"
        logs.mkdir()
        self.nurseries = {kind: Nursery(kind, log=logs / f"{kind} nursery.log") for kind in _KINDS}
        (home / "objects").mkdir()
        self._broker_passwords = write_users(home)

    async def start(self) -> None:
        """Start everything and wait until it is ready."""
        for nursery in self.nurseries.values():
            await nursery.open(self._bare)
        await asyncio.to_thread(postgres.prepare, self._home / "postgres", password=PASSWORD)
        await self._start_servers()
        await migrate(DatabaseSettings(database_url=SecretStr(self.service.database_url)))
        catalogue = self._home / "catalogue.toml"
        catalogue.write_text(_CATALOGUE.format(folder=json.dumps(str(self._model))))
        self.service.urls = tuple(
            f"http://127.0.0.1:{self._ports.of(f'{name} http')}" for name in ("api", "api-2")
        )
        names = [f"{kind}{suffix}" for kind in _KINDS for suffix in ("", "-2")]
        for name in names:
            await self._declare(name)
        for name in names:
            self.service.nodes[name].start()
        for name in names:
            await self.service.nodes[name].until_ready()

    async def _start_servers(self) -> None:
        self._add_server(
            "postgres",
            postgres.command(self._home / "postgres", port=self._ports.of("postgres")),
            succeeds(*postgres.ready_check(self._ports.of("postgres"))),
        )
        port = self._ports.of("mail")
        mail = Command((sys.executable, "-m", "infra.local.mail_server", str(port), str(self._home / "mail")))
        self._add_server("mail", mail, listens(port, b"220 "))
        if self._remote_store:
            port, objects = self._ports.of("store"), str(self._home / "objects")
            store = Command((sys.executable, "-m", "tests.faults.object_server", str(port), objects))
            self._add_server("store", store, healthy("127.0.0.1", port, "/darkroom"))
        for name in self._brokers:
            await self._declare_broker(name)
        for node in self.service.nodes.values():
            node.start()
        for node in self.service.nodes.values():
            await node.until_ready()

    def _add_server(self, name: str, command: Command, ready: Probe) -> None:
        self._add(name, program(command), self._bare, ready)

    def _add(self, name: str, spawn: Spawn, env: Mapping[str, str], ready: Probe) -> None:
        log = self._home / "logs" / f"{name}.log"
        self.service.nodes[name] = Node(name, spawn, env=env, ready=ready, log=log)

    async def _declare_broker(self, name: str) -> None:
        """One nats-server. In a cluster each connects to the others over links of its own."""
        folder = self._home / f"{name} configuration"
        folder.mkdir()
        shutil.copy(self._home / "users.conf", folder)
        others = [other for other in self._brokers if other != name]
        links = [await self._link(name, other, self._ports.of(f"{other} cluster")) for other in others]
        port = self._ports.of(name)
        node = BrokerNode(
            name=name,
            port=port,
            monitoring_port=self._ports.of(f"{name} monitoring"),
            store=self._home / name,
            certificate=Certificate.make(self._home, "clients"),
            node_certificate=Certificate.make(self._home, "nodes"),
            nodes_port=self._ports.of(f"{name} cluster") if others else 0,
            routes=[link.port for link in links],
        )
        command = nats.command(node.write(folder))
        self._add_server(name, command, healthy("127.0.0.1", node.monitoring_port, "/healthz"))

    async def _link(self, source: str, server: str, target: int) -> Link:
        name = f"{source}>{server}"
        link = Link(name, target)
        await link.listen(self._ports.of(name))
        self.service.links[name] = link
        return link

    async def _declare(self, name: str) -> None:
        """One of our own processes, with its links and the variables of its settings groups."""
        kind = name.removesuffix("-2")
        env = {**self._bare, **await self._broker_of(name), **await self._store_of(name)}
        env["DARKROOM_CATALOGUE"] = str(self._home / "catalogue.toml")
        env["DARKROOM_MODELS"] = json.dumps([MODEL])
        env["DARKROOM_PUBLIC_URL"] = self.service.urls[0]
        env["DARKROOM_DOWNLOAD_SECRET"] = _SECRET
        env["DARKROOM_WINDOW"] = WINDOW
        if kind != "gpu_worker":
            link = await self._link(name, "postgres", self._ports.of("postgres"))
            env["DARKROOM_DATABASE_URL"] = postgres.url(
                port=link.port, password=PASSWORD, name=postgres.DATABASE
            )
        ready: Probe
        if kind == "api":
            port = self._ports.of(f"{name} http")
            env |= _api(port)
            ready = healthy("127.0.0.1", port, "/health/serving")
        elif kind == "batcher":
            mail = await self._link(name, "mail", self._ports.of("mail"))
            env |= {"DARKROOM_SMTP_HOST": "127.0.0.1", "DARKROOM_SMTP_PORT": str(mail.port)}
            env["DARKROOM_SMTP_TIMEOUT_SECONDS"] = "5"
            env["DARKROOM_METRICS_PORT"] = str(self._ports.of(f"{name} metrics"))
            ready = listens(self._ports.of(f"{name} metrics"))
        else:
            env |= {"DARKROOM_WORKER_NAME": name, "DARKROOM_WORKER_SLOTS": "8"}
            env["DARKROOM_WEIGHTS_DIR"] = str(self._home / "weights")
            port = self._ports.of(f"{name} metrics")
            env["DARKROOM_METRICS_PORT"] = str(port)
            ready = _warm(port)
        self._add(name, self.nurseries[kind].spawn, env, ready)

    async def _store_of(self, name: str) -> dict[str, str]:
        if not self._remote_store:
            return {"DARKROOM_STORAGE_URL": (self._home / "objects").as_uri()}
        link = await self._link(name, "store", self._ports.of("store"))
        options = {
            "endpoint": f"http://127.0.0.1:{link.port}",
            "region": "here",
            "allow_http": "true",
            "access_key_id": "faults",
            "secret_access_key": PASSWORD,
        }
        return {
            "DARKROOM_STORAGE_URL": "s3://darkroom",
            "DARKROOM_STORAGE_OPTIONS": json.dumps(options),
            "DARKROOM_STORAGE_TIMEOUT_SECONDS": "3",
        }

    async def _broker_of(self, name: str) -> dict[str, str]:
        links = [await self._link(name, broker, self._ports.of(broker)) for broker in self._brokers]
        return {
            "DARKROOM_NATS_URL": ",".join(f"tls://127.0.0.1:{link.port}" for link in links),
            "DARKROOM_NATS_CA_FILE": str(Certificate.make(self._home, "clients").authority),
            "DARKROOM_NATS_USER": (kind := name.removesuffix("-2")),
            "DARKROOM_NATS_PASSWORD": self._broker_passwords[kind],
            "DARKROOM_NATS_REPLICAS": str(len(self._brokers)),
            "DARKROOM_NATS_ACK_WAIT_SECONDS": str(ACK_WAIT),
        }


def _warm(port: int) -> Probe:
    """Ready when a worker has its weights and pulls jobs; it serves its metrics before."""

    async def probe() -> bool:
        async with httpx.AsyncClient(timeout=2, verify=NO_AUTHORITIES) as http:
            try:
                page = await http.get(f"http://127.0.0.1:{port}/metrics")
            except httpx.TransportError:
                return False
        return "\ndarkroom_slot_capacity 8.0" in page.text

    return probe


def _api(port: int) -> dict[str, str]:
    return {
        "DARKROOM_PORT": str(port),
        "DARKROOM_JWT_SECRET": _SECRET,
        "DARKROOM_PASSWORD_PEPPER": _SECRET,
        "DARKROOM_BCRYPT_ROUNDS": "4",
        "DARKROOM_ACCESS_TOKEN_MINUTES": "240",
        "DARKROOM_SHUTDOWN_SECONDS": "2",
        "DARKROOM_MAX_OPEN_NORMAL": "100000",
        "DARKROOM_MAX_OPEN_PREMIUM": "100000",
        "DARKROOM_PICTURES_PER_DAY_NORMAL": "1000000",
        "DARKROOM_PICTURES_PER_DAY_PREMIUM": "1000000",
        "DARKROOM_SIGNIN_ATTEMPTS_PER_MINUTE": "100000",
    }
