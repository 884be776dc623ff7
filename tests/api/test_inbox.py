import mailbox
import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from api.inbox import inbox_router

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
THUMBNAIL = b"\xff\xd8\xff\xe0 a small picture"


def written_letter(subject: str = "Your picture is ready") -> EmailMessage:
    """A letter as the batcher writes them: text, HTML with an inline picture, an attached picture, a file."""
    letter = EmailMessage()
    letter["From"] = "Darkroom <pictures@darkroom.local>"
    letter["To"] = "ann@example.com"
    letter["Subject"] = subject
    letter.set_content("Here is your picture. <b>Not bold.</b>")
    letter.add_alternative(
        "<html><head><title>x</title></head><body><img src='cid:thumb@darkroom'>"
        '<a href="http://127.0.0.1:8000/verify?token=t">Verify</a>'
        "<script>parent.hacked = true</script></body></html>",
        subtype="html",
    )
    html = letter.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(THUMBNAIL, "image", "jpeg", cid="<thumb@darkroom>")
    letter.add_attachment(PNG, maintype="image", subtype="png", filename="darkroom-1.png")
    letter.add_attachment(b"<script>1</script>", maintype="text", subtype="html", filename='pa"ge ü.html')
    return letter


@pytest.fixture
def box(tmp_path: Path) -> mailbox.Maildir:
    return mailbox.Maildir(tmp_path / "mail")


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(inbox_router(tmp_path / "mail"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://darkroom") as client:
        yield client


def directives(response: httpx.Response) -> dict[str, str]:
    policy = response.headers["content-security-policy"]
    return dict((part.strip() + " ").split(" ", 1) for part in policy.split(";"))


async def test_an_inbox_without_letters_or_without_a_folder_says_so(inbox: httpx.AsyncClient) -> None:
    response = await inbox.get("/inbox")
    assert response.status_code == 200
    assert "No letters yet" in response.text


async def test_its_tab_has_the_icon_of_all_pages(
    inbox: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "icon-ab12.svg").touch()
    monkeypatch.setattr("api.assets.BUILT", tmp_path)
    response = await inbox.get("/inbox")
    assert '<link rel="icon" type="image/svg+xml" href="/assets/icon-ab12.svg">' in response.text
    assert directives(response)["img-src"].strip() == "'self'"


async def test_letters_are_listed_newest_first_with_whom_they_are_to(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    folder = Path(box._path, "new")
    for second, subject in ((100, "The oldest"), (3000, "The newest"), (2000, "In between")):
        (folder / f"{second}.M1P1Q1.host").write_bytes(bytes(written_letter(subject)))
    page = (await inbox.get("/inbox")).text
    places = [page.index(subject) for subject in ("The newest", "In between", "The oldest")]
    assert places == sorted(places)
    assert page.count("to ann@example.com") == 3


async def test_what_a_letter_says_of_itself_is_shown_as_text(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    key = box.add(bytes(written_letter("<script>alert(1)</script> żółw")))
    for page in (await inbox.get("/inbox"), await inbox.get(f"/inbox/{key}")):
        assert "&lt;script&gt;alert(1)&lt;/script&gt; żółw" in page.text
        assert "<script>alert" not in page.text
    assert "&lt;b&gt;Not bold.&lt;/b&gt;" in (await inbox.get(f"/inbox/{key}")).text


async def test_a_letter_is_framed_so_that_nothing_in_it_runs(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    key = box.add(bytes(written_letter()))
    page = (await inbox.get(f"/inbox/{key}")).text
    frame = re.search(r'<iframe[^>]* src="([^"]+)" sandbox="([^"]*)"', page)
    assert frame is not None
    assert frame[2] == "allow-top-navigation-by-user-activation"
    response = await inbox.get(frame[1])
    policy = directives(response)
    assert policy["sandbox"].strip() == "allow-top-navigation-by-user-activation"
    assert policy["default-src"].strip() == "'none'"
    assert "script-src" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_links_in_a_letter_leave_the_frame(inbox: httpx.AsyncClient, box: mailbox.Maildir) -> None:
    bare = EmailMessage()
    bare.set_content('<a href="/verify?token=t">Verify</a>', subtype="html")
    for letter in (written_letter(), bare):
        html = (await inbox.get(f"/inbox/{box.add(bytes(letter))}/html")).text
        assert html.index('<base target="_top">') < html.index("<a href=")


async def test_an_inline_picture_is_served_from_the_letter(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    key = box.add(bytes(written_letter()))
    html = (await inbox.get(f"/inbox/{key}/html")).text
    assert "cid:" not in html
    address = re.search(r"<img src='([^']+)'", html)
    assert address is not None
    picture = await inbox.get(address[1])
    assert (picture.content, picture.headers["content-type"]) == (THUMBNAIL, "image/jpeg")
    # It is part of the text, not a file beside it.
    assert address[1] not in (await inbox.get(f"/inbox/{key}")).text


async def test_attached_pictures_are_shown_and_can_be_downloaded(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    page = (await inbox.get(f"/inbox/{box.add(bytes(written_letter()))}")).text
    shown = re.search(r'<img src="([^"]+)" alt="darkroom-1.png">', page)
    assert shown is not None
    picture = await inbox.get(shown[1])
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    assert f'href="{shown[1]}?download=true"' in page
    download = await inbox.get(shown[1], params={"download": "true"})
    assert download.content == PNG
    assert download.headers["content-disposition"] == "attachment; filename*=UTF-8''darkroom-1.png"


async def test_an_attachment_that_is_no_picture_is_only_ever_downloaded(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    page = (await inbox.get(f"/inbox/{box.add(bytes(written_letter()))}")).text
    links = re.findall(r'href="([^"]+/part/\d+)\?download=true"', page)
    assert len(links) == 2
    response = await inbox.get(links[1])
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == ("attachment; filename*=UTF-8''pa%22ge%20%C3%BC.html")


@pytest.mark.parametrize(
    "key",
    ["unknown", "..", "..%2Fsecret", "%2e%2e%2fsecret", "new%2F1.letter", "%2Fetc%2Fpasswd"],
)
async def test_a_name_that_is_no_letter_of_the_folder_is_not_found(
    inbox: httpx.AsyncClient, box: mailbox.Maildir, tmp_path: Path, key: str
) -> None:
    box.add(bytes(written_letter()))
    (tmp_path / "secret").write_bytes(bytes(written_letter("A secret")))
    for suffix in ("", "/html", "/part/1"):
        response = await inbox.get(f"/inbox/{key}{suffix}")
        assert response.status_code == 404
        assert "secret" not in response.text


@pytest.mark.parametrize("number", ["-1", "0", "99"])
async def test_a_part_that_is_none_or_not_a_leaf_is_not_found(
    inbox: httpx.AsyncClient, box: mailbox.Maildir, number: str
) -> None:
    key = box.add(bytes(written_letter()))
    assert (await inbox.get(f"/inbox/{key}/part/{number}")).status_code == 404


async def test_a_letter_of_text_alone_has_no_frame(inbox: httpx.AsyncClient, box: mailbox.Maildir) -> None:
    letter = EmailMessage()
    letter["To"] = "ann@example.com"
    letter.set_content("Only text.")
    key = box.add(bytes(letter))
    page = (await inbox.get(f"/inbox/{key}")).text
    assert "Only text." in page
    assert "<iframe" not in page
    assert "(no subject)" in page
    assert (await inbox.get(f"/inbox/{key}/html")).status_code == 404


async def test_only_the_pages_own_script_may_run_and_nothing_comes_from_elsewhere(
    inbox: httpx.AsyncClient, box: mailbox.Maildir
) -> None:
    key = box.add(bytes(written_letter()))
    for path in ("/inbox", f"/inbox/{key}"):
        response = await inbox.get(path)
        nonce = re.search(r"script-src 'nonce-([^']+)'", response.headers["content-security-policy"])
        assert nonce is not None
        assert all(f'nonce="{nonce[1]}"' in script for script in re.findall(r"<script[^>]*>", response.text))
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", response.text)
    assert directives(response)["frame-ancestors"].strip() == "'none'"
