"""Free TCP ports, which stay the same over restarts where they can."""

import json
import random
import socket
from pathlib import Path

from core.errors import ConfigurationError

_LOWEST = 10240
_LOCAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 200


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises:
        ConfigurationError: the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigurationError(f"DARKROOM_HOST={host}: {error}") from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do, so that connections which ended a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True


class Ports:
    """A port on the loopback interface for every name.

    They lie below the range from which the kernel gives out ports to clients: a client that keeps
    connecting to a server which is away could otherwise be given that very port, and meet itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken: dict[str, int] = {}
        try:
            self._kept = {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            # Without the file, or with a damaged one, there is nothing to keep.
            self._kept = {}

    def of(self, name: str) -> int:
        """The port that ``name`` had the last time if it is still free, or another; the same in one life.

        Raises:
            ConfigurationError: no port is free.
        """
        if name in self._taken:
            return self._taken[name]
        kept = self._kept.get(name)
        candidates = [*([kept] if kept else []), *random.sample(_range(), _TRIES)]
        for port in candidates:
            if port not in self._taken.values() and is_free("127.0.0.1", port):
                self._taken[name] = port
                return port
        raise ConfigurationError("no free port on 127.0.0.1")

    def save(self) -> None:
        """Remember what was handed out."""
        self._path.write_text(json.dumps(self._taken, indent=2) + "\n")


def first_free(host: str, port: int) -> int:
    """The first free port from ``port`` on.

    Raises:
        ConfigurationError: none of the next hundred is.
    """
    for candidate in range(port, min(port + 100, 65536)):
        if is_free(host, candidate):
            return candidate
    raise ConfigurationError(f"no free port from {port} on")


def _range() -> range:
    try:
        first_of_clients = int(_LOCAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        first_of_clients = 32768
    return range(_LOWEST, first_of_clients) if first_of_clients > _LOWEST + _TRIES else range(_LOWEST, 65536)
