"""What customers read: written from a real database, sent over real SMTP, and read back from the mailbox."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import PIL.Image
import pytest

from batcher.letters.contents import Contents, Entry
from batcher.letters.pictures import Picture, Thumbnail
from batcher.letters.postman import Postman
from batcher.letters.rendering import Renderer
from core.accounts.reminders import Reminders
from core.accounts.tokens import hash_secret
from core.clock import now
from core.lifecycle import Delivery, GenerationState, ImageFormat, Tier
from core.models import Account, EmailToken, Generation, Letter, LetterKind, LetterState, TokenPurpose
from core.outbox import write_letter
from core.repository import accounts, letters, windows
from core.repository.database import in_transaction
from core.settings import DatabaseSettings, LinkSettings
from core.storage import DownloadLinks, Storage
from tests.docs.blocks import REPOSITORY

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]
Succeed = Callable[[Generation], Awaitable[None]]
Fail = Callable[..., Awaitable[None]]
Delivered = Callable[[], list[EmailMessage]]


async def put_in_window(*generations: Generation) -> None:
    async with in_transaction():
        window = await windows.open_window(tick_at=now(), deadline=now() + timedelta(minutes=30))
        await windows.assign(window, [generation.id for generation in generations])


async def send_all(postman: Postman) -> None:
    claimed = await letters.claim(now=now(), lease=timedelta(minutes=2), limit=50)
    for letter in claimed:
        await postman.deliver(letter)


def text_of(letter: EmailMessage) -> str:
    body = letter.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def html_of(letter: EmailMessage) -> str:
    body = letter.get_body(("html",))
    assert body is not None
    return str(body.get_content())


class _Words(HTMLParser):
    """The words of a page, and the tags that it is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def parts_of(letter: EmailMessage) -> list[EmailMessage]:
    return [part for part in letter.walk() if isinstance(part, EmailMessage)]


@pytest.fixture
def postman(new_postman: Callable[..., Postman]) -> Postman:
    return new_postman()


async def test_a_window_ends_in_one_letter_with_every_picture_and_every_reason(
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    fail: Fail,
    postman: Postman,
    delivered: Delivered,
) -> None:
    account, stranger = await new_account("Ada@Example.com"), await new_account()
    first = await new_generation(account, prompt="a lighthouse", width=72, height=64, seed=42, count=2)
    second = await new_generation(account, prompt="a greenhouse", negative_prompt="snow", guidance_scale=7.5)
    failed = await new_generation(account, prompt="an orrery")
    canceled = await new_generation(account, prompt="never mind this")
    other = await new_generation(stranger, prompt="somebody else's picture")
    await put_in_window(first, second, failed, canceled, other)
    await succeed(other)
    await succeed(second)
    await fail(failed, "The attic was locked.")
    await fail(canceled, None, GenerationState.CANCELED)
    await succeed(first)

    await send_all(postman)

    [letter] = [letter for letter in delivered() if letter["To"] == "Ada@Example.com"]
    assert letter["Subject"] == "Your 3 pictures are ready"
    assert letter["From"] == "Darkroom <pictures@darkroom.local>"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["X-Darkroom-Letter"] == "window_finished"
    row = await Letter.get(account_id=account.id)
    assert letter["Message-ID"] == row.message_id
    assert abs(letter["Date"].datetime - now()) < timedelta(minutes=1)
    text, page = text_of(letter), _Words(html_of(letter)).words
    for words in (text, page):
        order = [words.index(prompt) for prompt in ("a lighthouse", "a greenhouse", "an orrery")]
        assert order == sorted(order)
        assert "The attic was locked." in words
        assert "Without: snow" in words
        assert "One request could not be fulfilled" in words
        assert "never mind this" not in words
        assert "somebody else" not in words
        for parameter in ("Model", "darkroom-demo", "Steps", "20", "Guidance", "7.5", "DDIM", "42", "43"):
            assert parameter in words


