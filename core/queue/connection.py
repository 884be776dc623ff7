"""The connection to the broker: encrypted where asked, made again for ever, and what it is refused told."""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import ParseResult

import structlog
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

from core.errors import ConfigurationError, ServiceUnavailableError
from core.queue.role import Role
from core.settings import BrokerSettings
from core.telemetry import BROKER_REFUSALS

_FORBIDDEN: Final = "permissions violation"
_TURNED_AWAY: Final = ("authorization violation", "user authentication", "account authentication")
"""What the server says, in small letters, as the library gives it."""

_STALE: Final = "stale connection"
_TOO_LATE: Final = "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
"""Why TLS complains of what the server still says to somebody who has said goodbye."""

_CONNECT_SECONDS: Final = 2
_REMEMBERED_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


class Connection(Client):
    """A connection for one role.

    The library gives up for good when a server turns it away while it is connected. This one goes on trying:
    a password that is changed on one side first is no reason to end.
    """

    def __init__(self, broker: BrokerSettings, *, role: Role, name: str) -> None:
        """Make it, without connecting.

        Args:
            broker: where to connect.
            role: as what; answers come to its inbox.
            name: by which the broker's own reports know it.

        Raises:
            ConfigurationError: the file of the authorities cannot be read.
        """
        super().__init__()
        self._broker = broker
        self._role = role
        self._called = name
        if broker.encrypted:
            self._transport = _Encrypted(_trusting(broker))
        self._turned_away: str | None = None
        self._patient = True
        self._refusal = ""
        self._refused_at = float("-inf")

    async def open(self, *, reconnected: Callable[[], None], patient: bool) -> None:
        """Connect.

        Args:
            reconnected: called whenever the connection was lost and is back.
            patient: whether to go on trying a server that turns us away or is not trusted, from the start.

        Raises:
            ServiceUnavailableError: it does, and ``patient`` is off.
        """

        async def again() -> None:
            self._turned_away = None
            reconnected()

        self._patient = patient
        if self._broker.nats_password and not self._broker.encrypted:
            log.info("broker_unencrypted", url=self._broker.nats_url)
        password = self._broker.nats_password
        await self.connect(
            self._broker.addresses,
            name=self._called,
            user=self._broker.nats_user,
            password=password.get_secret_value() if password else None,
            inbox_prefix=self._role.inbox.encode(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,  # type: ignore[arg-type] # seconds, whole or not
            ping_interval=10,
            allow_reconnect=True,
            connect_timeout=_CONNECT_SECONDS,
            error_cb=self._note,
            reconnected_cb=again,
        )
        self._turned_away = None
        self._patient = True

    @property
    def trouble(self) -> str | None:
        """Why there is no connection, for an operator; none while there is one."""
        if self.is_connected:
            return None
        return f"not connected{f': {self._turned_away}' if self._turned_away else ''}"

    @property
    def refusal(self) -> str | None:
        """What the broker did not let this role do within the last minute, if anything."""
        if time.monotonic() - self._refused_at > _REMEMBERED_SECONDS:
            return None
        return self._refusal

    def refused(self, subject: str) -> str | None:
        """The broker's words, if it did not let this role use a subject within the last minute."""
        refusal = self.refusal
        return refusal if refusal and f'"{subject.lower()}"' in refusal else None

    async def _note(self, error: Exception) -> None:
        """Tell of an error that nobody else is told of."""
        said = str(error).lower()
        if _FORBIDDEN in said:
            self._refusal = f"{self._user} is refused: {said.removeprefix('nats: ')}"
            self._refused_at = time.monotonic()
            BROKER_REFUSALS.labels(what="subject").inc()
            log.error("broker_refuses", error=self._refusal)
        elif any(words in said for words in _TURNED_AWAY):
            BROKER_REFUSALS.labels(what="connection").inc()
            self._turn_away(f"user {self._user} or its password is refused")
        elif isinstance(error, ssl.SSLCertVerificationError):
            self._turn_away(f"the server's certificate does not hold: {error.verify_message}")
        elif isinstance(error, ssl.SSLError) and error.reason == _TOO_LATE:
            log.debug("broker_error", error=repr(error))
        elif isinstance(error, ssl.SSLError):
            self._turn_away(f"the server does not speak TLS from the first byte: {error.reason}")
        elif isinstance(error, TimeoutError) and not self._broker.encrypted:
            self._turned_away = "no answer; a server that wants tls:// gives none"
            log.warning("broker_error", error=self._turned_away)
        else:
            log.warning("broker_error", error=repr(error))

    def _turn_away(self, reason: str) -> None:
        self._turned_away = reason
        log.error("broker_refuses", error=reason)
        if not self._patient:
            raise ServiceUnavailableError(f"broker {self._broker.nats_url}: {reason}")

    @property
    def _user(self) -> str:
        return self._broker.nats_user or "nobody"

    async def _process_err(self, err_msg: str) -> None:
        """What the library does with an error that the server sends."""
        if _FORBIDDEN in err_msg or _STALE in err_msg:
            await super()._process_err(err_msg)
            return
        error = NatsError(f"nats: {err_msg}")
        await self._note(error)
        await self._process_op_err(error)


class _Encrypted(TcpTransport):
    """TLS from the first byte, so that nobody in between can say that a server needs none.

    The library's own way begins in the clear, believes a server without TLS, and waits for ever where a
    handshake fails.
    """

    def __init__(self, trusting: ssl.SSLContext) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the library's
        self._trusting = trusting

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        """Connect, with the handshake."""
        opening = asyncio.open_connection(uri.hostname, uri.port, limit=buffer_size, ssl=self._trusting)
        self._io_reader, self._io_writer = await asyncio.wait_for(opening, connect_timeout)

    async def connect_tls(self, *_: object) -> None:
        """The library asks for it once the server has spoken: it is done."""

    def __bool__(self) -> bool:
        # The library makes one of its own in the place of one that is not connected.
        return True


def _trusting(broker: BrokerSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=broker.nats_ca_file)
    except OSError as error:  # what is wrong with its contents is one too
        raise ConfigurationError(f"settings: DARKROOM_NATS_CA_FILE: {error}") from error
