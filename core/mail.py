"""Handing letters to the mail server, over connections that are kept open for the letters that follow."""

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final

import aiosmtplib
import idna

from core.errors import ConfigurationError, DarkroomError, ServiceUnavailableError
from core.settings import MailSettings
from core.telemetry import SMTP_CONNECTIONS

LETTERS_PER_CONNECTION: Final = 100
"""After so many a new connection is opened: servers bound it too, and tell so less politely."""

_PERMANENT: Final = 500
_GOING_AWAY: Final = 421
_TOO_LARGE: Final = 552
_ABOUT_SIZE: Final = ("5.2.3", "5.3.4")
_ABOUT_SIGNING_IN: Final = (530, 534, 535, 538)

_IDLE_SECONDS: Final = 20.0
_NUDGE_SECONDS: Final = 5.0
"""How long a connection that waited may take to show that it lives, or to say goodbye."""

_LONGEST_LINE: Final = 998
"""Of RFC 5322. A header that is folded earlier loses links: their one long word would be encoded."""

_LONGEST_REASON: Final = 500


class LetterRefusedError(DarkroomError):
    """The mail server refused a letter for good (5xx): it will never take it for this address."""


class LetterTooLargeError(LetterRefusedError):
    """The mail server takes no letter of this size; a smaller one to the same address may go."""


class LetterPostponedError(ServiceUnavailableError):
    """The mail server did not take a letter this time: a 4xx answer, none in time, or a lost connection."""


class MailServerUnavailableError(ServiceUnavailableError):
    """The mail server cannot be spoken to, or not by us; it says nothing about the letter."""


@dataclass(slots=True)
class _Connection:
    client: aiosmtplib.SMTP
    letters: int = 0
    used_at: float = 0.0


class Mailer:
    """Sends letters, each by itself; several may be under way, each over a connection of its own.

    How many there are is up to the caller: ``connections`` says how many the server was promised to see.
    """

    def __init__(self, settings: MailSettings) -> None:
        """Make a mailer; it connects with the first letter.

        Raises:
            ConfigurationError: the file with authorities cannot be read.
        """
        self._settings = settings
        self._idle: list[_Connection] = []
        self.connections = settings.smtp_connections
        try:
            self._tls = ssl.create_default_context(cafile=settings.smtp_ca_file)
        except OSError as error:  # what is wrong with its contents is one too
            raise ConfigurationError(f"settings: DARKROOM_SMTP_CA_FILE: {error}") from error

    @property
    def sender(self) -> str:
        """What stands in ``From``."""
        return self._settings.mail_from

    async def send(self, letter: EmailMessage) -> None:
        """Hand a letter over; it has been accepted when this returns.

        Raises:
            LetterRefusedError: a 5xx answer: the same letter will never be accepted.
            LetterPostponedError: a 4xx answer, or none in time.
            MailServerUnavailableError: no connection, a certificate that does not hold, a wrong password, a
                sender that may not send.
        """
        recipient = _address(letter["To"])
        policy = SMTP.clone(max_line_length=_LONGEST_LINE, utf8=not recipient.isascii())
        data = await asyncio.to_thread(letter.as_bytes, policy=policy)
        connection = await self._connection()
        try:
            await self._transfer(connection.client, _address(letter["From"]), recipient, data)
        except aiosmtplib.SMTPResponseException as error:
            if error.code == _GOING_AWAY:
                connection.client.close()
            self._keep(connection)
            raise _translated(error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            connection.client.close()
            raise LetterPostponedError(f"mail server: {_reason(error)}") from error
        except LetterRefusedError:
            self._keep(connection)
            raise
        except BaseException:
            # Canceled in the middle of a conversation, which nobody can go on with.
            connection.client.close()
            raise
        self._keep(connection)

    async def close_idle(self, *, after: float = _IDLE_SECONDS) -> None:
        """Say goodbye on connections that nobody has needed for so many seconds."""
        before = time.monotonic() - after
        over = [connection for connection in self._idle if connection.used_at <= before]
        self._idle = [connection for connection in self._idle if connection.used_at > before]
        await asyncio.gather(*(_say_goodbye(connection.client) for connection in over))

    async def _transfer(self, client: aiosmtplib.SMTP, sender: str, recipient: str, data: bytes) -> None:
        options = []
        limit = client.esmtp_extensions.get("size", "")
        if client.supports_extension("size"):
            if limit.isdecimal() and 0 < int(limit) < len(data):
                raise LetterTooLargeError(f"{len(data)} bytes, and the mail server takes {limit} at most")
            options.append(f"SIZE={len(data)}")
        encoding = "ascii"
        if not recipient.isascii():
            if not client.supports_extension("smtputf8"):
                raise LetterRefusedError("the mail server takes ASCII before the @ alone (no SMTPUTF8)")
            options.append("SMTPUTF8")
            encoding = "utf-8"
        await client.mail(sender, options=options, encoding=encoding)
        await client.rcpt(recipient, encoding=encoding)
        await client.data(data, timeout=self._settings.smtp_acceptance_seconds)

    async def _connection(self) -> _Connection:
        """A connection that waited and still lives, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.letters >= LETTERS_PER_CONNECTION:
                await _say_goodbye(connection.client)
                continue
            try:
                await connection.client.rset(timeout=_NUDGE_SECONDS)
            except (aiosmtplib.SMTPException, OSError):
                connection.client.close()
            else:
                return connection
        return await self._open()

    async def _open(self) -> _Connection:
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user,
            password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            tls_context=self._tls,
            timeout=settings.smtp_timeout_seconds,
        )
        try:
            await client.connect()
            # Without a name and STARTTLS nothing has asked yet what the server can do.
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except (aiosmtplib.SMTPException, OSError) as error:
            client.close()
            SMTP_CONNECTIONS.labels(outcome="failed").inc()
            raise MailServerUnavailableError(f"mail server: {_reason(error)}") from error
        except BaseException:
            client.close()
            raise
        SMTP_CONNECTIONS.labels(outcome="opened").inc()
        return _Connection(client)

    def _keep(self, connection: _Connection) -> None:
        connection.letters += 1
        connection.used_at = time.monotonic()
        if connection.client.is_connected:
            self._idle.append(connection)


def deliverable(address: str) -> str:
    """An address as mail servers know it: a domain of other letters than ASCII in its ASCII form."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError:
        return address


def _address(header: AddressHeader) -> str:
    [address] = header.addresses
    return address.addr_spec


async def _say_goodbye(client: aiosmtplib.SMTP) -> None:
    with suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=_NUDGE_SECONDS)
    client.close()


def _translated(error: aiosmtplib.SMTPResponseException) -> DarkroomError:
    """What an answer to MAIL, RCPT or DATA means."""
    reason = _reason(error)
    if error.code in _ABOUT_SIGNING_IN:
        return MailServerUnavailableError(f"mail server: {reason}")
    if error.code == _TOO_LARGE or error.message.startswith(_ABOUT_SIZE):
        return LetterTooLargeError(reason)
    if isinstance(error, aiosmtplib.SMTPSenderRefused):
        return MailServerUnavailableError(f"mail server: sender refused: {reason}")
    if error.code >= _PERMANENT:
        return LetterRefusedError(reason)
    return LetterPostponedError(f"mail server: {reason}")


def _reason(error: Exception) -> str:
    """An answer or its absence in words that a row, a log and a customer can take."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        words = " ".join(f"{error.code} {error.message}".split())[:_LONGEST_REASON]
        return "".join(character if character.isprintable() else "?" for character in words)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiosmtplib.SMTPServerDisconnected):
        return "it broke the connection off"
    return repr(error)
