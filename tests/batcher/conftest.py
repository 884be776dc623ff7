"""What the tests of the batch tier have in common: pictures in the store, and a postman with a mailbox."""

import email
import mailbox as mailboxes
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from batcher.letters.contents import Author
from batcher.letters.pictures import Album
from batcher.letters.postman import Postman
from batcher.letters.rendering import Renderer
from core.accounts.reminders import Reminders
from core.clock import now
from core.lifecycle import GenerationState
from core.mail import Mailer
from core.messages import StoredImage
from core.models import Generation
from core.queue import Queue
from core.recording import Recorder
from core.settings import LinkSettings, MailSettings
from core.storage import DownloadLinks, Storage
from tests.mail_servers import Answer, Receiver, mail_server, yes

PUBLIC_URL = "https://darkroom.example"

ServeMail = Callable[..., Awaitable[tuple[Receiver, MailSettings]]]


def png(*, width: int, height: int, seed: int) -> bytes:
    """A picture whose every pixel differs with the seed, so that it does not shrink to nothing."""
    stripe = bytes((seed * 31 + index * index) % 256 for index in range(width * 3))
    encoded = BytesIO()
    PIL.Image.frombytes("RGB", (width, height), stripe * height).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture
def succeed(queue: Queue, storage: Storage) -> Callable[[Generation], Awaitable[None]]:
    """Stores the pictures of a generation and records its success, as a worker and a recorder would."""

    async def finish(generation: Generation) -> None:
        images = []
        for index in range(generation.count):
            seed = generation.seed + index
            data = png(width=generation.width, height=generation.height, seed=seed)
            key = f"generations/{generation.id}/1/{index}.png"
            await storage.put(key, data, content_type="image/png")
            images.append(
                StoredImage(
                    key=key,
                    width=generation.width,
                    height=generation.height,
                    seed=seed,
                    content_type="image/png",
                    byte_size=len(data),
                    sha256=sha256(data).hexdigest(),
                )
            )
        recorder = Recorder(queue=queue)
        assert await recorder.finish(generation.id, GenerationState.SUCCEEDED, at=now(), images=images)

    return finish


@pytest.fixture
def fail(queue: Queue) -> Callable[..., Awaitable[None]]:
    """Records that a generation ended without pictures."""

    async def finish(
        generation: Generation, reason: str | None, state: GenerationState = GenerationState.FAILED
    ) -> None:
        recorder = Recorder(queue=queue)
        assert await recorder.finish(generation.id, state, at=now(), error=reason)

    return finish


@pytest.fixture
def new_postman(
    storage: Storage, link_settings: LinkSettings, mail_settings: MailSettings
) -> Callable[..., Postman]:
    """Makes a postman whose letters go to the test's mail server, unless another is named."""

    def make(*, mail: MailSettings = mail_settings, attachments_limit: int = 2**20) -> Postman:
        links = link_settings.model_copy(
            update={"public_url": PUBLIC_URL, "download_lifetime_seconds": 7 * 24 * 3600}
        )
        album = Album(
            storage=storage,
            links=DownloadLinks(links),
            link_lifetime=timedelta(days=7),
            attachments_limit=attachments_limit,
        )
        mailer = Mailer(mail)
        return Postman(
            author=Author(album=album, reminders=Reminders(links), public_url=PUBLIC_URL),
            renderer=Renderer(sender=mailer.sender, public_url=PUBLIC_URL),
            mailer=mailer,
        )

    return make


@pytest.fixture
def delivered(mailbox: Path) -> Callable[[], list[EmailMessage]]:
    """Reads the letters that the mail server has kept, parsed as a mail reader would."""

    def read() -> list[EmailMessage]:
        if not mailbox.exists():
            return []
        folder = mailboxes.Maildir(mailbox, create=False)
        letters = []
        for key in sorted(folder.keys()):
            letter = email.message_from_bytes(folder.get_bytes(key), policy=default)
            assert isinstance(letter, EmailMessage)
            assert not letter.defects
            letters.append(letter)
        return letters

    return read


@pytest.fixture
async def serve_mail(mailbox: Path) -> AsyncIterator[ServeMail]:
    """Starts mail servers that answer as the test says, until it ends."""
    async with AsyncExitStack() as servers:

        async def start(at_data: Answer = yes, **answers: Any) -> tuple[Receiver, MailSettings]:
            return await servers.enter_async_context(mail_server(mailbox, at_data=at_data, **answers))

        yield start
