"""One node of the broker on this machine: what differs from the others, beside the same ``nats.conf``."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.nats.certificates import Certificate

CONFIGURATION: Final = Path(__file__).with_name("nats.conf")
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerNode:
    """A node that listens on the loopback interface.

    Attributes:
        name: of no other node in the cluster.
        port: for clients.
        monitoring_port: for probes and metrics.
        store: absolute; the server makes it.
        certificate: shown to clients.
        node_certificate: shown to other nodes.
        nodes_port: for other nodes; 0 for a node alone.
        routes: the ports at which the others are found.
        max_file_store: upper limit of all streams on the disk, in bytes.
    """

    name: str
    port: int
    monitoring_port: int
    store: Path
    certificate: Certificate
    node_certificate: Certificate
    nodes_port: int = 0
    routes: Sequence[int] = ()
    max_file_store: int = 8 * 2**30

    def write(self, folder: Path) -> Path:
        """Write ``nats.conf`` and ``node.conf`` into a folder that has ``users.conf``; returns the former."""
        values: dict[str, Any] = {
            "SERVER_NAME": self.name,
            "CLIENTS": f"{_HOST}:{self.port}",
            "MONITORING": f"{_HOST}:{self.monitoring_port}",
            "STORE": str(self.store),
            "MAX_FILE_STORE": self.max_file_store,
            "MAX_MEMORY_STORE": 256 * 2**20,
            "CERTIFICATE": str(self.certificate.certificate),
            "KEY": str(self.certificate.key),
            "NODES": f"{_HOST}:{self.nodes_port}",
            "ROUTES": [f"tls://{_HOST}:{port}" for port in self.routes],
            "NODE_CERTIFICATE": str(self.node_certificate.certificate),
            "NODE_KEY": str(self.node_certificate.key),
            "NODE_AUTHORITY": str(self.node_certificate.authority),
        }
        lines = (f"{name}: {json.dumps(value)}\n" for name, value in values.items())
        (folder / "node.conf").write_text("".join(lines))
        return Path(shutil.copy(CONFIGURATION, folder))