async def test_the_parts_of_a_letter_are_nested_as_mail_readers_expect(
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    postman: Postman,
    delivered: Delivered,
) -> None:
    account = await new_account()
    generation = await new_generation(account, width=1032, height=640, count=2)
    await put_in_window(generation)
    await succeed(generation)

    await send_all(postman)

    [letter] = delivered()
    assert [part.get_content_type() for part in parts_of(letter)] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/jpeg",
        "image/jpeg",
        "image/png",
        "image/png",
    ]
    attachments = [part for part in letter.iter_attachments() if part.get_content_type() == "image/png"]
    short_id = generation.id.hex[:8]
    assert [part.get_filename() for part in attachments] == [f"darkroom-{short_id}-{n}.png" for n in (1, 2)]
    for part in attachments:
        with PIL.Image.open(BytesIO(part.get_content())) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("PNG", (1032, 640))
    assert attachments[0].get_content() != attachments[1].get_content()
    thumbnails = [part for part in parts_of(letter) if part.get_content_type() == "image/jpeg"]
    for part in thumbnails:
        assert part.get_content_disposition() == "inline"
        with PIL.Image.open(BytesIO(part.get_content())) as picture:
            assert picture.size == (516, 320)
    shown = re.findall(r'src="cid:([^"]+)"', html_of(letter))
    assert [f"<{content_id}>" for content_id in shown] == [part["Content-ID"] for part in thumbnails]
    assert len(set(shown)) == 2


async def test_a_letter_needs_nothing_from_outside_itself(
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    postman: Postman,
    delivered: Delivered,
) -> None:
    generation = await new_generation(await new_account())
    await put_in_window(generation)
    await succeed(generation)
    await send_all(postman)

    page = html_of(delivered()[0])

    assert set(re.findall(r'src="(\w+):', page)) == {"cid"}
    assert not re.search(r"url\(|@import|<link|<script", page)


HOSTILE = '<script>alert(1)</script> "quoted" & <img src=x onerror=alert(2)>\r\nBcc: everybody@example.com'


async def test_what_a_customer_wrote_is_shown_as_text_and_never_reaches_a_header(
    new_account: NewAccount,
    new_generation: NewGeneration,
    fail: Fail,
    succeed: Succeed,
    postman: Postman,
    delivered: Delivered,
) -> None:
    account = await new_account()
    generation = await new_generation(account, prompt=HOSTILE, negative_prompt=HOSTILE)
    failing = await new_generation(account, prompt=HOSTILE)
    await put_in_window(generation, failing)
    await succeed(generation)
    await fail(failing, f"Could not draw {HOSTILE}")
    await send_all(postman)

    [letter] = delivered()

    page = _Words(html_of(letter))
    assert "script" not in page.tags
    assert html_of(letter).count("<img") == 1
    assert "<script>alert(1)</script>" in page.words
    assert letter["Bcc"] is None
    assert all("script" not in value and "Bcc" not in value for value in letter.values())
    names = [part.get_filename() or "" for part in letter.iter_attachments()]
    assert all(re.fullmatch(r"darkroom-[0-9a-f]{8}-\d\.png", name) for name in names if name)


async def test_a_very_long_prompt_is_shortened(
    new_account: NewAccount, new_generation: NewGeneration, fail: Fail, postman: Postman, delivered: Delivered
) -> None:
    generation = await new_generation(await new_account(), prompt="longing " * 200)
    await put_in_window(generation)
    await fail(generation, "No.")
    await send_all(postman)

    [letter] = delivered()

    assert letter["Subject"] == "Your picture could not be made"
    assert 40 < text_of(letter).count("longing") < 60
    assert "…" in text_of(letter)


