"""Customers' commands against the running stack."""

import asyncio
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from PIL import Image

from core.lifecycle import Scheduler
from tests.console.conftest import Darkroom
from tests.stack import PASSWORD, Customer, Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def test_a_customer_signs_in_makes_a_picture_and_signs_out(
    stack: Stack, darkroom: Darkroom, tmp_path: Path
) -> None:
    url = {"DARKROOM_URL": stack.urls[0]}
    refused = darkroom("generate", "a red house", **url)
    assert (refused.returncode, "darkroom signin" in refused.stderr) == (3, True)
    signed_in = darkroom("signin", "premium@darkroom.local", "--password", PASSWORD, **url)
    assert signed_in.returncode == 0, signed_in.stderr
    kept = tmp_path / ".config" / "darkroom" / "sessions.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert PASSWORD not in kept.read_text()

    # As if the access token were about to expire: it is traded for another.
    sessions = json.loads(kept.read_text())
    sessions[stack.urls[0]]["expires_at"] = "2020-01-01T00:00:00+00:00"
    kept.write_text(json.dumps(sessions))
    made = darkroom("generate", "a red house", "--steps", "2", "-o", "pictures/house.webp", **url)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "pictures/house.webp\n"
    with Image.open(tmp_path / "pictures" / "house.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (128, 128))
    assert json.loads(kept.read_text()) != sessions

    assert darkroom("signout", **url).returncode == 0
    assert json.loads(kept.read_text()) == {}
    assert darkroom("watch", "x", **url).returncode == 3


async def test_several_pictures_are_numbered_and_told_as_json(
    darkroom: Darkroom, as_premium: dict[str, str], tmp_path: Path
) -> None:
    done = darkroom(
        *(
            "generate",
            "a tent",
            "-n",
            "2",
            "--seed",
            "7",
            "--steps",
            "2",
            "--size",
            "128x192",
            "-o",
            "tent.png",
        ),
        "--json",
        **as_premium,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == ["tent-1.png", "tent-2.png"]
    assert [image["seed"] for image in told["images"]] == [7, 8]
    assert done.stderr == ""
    with Image.open(tmp_path / "tent-2.png") as picture:
        assert picture.size == (128, 192)


async def test_every_refused_field_is_named_with_its_limit(
    darkroom: Darkroom, as_premium: dict[str, str]
) -> None:
    done = darkroom("generate", "a tent", "--size", "100x9999", "--steps", "0", **as_premium)
    assert done.returncode == 2
    for option in ("--size, its width", "--size, its height", "--steps"):
        assert option in done.stderr
    unknown = darkroom("generate", "a tent", "--scheduler", "fastest", **as_premium)
    assert (unknown.returncode, "FASTEST" in unknown.stderr) == (2, True)
    nobodys = darkroom("watch", "R2VuZXJhdGlvbjp4", **as_premium)
    assert nobodys.returncode == 2


def test_the_help_names_every_sampler(darkroom: Darkroom) -> None:
    told = re.findall(r"\w+", darkroom("generate", "--help").stdout)
    assert set(Scheduler) <= set(told), "the command line cannot ask the service's own code"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "large"), "512x512"),
        (("-o", "house.bmp"), ".bmp"),
        (("-o", "house.png", "--format", "webp"), "does not go into"),
        (("--email", "a@example.org"), "needed together"),
    ],
)
def test_options_that_make_no_sense_are_refused_without_asking(
    darkroom: Darkroom, words: tuple[str, ...], said: str
) -> None:
    done = darkroom("generate", "a tent", "--url", "http://127.0.0.1:1", *words)
    assert done.returncode == 2
    assert said in done.stderr


async def test_a_wrong_password_and_a_service_that_is_away_are_told_apart(
    stack: Stack, darkroom: Darkroom, as_premium: dict[str, str]
) -> None:
    wrong = darkroom("generate", "a tent", **{**as_premium, "DARKROOM_PASSWORD": "wrong"})
    assert (wrong.returncode, "password" in wrong.stderr) == (3, True)
    away = darkroom("generate", "a tent", **{**as_premium, "DARKROOM_URL": "http://127.0.0.1:1"})
    assert (away.returncode, "no answer from http://127.0.0.1:1" in away.stderr) == (1, True)


async def test_the_normal_tier_says_when_the_window_opens_and_the_letter_comes(
    stack: Stack, darkroom: Darkroom
) -> None:
    customer = await stack.new_customer()
    variables = {
        "DARKROOM_URL": stack.urls[0],
        "DARKROOM_EMAIL": customer.email,
        "DARKROOM_PASSWORD": PASSWORD,
    }
    done = await asyncio.to_thread(
        darkroom, "generate", "a tent", "--steps", "2", "-o", "tent.png", **variables
    )
    assert done.returncode == 0, done.stderr
    assert "The next window opens at " in done.stderr
    assert f"A letter to {customer.email} brings the picture." in done.stderr
    assert "tent.png is not written" in done.stderr
    await stack.letter(customer.email, "window_finished", seconds=40)
    [word] = [word for word in done.stderr.split() if len(word) > 40 and "@" not in word][:1]
    watched = await asyncio.to_thread(darkroom, "watch", word, **variables)
    assert (watched.returncode, "a letter brings it" in watched.stderr) == (0, True)


async def test_a_watch_says_that_the_session_has_ended(stack: Stack, darkroom: Darkroom) -> None:
    customer = await stack.new_customer()
    url = {"DARKROOM_URL": stack.urls[0]}
    asked = await customer.generate(prompt="a tent", steps=2)
    assert darkroom("signin", customer.email, "--password", PASSWORD, **url).returncode == 0
    await customer.execute("mutation { signoutEverywhere { message } }")
    watched = await asyncio.to_thread(darkroom, "watch", asked, **url)
    assert (watched.returncode, "run `darkroom signin`" in watched.stderr) == (3, True)


