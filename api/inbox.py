"""``/inbox``: the letters of the one-machine stack, for whoever tries Darkroom out.

Letters are shown as strangers' documents: in a sandboxed frame under a policy that runs no script, loads
nothing from elsewhere, and lets a click on a link leave the frame.
"""

import mailbox
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as modern
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse

from api import assets

_MOST_LISTED: Final = 200
_PARSER: Final = BytesParser(policy=modern)
_PICTURES: Final = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; font-src 'self'; img-src 'self'; frame-src 'self';"
    " connect-src 'self'; script-src 'nonce-{nonce}'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'"
)
_LETTER_POLICY: Final = (
    "sandbox allow-top-navigation-by-user-activation; default-src 'none'; style-src 'unsafe-inline';"
    " img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
_PART_POLICY: Final = "sandbox; default-src 'none'"
_CID: Final = re.compile(r"""\bcid:([^"'\s<>)]+)""", re.IGNORECASE)
_HEAD: Final = re.compile(r"<head(\s[^>]*)?>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Heading:
    """What the list says of a letter. ``key`` is its name in the Maildir."""

    key: str
    to: str
    sender: str
    subject: str
    date: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a letter: ``number`` is its place among the letter's parts, ``size`` in bytes."""

    number: int
    name: str
    content_type: str
    size: int
    is_picture: bool


class Letter:
    """One letter, taken apart."""

    def __init__(self, key: str, message: EmailMessage) -> None:
        self.heading = _heading(key, message)
        self._parts = [part for part in message.walk() if isinstance(part, EmailMessage)]
        self._html = message.get_body(("html",))
        self._plain = message.get_body(("plain",))

    @property
    def text(self) -> str | None:
        """The plain text, if there is one."""
        return None if self._plain is None else str(self._plain.get_content(errors="replace"))

    @property
    def has_html(self) -> bool:
        """Whether there is a formatted version."""
        return self._html is not None

    @property
    def html(self) -> str | None:
        """The formatted version: its pictures come from here, and its links open in the whole window."""
        if self._html is None:
            return None
        page = _CID.sub(self._address, str(self._html.get_content(errors="replace")))
        target = '<base target="_top">'
        changed, found = _HEAD.subn(lambda head: head[0] + target, page, count=1)
        return changed if found else f"<!doctype html>{target}{page}"

    @property
    def attachments(self) -> list[Attachment]:
        """The files: every part that is neither a body nor a picture which the formatted version shows."""
        shown = set(_CID.findall(str(self._html.get_content(errors="replace")))) if self._html else set()
        return [
            Attachment(
                number=number,
                name=_file_name(number, part),
                content_type=part.get_content_type(),
                size=len(part.get_payload(decode=True) or b""),
                is_picture=part.get_content_type() in _PICTURES,
            )
            for number, part in enumerate(self._parts)
            if not part.is_multipart()
            and part not in (self._html, self._plain)
            and (part.is_attachment() or _content_id(part) not in shown)
        ]

    def part(self, number: int) -> EmailMessage | None:
        """A part that is not made of parts, by its place."""
        if number >= len(self._parts) or self._parts[number].is_multipart():
            return None
        return self._parts[number]

    def _address(self, reference: re.Match[str]) -> str:
        for number, part in enumerate(self._parts):
            if _content_id(part) == reference[1]:
                return f"/inbox/{quote(self.heading.key)}/part/{number}"
        return reference[0]


def inbox_router(maildir: Path) -> APIRouter:
    """The pages over a Maildir, which is only read and may be missing."""
    router = APIRouter(prefix="/inbox", include_in_schema=False, default_response_class=HTMLResponse)
    templates = assets.templates()

    def page(request: Request, name: str, **values: object) -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = _headers(_PAGE_POLICY.format(nonce=nonce))
        return templates.TemplateResponse(request, name, {**values, "nonce": nonce}, headers=headers)

    @router.get("")
    def show_list(request: Request) -> HTMLResponse:
        return page(request, "inbox/list.html", letters=_list(maildir))

    @router.get("/{key}")
    def show_letter(request: Request, key: str) -> HTMLResponse:
        return page(request, "inbox/letter.html", letter=_open(maildir, key))

    @router.get("/{key}/html")
    def show_html(key: str) -> HTMLResponse:
        html = _open(maildir, key).html
        if html is None:
            raise HTTPException(404, "The letter has no formatted version.")
        return HTMLResponse(html, headers=_headers(_LETTER_POLICY))

    @router.get("/{key}/part/{number}")
    def show_part(key: str, number: int, *, download: Annotated[bool, Query()] = False) -> Response:
        part = _open(maildir, key).part(number) if number >= 0 else None
        if part is None:
            raise HTTPException(404, "The letter has no such part.")
        content_type = part.get_content_type()
        headers = _headers(_PART_POLICY)
        # Anything but a picture could be a document with a life of its own.
        if download or content_type not in _PICTURES:
            content_type = "application/octet-stream"
            name = quote(_file_name(number, part), safe="")
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        return Response(part.get_payload(decode=True), media_type=content_type, headers=headers)

    return router


def _list(maildir: Path) -> list[Heading]:
    """The newest letters first."""
    box = _box(maildir)
    if box is None:
        return []
    headings = []
    # A key begins with the second of its delivery.
    for key in sorted(box.keys(), key=_delivered, reverse=True)[:_MOST_LISTED]:
        with box.get_file(key) as file:
            # Up to the empty line: what follows may be megabytes of pictures.
            head: Iterator[bytes] = takewhile(bytes.strip, file)
            headings.append(_heading(key, _PARSER.parsebytes(b"".join(head))))
    return headings


def _open(maildir: Path, key: str) -> Letter:
    """One letter. A key is looked up among the names in the folder; it never becomes a path itself."""
    box = _box(maildir)
    if box is None or key not in box.keys():  # noqa: SIM118 - a mailbox's own `in` parses the letter
        raise HTTPException(404, "There is no such letter.")
    return Letter(key, _PARSER.parsebytes(box.get_bytes(key)))


def _box(maildir: Path) -> "mailbox.Maildir | None":
    try:
        return mailbox.Maildir(maildir, create=False)
    except mailbox.NoSuchMailboxError:
        return None


def _delivered(key: str) -> tuple[int, str]:
    seconds = key.split(".", 1)[0]
    return (int(seconds) if seconds.isdecimal() else 0, key)


def _heading(key: str, message: EmailMessage) -> Heading:
    seconds, _ = _delivered(key)
    return Heading(
        key=key,
        to=str(message.get("to", "")),
        sender=str(message.get("from", "")),
        subject=str(message.get("subject", "")) or "(no subject)",
        date=datetime.fromtimestamp(seconds).astimezone().strftime("%d %B %Y, %H:%M:%S"),
    )


def _content_id(part: EmailMessage) -> str:
    return str(part.get("content-id", "")).strip().strip("<>")


def _file_name(number: int, part: EmailMessage) -> str:
    name = part.get_filename()
    return name or f"part-{number}.{part.get_content_subtype()}"


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        # A letter's links hold tokens, and so may the address from which they are followed.
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
