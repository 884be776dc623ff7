"""Which processes the one-machine stack is made of, and what each is told.

A process gets the variables of the settings groups that it reads and no others, so that the gpu_worker
knows neither the database's password nor the mail server.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.catalogue import offered_models
from core.errors import ConfigurationError
from infra.local import postgres
from infra.local.broker import Broker
from infra.local.command import Command
from infra.local.credentials import Credentials
from infra.local.home import Home
from infra.local.ports import Ports, first_free, is_free
from infra.local.probes import healthy, listens, succeeds
from infra.local.settings import StackSettings
from infra.local.supervisor import Process

PREMIUM_EMAIL: Final = "premium@darkroom.local"
NORMAL_EMAIL: Final = "normal@darkroom.local"

_PREMIUM_DAYS: Final = 3650
_DEMO_PASSWORD: Final = "DARKROOM_DEMO_PASSWORD"  # noqa: S105 - the variable's name
_OURS: Final = (
    "DARKROOM_DATABASE_URL",
    "DARKROOM_NATS_",
    "DARKROOM_STORAGE_",
    "DARKROOM_SMTP_",
    "DARKROOM_PUBLIC_URL",
    "DARKROOM_DOWNLOAD_SECRET",
    "DARKROOM_JWT_SECRET",
    "DARKROOM_PASSWORD_PEPPER",
    "DARKROOM_CATALOGUE",
    "DARKROOM_MODELS",
    _DEMO_PASSWORD,
)
"""Variables, by their beginnings, that are the stack's to set, whatever stands in the shell."""

_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - recognised here, not listened on


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything to run, and where the api will be found.

    Attributes:
        processes: what to run.
        url: the first api, for people on this machine.
        environment: what the ``darkroom`` command needs to work on this stack.
    """

    processes: tuple[Process, ...]
    url: str
    environment: Mapping[str, str]


def declare(settings: StackSettings, *, home: Home, ports: Ports, credentials: Credentials) -> Stack:
    """Put the stack together.

    Raises:
        ConfigurationError: the api's port is taken, or the models on offer cannot be had as they are chosen.
    """
    # Here it is one line; from the processes it would be two minutes of restarts.
    offered_models(settings.offer)
    addresses = _api_addresses(settings)
    url = _url(settings.host, addresses[0])
    broker = Broker(home, ports, nodes=settings.brokers)
    groups = _Groups(settings, home=home, ports=ports, credentials=credentials, broker=broker, url=url)
    processes = (
        *broker.processes(),
        *_servers(home, ports, credentials),
        *_steps(groups, credentials),
        *_apis(settings, groups, addresses, home=home, ports=ports),
        *_workers(settings, groups, api_port=addresses[0], home=home, ports=ports),
        *_batchers(settings, groups, ports=ports),
    )
    return Stack(processes=processes, url=url, environment=groups.operator)


class _Groups:
    """The variables of each settings group, as ``core.settings`` reads them."""

    def __init__(
        self,
        settings: StackSettings,
        *,
        home: Home,
        ports: Ports,
        credentials: Credentials,
        broker: Broker,
        url: str,
    ) -> None:
        self.broker = broker
        self.database = {
            "DARKROOM_DATABASE_URL": postgres.url(
                port=ports.of("postgres"), password=credentials.database_password, name=postgres.DATABASE
            )
        }
        self.storage = {"DARKROOM_STORAGE_URL": home.objects.as_uri()}
        self.mail = {"DARKROOM_SMTP_HOST": "127.0.0.1", "DARKROOM_SMTP_PORT": str(ports.of("mail"))}
        self.links = {
            "DARKROOM_PUBLIC_URL": settings.public_url or url,
            "DARKROOM_DOWNLOAD_SECRET": credentials.download_secret,
        }
        self.tokens = {
            "DARKROOM_JWT_SECRET": credentials.jwt_secret,
            "DARKROOM_PASSWORD_PEPPER": credentials.password_pepper,
        }
        self.window = {"DARKROOM_WINDOW": settings.window}
        self.catalogue = {"DARKROOM_MODELS": json.dumps(settings.offer.models)}
        if settings.catalogue is not None:
            self.catalogue["DARKROOM_CATALOGUE"] = str(settings.catalogue)
        self.operator = {
            **self.database,
            **broker.environment("operator"),
            **self.storage,
            **self.links,
            **self.tokens,
        }
        # What somebody set for a process, such as a limit or the log level, reaches it.
        self._inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}

    def environment(self, *groups: Mapping[str, str], **more: str | int | Path) -> dict[str, str]:
        """The inherited variables with the groups', and some more named without their prefix."""
        merged = {name: value for group in groups for name, value in group.items()}
        return {
            **self._inherited,
            **merged,
            **{f"DARKROOM_{name.upper()}": str(value) for name, value in more.items()},
        }


