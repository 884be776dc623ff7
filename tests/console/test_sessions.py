"""The file in which `darkroom signin` keeps sessions, where it is not as the program left it."""

import json
from pathlib import Path

import pytest

from tests.console.conftest import Darkroom

URL = "http://127.0.0.1:1"


def kept_at(home: Path) -> Path:
    return home / ".config" / "darkroom" / "sessions.json"


@pytest.mark.parametrize(
    "text", ["{", "[1]", json.dumps({URL: {"email": "a@example.org"}}), json.dumps({URL: 1})]
)
def test_a_file_with_something_else_in_it_is_named(darkroom: Darkroom, tmp_path: Path, text: str) -> None:
    kept = kept_at(tmp_path)
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    done = darkroom("generate", "a tent", DARKROOM_URL=URL)
    assert done.returncode == 1
    assert done.stderr.strip() == f"darkroom: {kept} cannot be read: remove it and sign in again"


def test_a_file_that_cannot_be_opened_is_named_with_the_reason(darkroom: Darkroom, tmp_path: Path) -> None:
    kept = kept_at(tmp_path)
    kept.mkdir(parents=True)
    done = darkroom("signout", DARKROOM_URL=URL)
    assert (done.returncode, done.stderr.strip()) == (1, f"darkroom: {kept} cannot be read: Is a directory")


def test_a_folder_in_which_nothing_can_be_written_is_named(darkroom: Darkroom, tmp_path: Path) -> None:
    kept = kept_at(tmp_path)
    kept.parent.mkdir(parents=True)
    kept.write_text(
        json.dumps(
            {
                URL: {
                    "email": "a@example.org",
                    "access_token": "-",
                    "refresh_token": "-",
                    "expires_at": "2020-01-01T00:00:00+00:00",
                }
            }
        )
    )
    lock = kept.with_suffix(".lock")
    lock.mkdir()
    done = darkroom("generate", "a tent", DARKROOM_URL=URL)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        f"darkroom: {lock} cannot be written: Is a directory",
    )