async def test_what_is_accepted_is_named_although_nothing_else_is_answered(
    stack: Stack, darkroom: Darkroom
) -> None:
    customer = await stack.new_customer()
    variables = {"DARKROOM_EMAIL": customer.email, "DARKROOM_PASSWORD": PASSWORD}
    with _deaf_to("nextWindowAt", stack.urls[0]) as url:
        words = ("generate", "a tent", "--steps", "2")
        done = await asyncio.to_thread(darkroom, *words, DARKROOM_URL=url, **variables)
        told = await asyncio.to_thread(darkroom, *words, "--json", DARKROOM_URL=url, **variables)
    assert done.returncode == 0, done.stderr
    assert "When the next window opens is not known: " in done.stderr
    assert "Accepted." in done.stderr
    assert "A letter brings the picture." in done.stderr
    assert "darkroom watch " in done.stderr
    made = json.loads(told.stdout)
    assert (made["state"], made["nextWindowAt"], made["letterTo"]) == ("QUEUED", None, None)


async def test_what_can_be_watched_no_longer_is_named_and_found_again(
    stack: Stack,
    darkroom: Darkroom,
    as_premium: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("console.client._WATCH_PATIENCE", 0.0)
    # It takes no websockets.
    with _deaf_to("nothing", stack.urls[0]) as url:
        words = ("generate", "a tent", "--steps", "2", "-o", "tent.png")
        left = await asyncio.to_thread(darkroom, *words, **{**as_premium, "DARKROOM_URL": url})
    assert (left.returncode, f"no answer from {url}" in left.stderr) == (1, True)
    command = re.search("`darkroom (watch [^ ]+)` finds it again", left.stderr)
    assert command is not None, left.stderr
    again = await asyncio.to_thread(darkroom, *command[1].split(), "-o", "tent.png", **as_premium)
    assert (again.returncode, (tmp_path / "tent.png").exists()) == (0, True), again.stderr


@contextmanager
def _deaf_to(word: str, url: str) -> Iterator[str]:
    """A way to a service on which operations with a word in them get no answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if word.encode() in body:
                self.close_connection = True
                return
            kept = {
                name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers
            }
            answer = httpx.post(f"{url}{self.path}", content=body, headers=kept)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["content-type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def _terminal(
    shell: dict[str, str], folder: Path, *words: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program on a terminal of its own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 100))
    process = subprocess.Popen(
        # A job in the background has SIGINT ignored, and would hand that down.
        ["/usr/bin/env", "--default-signal=INT", sys.executable, "-m", "console", *words],
        env={**shell, "TERM": "xterm-256color", **variables},
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, *texts: str, seconds: float = 40) -> str:
    """What the terminal shows until all of the texts are there, or it is closed."""
    shown, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline and not all(text.encode() in shown for text in texts):
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
    return shown.decode(errors="replace")


async def test_a_terminal_shows_the_steps_and_then_the_picture(
    stack: Stack, shell: dict[str, str], as_premium: dict[str, str], tmp_path: Path
) -> None:
    words = ("generate", "a red house", "--steps", "4", "-o", "house.png")
    with _terminal(shell, tmp_path, *words, **as_premium) as (process, terminal):
        shown = await asyncio.to_thread(_read_until, terminal, "house.png", "pixels")
        assert await asyncio.to_thread(process.wait, 20) == 0, shown
    assert "of 4" in shown
    assert "▄" in shown or "▀" in shown
    assert (tmp_path / "house.png").exists()


@pytest.mark.parametrize(("answer", "count", "state"), [("y", "4", "CANCELED"), ("n", "1", "SUCCEEDED")])
async def test_an_interruption_asks_whether_to_cancel(
    stack: Stack,
    shell: dict[str, str],
    as_premium: dict[str, str],
    tmp_path: Path,
    answer: str,
    count: str,
    state: str,
) -> None:
    words = ("generate", "a red house", "--steps", "40", "--count", count)
    premium = await Customer(stack.urls[0], "premium@darkroom.local").sign_in()
    with _terminal(shell, tmp_path, *words, **as_premium) as (process, terminal):
        await asyncio.to_thread(_read_until, terminal, "of 40")
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(_read_until, terminal, "Cancel the generation?")
        os.write(terminal, f"{answer}\n".encode())
        shown = await asyncio.to_thread(_read_until, terminal, "Canceled." if answer == "y" else "It goes on")
        assert await asyncio.to_thread(process.wait, 20) == 130, shown
    page = await premium.execute("{ generations(first: 1) { edges { node { id } } } }")
    events = await premium.watch_to_end(page["generations"]["edges"][0]["node"]["id"])
    assert events[-1]["state"] == state


async def test_a_watch_outlives_the_api_process_that_it_began_at(
    stack: Stack, shell: dict[str, str], as_premium: dict[str, str], tmp_path: Path
) -> None:
    words = ("generate", "a red house", "--steps", "40", "--count", "2", "-o", "house.png")
    with _terminal(shell, tmp_path, *words, **as_premium) as (process, terminal):
        await asyncio.to_thread(_read_until, terminal, "of 40")
        os.kill(stack.pid("api"), signal.SIGKILL)
        shown = await asyncio.to_thread(_read_until, terminal, "house-2.png", seconds=150)
        assert await asyncio.to_thread(process.wait, 20) == 0, shown
    assert (tmp_path / "house-2.png").exists()
