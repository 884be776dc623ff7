"""The local mail server: takes every letter and keeps it in a Maildir."""

import mailbox
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class MaildirHandler:
    """Stores letters; each is on the disk before the sender hears that it was taken."""

    def __init__(self, folder: Path) -> None:
        self._maildir = mailbox.Maildir(folder, create=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802, ARG002 - aiosmtpd's hook
        """Keep a letter."""
        content = envelope.content or b""
        self._maildir.add(content.encode() if isinstance(content, str) else content)
        return "250 kept"
