"""``darkroom`` where only some of its libraries are installed."""

import subprocess
from pathlib import Path

import pytest

from tests.linked_environment import link_environment

REPOSITORY = Path(__file__).resolve().parents[2]


def run(python: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "console", *words],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("extra", "there", "missing", "reason"),
    [
        ("client", "generate", "migrate", "No such command 'migrate'"),
        ("api", "migrate", "generate", "pip install 'darkroom[client]'"),
    ],
)
def test_customers_commands_need_nothing_of_operators_and_the_other_way_round(
    extra: str, there: str, missing: str, reason: str, tmp_path: Path
) -> None:
    python = link_environment(tmp_path / "venv", extra=extra)

    def darkroom(*words: str) -> subprocess.CompletedProcess[str]:
        return run(python, *words, folder=tmp_path)

    told = darkroom("--help")
    assert told.returncode == 0, told.stderr
    assert there in told.stdout
    assert missing not in told.stdout
    assert darkroom(there, "--help").returncode == 0
    refused = darkroom(missing, "--help")
    assert refused.returncode != 0
    assert reason in refused.stderr
    assert "Traceback" not in refused.stderr


def test_where_no_commands_libraries_are_it_is_said_what_to_install(tmp_path: Path) -> None:
    # As on a gpu_worker's machine.
    python = link_environment(tmp_path / "venv", extra="traces")
    for words in ([], ["--help"], ["migrate"]):
        refused = run(python, *words, folder=tmp_path)
        assert refused.returncode == 1
        assert "pip install 'darkroom[client]'" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
