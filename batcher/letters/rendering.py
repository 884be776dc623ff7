"""From what a letter says to the message that the mail server takes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from batcher.letters.contents import Contents
from batcher.letters.pictures import Picture
from core.mail import deliverable
from core.models import Letter

_TEMPLATES: Final = Path(__file__).with_name("templates")


class Renderer:
    """Makes messages from templates: plain text, and HTML that needs nothing from outside the letter."""

    def __init__(self, *, sender: str, public_url: str) -> None:
        """Make a renderer.

        Args:
            sender: what stands in ``From``.
            public_url: where the service is seen from outside.
        """
        self._sender = sender
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            # What customers wrote is shown as text, never read as markup.
            autoescape=select_autoescape(enabled_extensions=("html.j2",)),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["moment"] = _moment
        self._environment.globals["public_url"] = public_url.rstrip("/")

    def render(self, letter: Letter, contents: Contents, *, at: datetime) -> EmailMessage:
        """The whole message of a claimed letter. With pictures it takes a while: not for the event loop.

        The parts are ``mixed(alternative(text, related(HTML, thumbnails)), attachments)``; levels that would
        have one child are left out.

        Args:
            letter: with its account.
            contents: what it says.
            at: what stands in ``Date``.

        Raises:
            jinja2.TemplateError: template and contents do not fit.
        """
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = deliverable(letter.address or "")
        message["Subject"] = contents.subject
        message["Date"] = format_datetime(at)
        message["Message-ID"] = letter.message_id
        message["Auto-Submitted"] = "auto-generated"
        message["X-Darkroom-Letter"] = letter.kind.value
        if contents.unsubscribe is not None:
            message["List-Unsubscribe"] = f"<{contents.unsubscribe}>"
            if contents.unsubscribe.startswith("https:"):  # RFC 8058 knows no other
                message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(self._fill(letter, contents, "txt"), cte="quoted-printable")
        message.add_alternative(self._fill(letter, contents, "html"), subtype="html", cte="quoted-printable")
        _attach(message, contents.pictures)
        return message

    def _fill(self, letter: Letter, contents: Contents, ending: str) -> str:
        template = self._environment.get_template(f"{letter.kind.value}.{ending}.j2")
        return template.render(subject=contents.subject, email=letter.address, **contents.values)


def _attach(message: EmailMessage, pictures: Sequence[Picture]) -> None:
    html = message.get_body(("html",))
    assert isinstance(html, EmailMessage)  # noqa: S101 - added just before
    for picture in pictures:
        if picture.thumbnail is not None:
            html.add_related(
                picture.thumbnail.data,
                maintype="image",
                subtype="jpeg",
                cid=f"<{picture.content_id}>",
                disposition="inline",
                filename=f"{Path(picture.name).stem}-small.jpg",
            )
    for picture in pictures:
        if picture.attachment is not None:
            maintype, subtype = picture.content_type.split("/")
            message.add_attachment(
                picture.attachment, maintype=maintype, subtype=subtype, filename=picture.name
            )


def _moment(moment: datetime) -> str:
    """Such as ``3 November 2026, 14:30 UTC``."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"
