"""Handing letters to the mail server."""

from email.message import EmailMessage

import aiosmtplib

from core.errors import DarkroomError, ServiceUnavailableError
from core.settings import MailSettings

_PERMANENT = 500


class LetterRefusedError(DarkroomError):
    """The mail server refused a letter for good (5xx)."""


class Mailer:
    """Sends one letter at a time over a connection of its own."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    @property
    def sender(self) -> str:
        """What stands in ``From``."""
        return self._settings.mail_from

    async def send(self, letter: EmailMessage) -> None:
        """Hand a letter over; it has been accepted when this returns.

        Raises:
            LetterRefusedError: a 5xx answer: the same letter will never be accepted.
            ServiceUnavailableError: no connection, a 4xx answer or none in time.
        """
        settings = self._settings
        try:
            await aiosmtplib.send(
                letter,
                hostname=settings.smtp_host,
                port=settings.smtp_port,
                username=settings.smtp_user,
                password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
                use_tls=settings.smtp_security == "tls",
                start_tls=settings.smtp_security == "starttls",
                timeout=settings.smtp_timeout_seconds,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusals = error.recipients
            reason = "; ".join(f"{refusal.code} {refusal.message}" for refusal in refusals)
            if all(refusal.code >= _PERMANENT for refusal in refusals):
                raise LetterRefusedError(reason) from error
            raise ServiceUnavailableError(f"mail server: {reason}") from error
        except aiosmtplib.SMTPResponseException as error:
            if error.code >= _PERMANENT:
                raise LetterRefusedError(f"{error.code} {error.message}") from error
            raise ServiceUnavailableError(f"mail server: {error.code} {error.message}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise ServiceUnavailableError(f"mail server: {error!r}") from error