async def test_many_long_prompts_are_shortened_more(
    new_account: NewAccount, new_generation: NewGeneration, fail: Fail, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account()
    generations = [await new_generation(account, prompt="longing " * 100) for _ in range(40)]
    await put_in_window(*generations)
    for generation in generations:
        await fail(generation, "No.")
    await send_all(postman)

    [letter] = delivered()

    shown = re.findall(r'<p class="prompt[^>]*>([^<]*)</p>', html_of(letter))
    assert len(shown) == 40
    assert all(150 < len(prompt) <= 201 for prompt in shown)


async def test_two_hundred_pictures_stay_below_where_mail_readers_cut(
    database: DatabaseSettings, link_settings: LinkSettings
) -> None:
    links, at = DownloadLinks(link_settings), now()
    pictures = [
        Picture(
            name=f"darkroom-12345678-{index}.png",
            content_type="image/png",
            content_id=f"{uuid4().hex}@darkroom",
            seed=2147483647,
            thumbnail=Thumbnail(b"-", 258, 258),
            link=links.make(uuid4(), extension="png", now=at),
        )
        for index in range(200)
    ]
    parameters = [("Model", "stable-diffusion-v1-5"), ("Size", "768 x 768"), ("Scheduler", "DPMPP_2M_KARRAS")]
    entries = [
        Entry(
            prompt="p" * 160,
            negative_prompt="n" * 80,
            parameters=parameters,
            pictures=pictures[start : start + 4],
            reason=None,
        )
        for start in range(0, 200, 4)
    ]
    values = {
        "entries": entries,
        "pictures": 200,
        "column": 258,
        "linked": 200,
        "failed": 0,
        "links_until": at,
    }
    letter = Letter(recipient="ada@example.com", message_id="<1@darkroom>", kind=LetterKind.WINDOW_FINISHED)
    contents = Contents(subject="Your 200 pictures are ready", values=values, pictures=pictures)

    message = Renderer(sender="pictures@darkroom.local", public_url="https://darkroom.example").render(
        letter, contents, at=at
    )

    assert len(html_of(message).encode()) < 102 * 1024


async def test_pictures_that_would_make_a_letter_too_heavy_become_links_that_work_for_a_week(
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    storage: Storage,
    new_postman: Callable[..., Postman],
    delivered: Delivered,
    link_settings: LinkSettings,
) -> None:
    generation = await new_generation(await new_account(), count=3, format=ImageFormat.PNG)
    await put_in_window(generation)
    await succeed(generation)
    size = len(await storage.get(f"generations/{generation.id}/1/0.png"))

    await send_all(new_postman(attachments_limit=size + size // 2))

    [letter] = delivered()
    assert letter["Subject"] == "Your 3 pictures are ready"
    attached = [part for part in letter.iter_attachments() if part.get_content_type() == "image/png"]
    assert len(attached) == 1
    links = re.findall(r'href="([^"]*/images/[^"]*)"', html_of(letter))
    assert len(links) == 2
    for link in links:
        address = urlsplit(link.replace("&amp;", "&"))
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        image_id = UUID(address.path.removeprefix("/images/").removesuffix(".png"))
        good_in_six_days, good_in_eight_days = (
            DownloadLinks(link_settings).allows(
                image_id,
                expires=int(asked["expires"]),
                signature=asked["signature"],
                now=now() + timedelta(days=days),
            )
            for days in (6, 8)
        )
        assert good_in_six_days
        assert not good_in_eight_days
        assert link.replace("&amp;", "&") in text_of(letter)
    assert "2 pictures were too heavy to attach" in text_of(letter)
    thumbnails = [part for part in parts_of(letter) if part.get_content_type() == "image/jpeg"]
    assert len(thumbnails) == 3


async def test_a_picture_that_is_gone_is_named_and_the_others_still_come(
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    postman: Postman,
    delivered: Delivered,
    tmp_path: Path,
) -> None:
    generation = await new_generation(await new_account(), count=2)
    await put_in_window(generation)
    await succeed(generation)
    (tmp_path / f"objects/generations/{generation.id}/1/0.png").unlink()

    await send_all(postman)

    [letter] = delivered()
    names = [part.get_filename() for part in letter.iter_attachments()]
    assert names == [f"darkroom-{generation.id.hex[:8]}-2.png"]
    assert "This picture is not in the store any more." in text_of(letter)


@pytest.mark.parametrize("count", [1, 4])
async def test_a_premium_generation_by_mail_has_a_letter_of_its_own(
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    postman: Postman,
    delivered: Delivered,
    count: int,
) -> None:
    account = await new_account()
    for prompt in ("one", "two"):
        await succeed(await new_generation(account, tier=Tier.PREMIUM, prompt=prompt, count=count))

    await send_all(postman)

    found = delivered()
    assert [letter["X-Darkroom-Letter"] for letter in found] == ["generation_finished"] * 2
    assert {letter["Subject"] for letter in found} == {
        "Your picture is ready" if count == 1 else "Your 4 pictures are ready"
    }
    assert len({letter["Message-ID"] for letter in found}) == 2


async def test_a_premium_generation_that_was_rejected_says_why(
    new_account: NewAccount, new_generation: NewGeneration, fail: Fail, postman: Postman, delivered: Delivered
) -> None:
    generation = await new_generation(await new_account(), tier=Tier.PREMIUM)
    await fail(generation, "The picture was held back.", GenerationState.REJECTED)

    await send_all(postman)

    [letter] = delivered()
    assert letter["Subject"] == "Your picture could not be made"
    assert "The picture was held back." in text_of(letter)
    assert "The picture was held back." in html_of(letter)


async def test_a_downloaded_or_canceled_premium_generation_has_no_letter(
    new_account: NewAccount, new_generation: NewGeneration, succeed: Succeed, fail: Fail
) -> None:
    account = await new_account()
    await succeed(await new_generation(account, tier=Tier.PREMIUM, delivery=Delivery.DOWNLOAD))
    await fail(await new_generation(account, tier=Tier.PREMIUM), None, GenerationState.CANCELED)

    assert await Letter.all().count() == 0


async def test_a_letter_never_tells_of_another_accounts_generation(
    new_account: NewAccount, new_generation: NewGeneration, postman: Postman, delivered: Delivered
) -> None:
    generation = await new_generation(await new_account(), prompt="private")
    account = await new_account()
    await write_letter(account.id, LetterKind.GENERATION_FINISHED, {"generation_id": str(generation.id)})

    await send_all(postman)

    assert delivered() == []
    letter = await Letter.get(account_id=account.id)
    assert letter.state is LetterState.FAILED
    assert "gone" in (letter.error or "")
    assert (await Letter.get(account_id=account.id)).state is LetterState.FAILED


LINKS = [
    (LetterKind.VERIFY_EMAIL, TokenPurpose.VERIFY_EMAIL, "/verify", timedelta(hours=24)),
    (LetterKind.RESET_PASSWORD, TokenPurpose.RESET_PASSWORD, "/reset-password", timedelta(hours=1)),
]


def token_in(letter: EmailMessage, path: str) -> str:
    [in_text] = re.findall(rf"https://darkroom\.example{path}\?token=([\w-]+)", text_of(letter))
    in_html = re.findall(rf"https://darkroom\.example{path}\?token=([\w-]+)", html_of(letter))
    assert set(in_html) == {in_text}
    return str(in_text)


@pytest.mark.parametrize(("kind", "purpose", "path", "lifetime"), LINKS)
async def test_the_mailed_link_carries_a_token_that_works_once_for_its_purpose_and_time(
    new_account: NewAccount,
    postman: Postman,
    delivered: Delivered,
    kind: LetterKind,
    purpose: TokenPurpose,
    path: str,
    lifetime: timedelta,
) -> None:
    account = await new_account()
    await write_letter(account.id, kind)
    await send_all(postman)

    token = token_in(delivered()[0], path)

    stored = await EmailToken.get(account_id=account.id)
    assert stored.hash == hash_secret(token)
    assert timedelta(0) <= now() + lifetime - stored.expires_at < timedelta(minutes=1)
    [wrong_purpose] = {*TokenPurpose} - {purpose}
    assert await accounts.use_email_token(stored.hash, purpose=wrong_purpose, now=now()) is None
    used = await accounts.use_email_token(stored.hash, purpose=purpose, now=now())
    assert used is not None
    assert used.id == account.id
    assert await accounts.use_email_token(stored.hash, purpose=purpose, now=now()) is None


async def test_a_letters_button_has_the_colours_of_the_studios(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    styles = (REPOSITORY / "api" / "frontend" / "studio" / "styles" / "base.css").read_text()
    [light, dark], [light_text, dark_text] = [
        re.findall(rf"--{name}: light-dark\((#\w+), (#\w+)\)", styles)[0] for name in ("accent", "on-accent")
    ]
    await write_letter((await new_account()).id, LetterKind.VERIFY_EMAIL)
    await send_all(postman)
    page = html_of(delivered()[0])
    # Inline, for readers that drop the style element, which has the dark ones.
    cell, link = re.findall(r'<td class="button" style="([^"]+)"><a [^>]*style="([^"]+)"', page)[0]
    assert f"background:{light};" in cell
    assert f"color:{light_text};" in link
    assert f".button {{ background: {dark} !important; }}" in page
    assert f".button a {{ color: {dark_text} !important; }}" in page


async def test_a_link_that_is_sent_again_replaces_the_one_before(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account()
    await write_letter(account.id, LetterKind.VERIFY_EMAIL)
    await send_all(postman)
    await Letter.all().update(state=LetterState.PENDING)
    await send_all(postman)

    tokens = [token_in(letter, "/verify") for letter in delivered()]

    assert len(set(tokens)) == 2
    assert await EmailToken.filter(account_id=account.id).count() == 1


async def test_after_a_week_without_a_mail_server_links_still_come_but_none_to_a_new_password(
    new_account: NewAccount, new_postman: Callable[..., Postman], delivered: Delivered
) -> None:
    account = await new_account()
    for kind in (LetterKind.VERIFY_EMAIL, LetterKind.RESET_PASSWORD):
        await write_letter(account.id, kind)
    await Letter.all().update(created_at=now() - timedelta(days=7))
    await send_all(new_postman())
    [letter] = delivered()
    assert letter["X-Darkroom-Letter"] == "verify_email"
    [row] = await Letter.all()
    assert (row.kind, row.state) == (LetterKind.VERIFY_EMAIL, LetterState.SENT)


async def test_premium_time_is_confirmed_with_its_end(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account(premium_until=datetime(2031, 3, 9, 14, 5, tzinfo=UTC))
    await write_letter(account.id, LetterKind.PREMIUM_STARTED)

    await send_all(postman)

    [letter] = delivered()
    for words in (text_of(letter), _Words(html_of(letter)).words):
        assert "until 9 March 2031, 14:05 UTC" in words


ENDS_AT = datetime(2131, 3, 9, 14, 5, 33, 123456, tzinfo=UTC)


async def test_a_reminder_says_when_premium_ends_and_how_to_be_rid_of_reminders(
    new_account: NewAccount, postman: Postman, delivered: Delivered, link_settings: LinkSettings
) -> None:
    account = await new_account(premium_until=ENDS_AT)
    await write_letter(account.id, LetterKind.PREMIUM_ENDS_SOON, {"ends_at": ENDS_AT.isoformat()})

    await send_all(postman)

    [letter] = delivered()
    assert letter["Subject"] == "Your premium time ends soon"
    for words in (text_of(letter), _Words(html_of(letter)).words):
        assert "premium until 9 March 2131, 14:05 UTC" in " ".join(words.split())
    link = re.fullmatch(
        r"<(https://darkroom\.example/unsubscribe\?token=([0-9a-f]{96}))>", letter["List-Unsubscribe"]
    )
    assert link is not None
    assert letter["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert Reminders(link_settings).read(link[2]) == account.id
    assert link[1] in text_of(letter)
    assert f'href="{link[1]}"' in html_of(letter)


@pytest.mark.parametrize("changed", ["extended", "unwanted"])
async def test_a_reminder_that_is_not_true_or_welcome_any_more_does_not_leave(
    new_account: NewAccount, postman: Postman, delivered: Delivered, changed: str
) -> None:
    account = await new_account(premium_until=ENDS_AT)
    await write_letter(account.id, LetterKind.PREMIUM_ENDS_SOON, {"ends_at": ENDS_AT.isoformat()})
    if changed == "extended":
        await Account.all().update(premium_until=ENDS_AT + timedelta(days=30))
    else:
        await accounts.set_reminders_off(account.id, at=now())

    await send_all(postman)

    assert delivered() == []
    assert await Letter.all().count() == 0


async def test_letters_that_somebodys_own_doing_brings_have_no_way_to_be_rid_of_them(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account()
    for kind in (LetterKind.VERIFY_EMAIL, LetterKind.RESET_PASSWORD, LetterKind.PREMIUM_STARTED):
        await write_letter(account.id, kind)

    await send_all(postman)

    assert len(delivered()) == 3
    assert all(name not in letter for letter in delivered() for name in ("List-Unsubscribe", "Precedence"))


@pytest.mark.parametrize(
    ("reason", "days", "subject", "words"),
    [
        ("refund", 30, "Your payment was refunded", "The payment for 30 days of premium time was refunded"),
        ("dispute", 1, "Your payment was taken back", "The bank took the payment for 1 day of premium time"),
        ("operator", 7, "Premium time was taken back", "What was left of 7 days of premium time was taken"),
    ],
)
async def test_premium_time_that_was_taken_back_is_told_with_its_reason_and_what_is_left(
    new_account: NewAccount,
    postman: Postman,
    delivered: Delivered,
    reason: str,
    days: int,
    subject: str,
    words: str,
) -> None:
    for year in (2131, 2021):
        account = await new_account(premium_until=datetime(year, 3, 9, 14, 5, tzinfo=UTC))
        await write_letter(account.id, LetterKind.PREMIUM_REVOKED, {"reason": reason, "days": days})

    await send_all(postman)

    for render in (text_of, lambda letter: _Words(html_of(letter)).words):
        texts = [" ".join(render(letter).split()) for letter in delivered()]
        assert len(texts) == 2
        assert all(words in text for text in texts)
        assert sum("premium until 9 March 2131, 14:05 UTC." in text for text in texts) == 1
        assert sum("Your account is a normal one now" in text for text in texts) == 1
    assert {letter["Subject"] for letter in delivered()} == {subject}


async def test_a_payment_that_did_not_arrive_is_told(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account()
    await write_letter(account.id, LetterKind.PAYMENT_FAILED, {"days": 30})

    await send_all(postman)

    [letter] = delivered()
    assert letter["Subject"] == "Your payment did not arrive"
    for text in (text_of(letter), _Words(html_of(letter)).words):
        assert "30 days of premium time did not arrive" in " ".join(text.split())


async def test_who_signs_up_twice_is_told_of_the_account_that_there_is(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account()
    await write_letter(account.id, LetterKind.ADDRESS_TAKEN)

    await send_all(postman)

    [letter] = delivered()
    assert letter["Subject"] == "You already have an account"
    assert "token" not in text_of(letter)
    assert account.email in text_of(letter)


async def test_a_letter_about_a_window_that_is_gone_fails_with_the_reason(
    new_account: NewAccount, postman: Postman, delivered: Delivered
) -> None:
    account = await new_account()
    await write_letter(account.id, LetterKind.WINDOW_FINISHED, {"window_id": str(uuid4())})

    await send_all(postman)

    assert delivered() == []
    letter = await Letter.get(account_id=account.id)
    assert letter.state is LetterState.FAILED
    assert "gone" in (letter.error or "")
