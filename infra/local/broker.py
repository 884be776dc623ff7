"""The broker of the one-machine stack: one node or three, as in production, with a user for each process."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Final

from infra.local import nats
from infra.local.home import Home
from infra.local.ports import Ports
from infra.local.probes import healthy
from infra.local.supervisor import Process
from infra.nats.certificates import Certificate
from infra.nats.node import BrokerNode
from infra.nats.users import write_users

_HOST: Final = "127.0.0.1"


class Broker:
    """The nodes, and what each process is told of them.

    Attributes:
        names: of the nodes.
    """

    def __init__(self, home: Home, ports: Ports, *, nodes: int) -> None:
        self.names = tuple("nats" if number == 1 else f"nats-{number}" for number in range(1, nodes + 1))
        self._home = home
        self._ports = ports
        self._folder = home.root / "broker"
        self._passwords = write_users(self._folder)
        self._certificate = Certificate.make(self._folder, "clients")
        self._node_certificate = Certificate.make(self._folder, "nodes")

    def environment(self, process: str) -> dict[str, str]:
        """The variables of the settings group, for the user of a process."""
        return {
            "DARKROOM_NATS_URL": ",".join(f"tls://{_HOST}:{self._ports.of(name)}" for name in self.names),
            "DARKROOM_NATS_CA_FILE": str(self._certificate.authority),
            "DARKROOM_NATS_USER": process,
            "DARKROOM_NATS_PASSWORD": self._passwords[process],
            "DARKROOM_NATS_REPLICAS": str(len(self.names)),
        }

    def processes(self) -> tuple[Process, ...]:
        """The servers. Each is ready when JetStream is, which in a cluster takes two of them."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        return tuple(
            Process(
                name=name,
                command=nats.command(self._folder_of(name) / "nats.conf"),
                env=bare,
                prepare=partial(self._prepare, name),
                ready=healthy(_HOST, self._ports.of(f"{name} monitoring"), "/healthz"),
                stop_seconds=2.5,
            )
            for name in self.names
        )

    def _prepare(self, name: str) -> None:
        alone = len(self.names) == 1
        folder = self._folder_of(name)
        folder.mkdir(exist_ok=True)
        shutil.copy(self._folder / "users.conf", folder)
        BrokerNode(
            name=name,
            port=self._ports.of(name),
            monitoring_port=self._ports.of(f"{name} monitoring"),
            store=self._home.root / name,
            certificate=self._certificate,
            node_certificate=self._node_certificate,
            nodes_port=0 if alone else self._ports.of(f"{name} nodes"),
            routes=[self._ports.of(f"{other} nodes") for other in self.names if other != name],
        ).write(folder)

    def _folder_of(self, name: str) -> Path:
        return self._folder / name
