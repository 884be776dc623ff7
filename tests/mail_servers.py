"""Mail servers that do to letters what a test says: refuse them, hang, break off, ask for TLS or a name."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import SecretStr

from core.settings import MailSettings
from infra.local.mail_server import MaildirHandler

HANG = "hang"
"""Never answers."""

DROP = "drop"
"""Breaks the connection off instead of answering."""

USER, PASSWORD = "darkroom", "correct horse"

Answer = Callable[[int, str], Awaitable[str | None]]
"""What is said to the n-th letter, from 1, for a recipient; none is yes."""


async def yes(number: int, recipient: str) -> str | None:
    """Take everything."""


def always(answer: str) -> Answer:
    """The same to everybody."""

    async def say(number: int, recipient: str) -> str | None:
        return answer

    return say


class Receiver(MaildirHandler):
    """Keeps what the test lets through, and remembers what came.

    Attributes:
        quits: how many connections ended with a goodbye.
        senders: what stood in MAIL, one for each letter.
        recipients: what stood in RCPT, one for each letter.
        offered: for whom letters came as a whole.
        encrypted: whether they came over TLS.
        names: who had signed in for them.
        transports: of the connections, the closed ones too.
    """

    def __init__(self, folder: Path, *, at_mail: Answer, at_rcpt: Answer, at_data: Answer) -> None:
        super().__init__(folder)
        self._answers = {"mail": at_mail, "rcpt": at_rcpt, "data": at_data}
        self.released = asyncio.Event()
        self.quits = 0
        self.senders: list[str] = []
        self.recipients: list[str] = []
        self.offered: list[str] = []
        self.encrypted: list[bool] = []
        self.names: list[object] = []
        self.transports: list[asyncio.Transport] = []

    @property
    def connections(self) -> int:
        """How many were opened."""
        return len(self.transports)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's hook
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.senders.append(address)
        said = await self._say("mail", server, len(self.senders), address)
        if said is None:
            envelope.mail_from = address
        return said or "250 OK"

    async def handle_RCPT(  # noqa: N802 - as above
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.recipients.append(address)
        said = await self._say("rcpt", server, len(self.recipients), address)
        if said is None:
            envelope.rcpt_tos.append(address)
        return said or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        [recipient] = envelope.rcpt_tos
        self.offered.append(recipient)
        self.encrypted.append(
            self.transports[-1].get_extra_info("sslcontext") is not None or bool(session.ssl)
        )
        self.names.append(session.auth_data)
        said = await self._say("data", server, len(self.offered), recipient)
        return said or await super().handle_DATA(server, session, envelope)

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802 - as above
        self.quits += 1
        return "221 Bye"

    async def _say(self, stage: str, server: SMTP, number: int, address: str) -> str | None:
        said = await self._answers[stage](number, address)
        if said == HANG:
            await self.released.wait()
        elif said == DROP:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return said if said not in {HANG, DROP} else "451 never mind"


class _Server(SMTP):
    """Tells its receiver of connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # After STARTTLS it is told of the same one again.
        if self.session is None:
            assert isinstance(transport, asyncio.Transport)
            self.event_handler.transports.append(transport)
        super().connection_made(transport)


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    """Let one name in."""
    good = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=good, auth_data=USER if good else None)


@asynccontextmanager
async def mail_server(
    folder: Path,
    *,
    at_mail: Answer = yes,
    at_rcpt: Answer = yes,
    at_data: Answer = yes,
    security: str = "none",
    offers_tls: bool = True,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Receiver, MailSettings]]:
    """A server until the block ends, and the settings to reach it. ``options`` are aiosmtpd's."""
    receiver = Receiver(folder, at_mail=at_mail, at_rcpt=at_rcpt, at_data=at_data)

    if security == "starttls" and offers_tls:
        options["tls_context"] = tls

    server = await asyncio.get_running_loop().create_server(
        lambda: _Server(receiver, hostname="tests", timeout=60, **options),
        "127.0.0.1",
        0,
        ssl=tls if security == "tls" else None,
    )
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            receiver,
            MailSettings(
                smtp_host="127.0.0.1", smtp_port=port, smtp_security=security, smtp_timeout_seconds=5
            ),
        )
    finally:
        receiver.released.set()
        server.close()
        for transport in receiver.transports:
            transport.abort()


def signed_in(settings: MailSettings, *, password: str = PASSWORD) -> MailSettings:
    """The settings with a name."""
    return settings.model_copy(update={"smtp_user": USER, "smtp_password": SecretStr(password)})