def _servers(home: Home, ports: Ports, credentials: Credentials) -> tuple[Process, ...]:
    """PostgreSQL and the mail server: quick to stop, and last."""

    def prepare_postgres() -> None:
        postgres.prepare(home.postgres, password=credentials.database_password)

    bare = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return (
        Process(
            name="postgres",
            command=postgres.command(home.postgres, port=ports.of("postgres")),
            env=bare,
            prepare=prepare_postgres,
            ready=succeeds(*postgres.ready_check(ports.of("postgres"))),
            stop_signal=signal.SIGINT,
            stop_seconds=2.5,
        ),
        Process(
            name="mail",
            command=_module("infra.local.mail_server", str(ports.of("mail")), str(home.mail)),
            env=bare,
            ready=listens(ports.of("mail"), b"220 "),
            stop_seconds=2.5,
        ),
    )


def _steps(groups: _Groups, credentials: Credentials) -> tuple[Process, ...]:
    """What has to be done once the servers are up."""
    ensure = ("account", "ensure", "--password-env", _DEMO_PASSWORD)
    accounts_env = {
        **groups.environment(groups.database, groups.tokens),
        _DEMO_PASSWORD: credentials.demo_password,
    }
    return (
        Process(
            name="migrate",
            command=_darkroom("migrate"),
            env=groups.environment(groups.database),
            after=("postgres",),
            ready=None,
        ),
        Process(
            name="streams",
            command=_darkroom("streams"),
            env=groups.environment(groups.broker.environment("operator")),
            after=groups.broker.names,
            ready=None,
        ),
        Process(
            name="account-premium",
            command=_darkroom(*ensure, "--premium-days", str(_PREMIUM_DAYS), PREMIUM_EMAIL),
            env=accounts_env,
            after=("migrate",),
            ready=None,
        ),
        Process(
            name="account-normal",
            command=_darkroom(*ensure, NORMAL_EMAIL),
            env=accounts_env,
            after=("migrate",),
            ready=None,
        ),
    )


def _apis(
    settings: StackSettings, groups: _Groups, addresses: list[int], *, home: Home, ports: Ports
) -> tuple[Process, ...]:
    return tuple(
        Process(
            name=name,
            command=_module("api"),
            env=groups.environment(
                groups.database,
                groups.broker.environment("api"),
                groups.storage,
                groups.links,
                groups.tokens,
                groups.window,
                groups.catalogue,
                host=settings.host,
                port=port,
                inbox_maildir=home.mail,
                metrics_port=ports.of(f"{name} metrics"),
                # The stack has ten seconds to stop in.
                shutdown_seconds=3,
            ),
            after=("migrate", "streams"),
            ready=healthy(_reachable(settings.host), port, "/health/serving"),
        )
        for name, port in zip(_names("api", settings.api_processes), addresses, strict=True)
    )


def _workers(
    settings: StackSettings, groups: _Groups, *, api_port: int, home: Home, ports: Ports
) -> tuple[Process, ...]:
    return tuple(
        Process(
            name=name,
            command=_module("gpu_worker"),
            env=groups.environment(
                groups.broker.environment("gpu_worker"),
                groups.storage,
                groups.catalogue,
                worker_name=name,
                weights_dir=home.weights,
                metrics_port=ports.of(f"{name} metrics"),
            ),
            # It takes seconds to load; the streams are there long before it wants them.
            after=groups.broker.names,
            ready=healthy(_reachable(settings.host), api_port, "/health/ready", workers=number),
        )
        for number, name in enumerate(_names("gpu_worker", settings.gpu_workers), start=1)
    )


def _batchers(settings: StackSettings, groups: _Groups, *, ports: Ports) -> tuple[Process, ...]:
    return tuple(
        Process(
            name=name,
            command=_module("batcher"),
            env=groups.environment(
                groups.database,
                groups.broker.environment("batcher"),
                groups.storage,
                groups.mail,
                groups.links,
                groups.window,
                metrics_port=ports.of(f"{name} metrics"),
            ),
            after=("migrate", "streams", "mail"),
            ready=listens(ports.of(f"{name} metrics")),
        )
        for name in _names("batcher", settings.batchers)
    )


def _api_addresses(settings: StackSettings) -> list[int]:
    """The port of each api process."""
    first = settings.port or first_free(settings.host, 8000)
    if not is_free(settings.host, first):
        raise ConfigurationError(
            f"port {first} on {settings.host} is in use. Name another in DARKROOM_PORT (0 finds a free one)."
        )
    chosen = [first]
    while len(chosen) < settings.api_processes:
        chosen.append(first_free(settings.host, chosen[-1] + 1))
    return chosen


def _names(name: str, count: int) -> list[str]:
    return [name if number == 1 else f"{name}-{number}" for number in range(1, count + 1)]


def _reachable(host: str) -> str:
    """An address of this machine under which a server that listens on ``host`` is found."""
    return "127.0.0.1" if host in _EVERYWHERE else host


def _url(host: str, port: int) -> str:
    name = _reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _module(name: str, *arguments: str) -> Command:
    return Command(argv=(sys.executable, "-m", name, *arguments))


def _darkroom(*arguments: str) -> Command:
    return Command(argv=(sys.executable, "-m", "console", *arguments))
