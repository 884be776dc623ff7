"""The local mail server: takes every letter for anybody and keeps it in a Maildir.

``python -m infra.local.mail_server PORT MAILDIR`` serves it on 127.0.0.1 until SIGTERM.
"""

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_LETTER_BYTES: Final = 32 * 2**20
"""Announced to senders, and kept to."""

_COUNTER = itertools.count()


class MaildirHandler:
    """Stores letters; each is on the disk before the sender hears that it was taken.

    Args:
        folder: the Maildir, made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802, ARG002 - aiosmtpd's hook
        """Keep a letter, under a heading that names the envelope as delivery agents do."""
        content = envelope.content or b""
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogateescape")
        heading = [f"Return-Path: <{envelope.mail_from or ''}>"]
        heading += [f"Delivered-To: {recipient}" for recipient in envelope.rcpt_tos]
        letter = "".join(f"{line}\n" for line in heading).encode() + content.replace(b"\r\n", b"\n")
        await asyncio.to_thread(_store, self._folder, letter)
        return "250 Kept"


def _store(folder: Path, letter: bytes) -> None:
    """Write to ``tmp``, move to ``new``: whoever lists ``new`` sees whole letters only."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    unique = f"M{nanoseconds // 1000:06}P{os.getpid()}Q{next(_COUNTER)}"
    name = f"{seconds}.{unique}.{socket.gethostname().replace('/', '_').replace(':', '_')}"
    draft = folder / "tmp" / name
    with draft.open("xb") as file:
        file.write(letter)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / "new" / name)
    directory = os.open(folder / "new", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def serve(port: int, maildir: Path) -> None:
    """Serve until SIGTERM or SIGINT; letters being received then are finished or were never accepted."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    handler = MaildirHandler(maildir)
    server = await loop.create_server(
        lambda: SMTP(
            handler,
            hostname="darkroom.local",
            ident="Darkroom",
            data_size_limit=MAX_LETTER_BYTES,
            enable_SMTPUTF8=True,
            loop=loop,
        ),
        "127.0.0.1",
        port,
    )
    async with server:
        await stop.wait()
        # From Python 3.12 on leaving the block would wait for clients that stay connected.
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
