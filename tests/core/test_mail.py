"""Speaking SMTP: to real servers, over TLS and not, that take letters, refuse them, hang or break off."""

import asyncio
import email
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trustme

from core.errors import ConfigurationError
from core.mail import (
    LETTERS_PER_CONNECTION,
    LetterPostponedError,
    LetterRefusedError,
    LetterTooLargeError,
    Mailer,
    MailServerUnavailableError,
    deliverable,
)
from core.settings import MailSettings
from tests.mail_servers import (
    DROP,
    HANG,
    USER,
    always,
    authenticate,
    mail_server,
    signed_in,
)


def letter(to: str = "ada@example.com", *, text: str = "Good morning.", **headers: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Darkroom <pictures@darkroom.local>"
    message["To"] = to
    message["Message-ID"] = "<11111111-2222-3333-4444-555555555555@darkroom>"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def kept(mailbox: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((mailbox / "new").iterdir())]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def context_for(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_letters_that_follow_one_another_share_a_connection(mailbox: Path) -> None:
    async with mail_server(mailbox) as (receiver, settings):
        mailer = Mailer(settings)
        for number in range(5):
            await mailer.send(letter(f"a{number}@example.com"))
        assert receiver.connections == 1
        await asyncio.gather(*(mailer.send(letter(f"b{number}@example.com")) for number in range(3)))
        assert receiver.connections == 3
        await asyncio.gather(*(mailer.send(letter(f"c{number}@example.com")) for number in range(3)))
        assert receiver.connections == 3
        assert len(kept(mailbox)) == 11
        await mailer.close_idle(after=60)
        assert receiver.quits == 0
        await mailer.close_idle(after=0)
        assert receiver.quits == 3
        await mailer.send(letter())
        assert receiver.connections == 4


async def test_a_connection_ends_after_so_many_letters(mailbox: Path) -> None:
    async with mail_server(mailbox, at_rcpt=always("550 no")) as (receiver, settings):
        mailer = Mailer(settings)
        for _ in range(LETTERS_PER_CONNECTION + 1):
            with pytest.raises(LetterRefusedError):
                await mailer.send(letter())
        assert (receiver.connections, receiver.quits) == (2, 1)


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced(mailbox: Path) -> None:
    async with mail_server(mailbox) as (receiver, settings):
        mailer = Mailer(settings)
        await mailer.send(letter())
        receiver.transports[0].abort()
        await mailer.send(letter())
        assert receiver.connections == 2
        assert len(kept(mailbox)) == 2


async def test_a_connection_that_stopped_answering_is_replaced(
    mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.mail._NUDGE_SECONDS", 0.1)
    async with mail_server(mailbox) as (receiver, settings):
        mailer = Mailer(settings)
        await mailer.send(letter())
        receiver.transports[0].pause_reading()
        await mailer.send(letter())
        assert receiver.connections == 2
        assert len(kept(mailbox)) == 2


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_letters_travel_encrypted_under_a_certificate_that_holds(
    mailbox: Path, authority: trustme.CA, ca_file: Path, security: str
) -> None:
    tls = context_for(authority, "127.0.0.1")
    async with mail_server(mailbox, security=security, tls=tls) as (receiver, settings):
        mailer = Mailer(settings.model_copy(update={"smtp_ca_file": ca_file}))
        await mailer.send(letter())
        await mailer.send(letter())
        assert receiver.encrypted == [True, True]
        await mailer.close_idle(after=0)


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize(("name", "known"), [("127.0.0.1", False), ("elsewhere.example", True)])
async def test_a_certificate_of_an_unknown_authority_or_another_name_gets_no_letter(
    mailbox: Path, authority: trustme.CA, ca_file: Path, security: str, name: str, *, known: bool
) -> None:
    tls = context_for(authority, name)
    async with mail_server(mailbox, security=security, tls=tls) as (receiver, settings):
        trusted = {"smtp_ca_file": ca_file if known else None}
        with pytest.raises(MailServerUnavailableError, match="certificate"):
            await Mailer(settings.model_copy(update=trusted)).send(letter())
        assert receiver.senders == []


async def test_nothing_is_sent_in_the_clear_to_a_server_without_starttls(mailbox: Path) -> None:
    async with mail_server(mailbox, security="starttls", offers_tls=False) as (receiver, settings):
        with pytest.raises(MailServerUnavailableError, match="STARTTLS"):
            await Mailer(settings).send(letter())
        assert receiver.senders == []


def test_an_authority_file_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path in (tmp_path / "missing.pem", empty):
        with pytest.raises(ConfigurationError, match="DARKROOM_SMTP_CA_FILE"):
            Mailer(MailSettings(smtp_ca_file=path))


async def test_a_name_and_a_password_open_the_server_and_a_wrong_password_condemns_no_letter(
    mailbox: Path, authority: trustme.CA, ca_file: Path
) -> None:
    tls = context_for(authority, "127.0.0.1")
    async with mail_server(
        mailbox, security="starttls", tls=tls, authenticator=authenticate, auth_required=True
    ) as (receiver, open_settings):
        settings = open_settings.model_copy(update={"smtp_ca_file": ca_file})
        for wrong in (settings, signed_in(settings, password="wrong")):
            with pytest.raises(MailServerUnavailableError, match=r"53[05]"):
                await Mailer(wrong).send(letter())
        assert receiver.offered == []
        await Mailer(signed_in(settings)).send(letter())
        assert receiver.names == [USER]


@pytest.mark.parametrize(
    ("stage", "answer", "error"),
    [
        ("mail", "451 4.3.0 try again", MailServerUnavailableError),
        ("mail", "550 5.7.1 you may not send", MailServerUnavailableError),
        ("mail", "530 5.7.0 sign in first", MailServerUnavailableError),
        ("mail", "552 5.3.4 too big", LetterTooLargeError),
        ("rcpt", "450 4.2.1 mailbox busy", LetterPostponedError),
        ("rcpt", "550 5.1.1 no such user", LetterRefusedError),
        ("rcpt", HANG, LetterPostponedError),
        ("rcpt", DROP, LetterPostponedError),
        ("data", "421 4.3.2 going away", LetterPostponedError),
        ("data", "452 4.3.1 disk full", LetterPostponedError),
        ("data", "554 5.6.0 we do not want this", LetterRefusedError),
        ("data", "554 5.2.3 longer than this mailbox takes", LetterTooLargeError),
        ("data", "552 too big", LetterTooLargeError),
        ("data", HANG, LetterPostponedError),
        ("data", DROP, LetterPostponedError),
    ],
)
async def test_what_a_server_says_is_about_the_letter_the_address_or_the_server(
    mailbox: Path, stage: str, answer: str, error: type[Exception]
) -> None:
    async def once(number: int, recipient: str) -> str | None:
        return answer if number == 1 else None

    answers: dict[str, Any] = {f"at_{stage}": once}
    async with mail_server(mailbox, **answers) as (_, settings):
        mailer = Mailer(
            settings.model_copy(update={"smtp_timeout_seconds": 0.3, "smtp_acceptance_seconds": 0.3})
        )
        with pytest.raises(error) as raised:
            await mailer.send(letter())
        assert type(raised.value) is error
        said = {HANG: "did not answer in time", DROP: "broke the connection off"}.get(answer, answer)
        assert said in str(raised.value)
        # Whatever it was, the next letter goes its way.
        await mailer.send(letter())
        assert len(kept(mailbox)) == 1


async def test_the_answer_to_a_whole_letter_may_take_longer_than_the_others(mailbox: Path) -> None:
    async def thinks(number: int, recipient: str) -> str | None:
        await asyncio.sleep(0.6)
        return None

    async with mail_server(mailbox, at_data=thinks) as (_, settings):
        await Mailer(settings.model_copy(update={"smtp_timeout_seconds": 0.3})).send(letter())
        assert len(kept(mailbox)) == 1


async def test_a_server_that_takes_connections_and_never_speaks_is_unavailable_in_time() -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server:
        settings = MailSettings(
            smtp_host="127.0.0.1", smtp_port=server.sockets[0].getsockname()[1], smtp_timeout_seconds=0.3
        )
        started = monotonic()
        with pytest.raises(MailServerUnavailableError):
            await Mailer(settings).send(letter())
        assert monotonic() - started < 3


async def test_a_letter_beyond_the_announced_size_is_not_even_offered(mailbox: Path) -> None:
    async with mail_server(mailbox, data_size_limit=10_000) as (receiver, settings):
        mailer = Mailer(settings)
        with pytest.raises(LetterTooLargeError, match="takes 10000 at most"):
            await mailer.send(letter(text="many words " * 2000))
        assert receiver.senders == []
        await mailer.send(letter())
        assert receiver.connections == 1


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@Straße.example", "ada@xn--strae-oqa.example"),
        ("Ada@Example.com", "Ada@Example.com"),
        ("ada@darkroom.local", "ada@darkroom.local"),
    ],
)
async def test_a_domain_goes_in_its_ascii_form(mailbox: Path, typed: str, sent: str) -> None:
    async with mail_server(mailbox) as (receiver, settings):
        await Mailer(settings).send(letter(deliverable(typed)))
        assert receiver.recipients == [sent]


@pytest.mark.parametrize("supported", [True, False])
async def test_what_stands_before_the_at_goes_as_it_is_or_not_at_all(
    mailbox: Path, *, supported: bool
) -> None:
    async with mail_server(mailbox, enable_SMTPUTF8=supported) as (receiver, settings):
        sending = Mailer(settings).send(letter("jörg@example.com"))
        if supported:
            await sending
            assert receiver.recipients == ["jörg@example.com"]
            assert "To: jörg@example.com".encode() in kept(mailbox)[0]
        else:
            with pytest.raises(LetterRefusedError, match="SMTPUTF8"):
                await sending


async def test_a_long_link_in_a_header_arrives_as_it_is(mailbox: Path) -> None:
    link = f"<https://darkroom.example/unsubscribe?token={'0' * 96}>"
    async with mail_server(mailbox) as (_, settings):
        await Mailer(settings).send(letter(List_Unsubscribe=link, text="A fairly long line. " * 100))
    [raw] = kept(mailbox)
    assert f"List-Unsubscribe: {link}\n".encode() in raw
    body = raw.partition(b"\n\n")[2]
    assert max(map(len, body.splitlines())) <= 78
    assert email.message_from_bytes(raw)["List-Unsubscribe"] == link


async def test_a_conversation_that_was_canceled_is_not_gone_on_with(mailbox: Path) -> None:
    arrived = asyncio.Event()

    async def hangs_once(number: int, recipient: str) -> str | None:
        arrived.set()
        return HANG if number == 1 else None

    async with mail_server(mailbox, at_rcpt=hangs_once) as (receiver, settings):
        mailer = Mailer(settings)
        sending = asyncio.create_task(mailer.send(letter("first@example.com")))
        await arrived.wait()
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await mailer.send(letter("second@example.com"))
        assert receiver.connections == 2
        assert receiver.offered == ["second@example.com"]
