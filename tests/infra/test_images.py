"""The images, as far as they can be seen without a container engine.

Here each one's own dependencies are linked from this environment; `make images` installs them from nothing.
"""

import asyncio
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.queue import Queue
from core.settings import DatabaseSettings, MailSettings, StorageSettings
from tests.conftest import free_port
from tests.infra.image_build import ImageBuild, Stage
from tests.linked_environment import link_environment

pytestmark = pytest.mark.infra

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"
PROCESSES = ("api", "batcher", "gpu_worker")


class QuickBuild(ImageBuild):
    """With packages of this environment in place of new ones, and both pages as `make` has built them."""

    def build(self, target: str) -> Stage:
        if target in self.built:
            return self.built[target]
        stage = super().build(target)
        venv = stage.root / "opt" / "venv"
        if target == "dependencies":
            venv.parent.mkdir(parents=True)
            venv.symlink_to(sys.prefix)
        if target.endswith("-dependencies"):
            [steps] = [steps for name, _, steps in self.instructions if name == target]
            [extra] = {extra for _, command in steps for extra in re.findall(r"'\.\[(.+)\]'", command)}
            venv.unlink()
            link_environment(venv, extra=extra)
        if target == "frontend":
            for built in REPOSITORY.glob("api/*/dist"):
                shutil.copytree(
                    built, stage.root / "source" / built.relative_to(REPOSITORY), dirs_exist_ok=True
                )
        return stage


@pytest.fixture(scope="session")
def quick_build(tmp_path_factory: pytest.TempPathFactory) -> QuickBuild:
    return QuickBuild(
        DOCKERFILE,
        context=REPOSITORY,
        folder=tmp_path_factory.mktemp("images"),
        left_out=re.compile(r"-m venv|pip install '|pip uninstall|/build_"),
    )


@pytest.fixture(scope="session")
def full_build(tmp_path_factory: pytest.TempPathFactory) -> ImageBuild:
    return ImageBuild(DOCKERFILE, context=REPOSITORY, folder=tmp_path_factory.mktemp("images"))


@pytest.fixture
def environment(
    database_settings: DatabaseSettings,
    broker_environment: dict[str, str],
    storage_settings: StorageSettings,
    mail_settings: MailSettings,
    tmp_path: Path,
) -> dict[str, str]:
    """All that any of the processes is told."""
    return {
        **broker_environment,
        "DARKROOM_DATABASE_URL": database_settings.database_url.get_secret_value(),
        "DARKROOM_STORAGE_URL": storage_settings.storage_url,
        "DARKROOM_SMTP_PORT": str(mail_settings.smtp_port),
        "DARKROOM_DOWNLOAD_SECRET": "d" * 32,
        "DARKROOM_JWT_SECRET": "j" * 32,
        "DARKROOM_PASSWORD_PEPPER": "p" * 32,
        "DARKROOM_MODELS": '["darkroom-demo"]',
        "DARKROOM_WEIGHTS_DIR": str(tmp_path / "weights"),
        "DARKROOM_WORKER_KERNEL_DIR": str(tmp_path / "kernels"),
    }


def files_of(stage: Stage) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in stage.root.rglob("*") if path.is_file()}


async def becomes_healthy(stage: Stage, environment: Mapping[str, str], folder: Path) -> None:
    """Start what the image starts in an empty folder: its check finds it healthy, and it stops when told."""
    ports = {port: str(free_port()) for port in ("8000", "9000")}
    python = shutil.which("python", path=stage.variables["PATH"])
    assert python is not None
    assert stage.entrypoint[:3] == ["tini", "--", stage.healthcheck[0]] == ["tini", "--", "python"]
    check = [python, *(stage.here(ports.get(word, word)) for word in stage.healthcheck[1:])]
    before, log, empty = files_of(stage), folder / "log", folder / "empty"
    empty.mkdir()
    told = {"DARKROOM_PORT": ports["8000"], "DARKROOM_METRICS_PORT": ports["9000"]}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            python,
            *stage.entrypoint[3:],
            cwd=empty,
            env={**stage.variables, **environment, **told},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 200
        while await (await asyncio.create_subprocess_exec(*check, stderr=subprocess.DEVNULL)).wait():
            assert process.returncode is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.5)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # Its root may be read-only.
    assert files_of(stage) == before
    assert not any(empty.iterdir())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("process", ["api", "batcher"])
async def test_an_image_holds_all_that_its_process_needs(
    process: str, quick_build: ImageBuild, environment: dict[str, str], queue: Queue, tmp_path: Path
) -> None:
    await becomes_healthy(quick_build.build(process), environment, tmp_path)


async def migrates(stage: Stage, environment: Mapping[str, str]) -> None:
    """What the migration's job runs, with the program that the image has for it."""
    for command in (["migrate"], ["streams", "--update"]):
        # Its first line names /opt/venv, which here is another folder for the stage that installed it.
        darkroom = await asyncio.create_subprocess_exec(
            stage.path("/opt/venv/bin/python"),
            stage.path("/opt/darkroom/bin/darkroom"),
            *command,
            cwd=stage.root,
            env={**stage.variables, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await darkroom.communicate()
        assert darkroom.returncode == 0, said.decode()


async def test_the_image_of_the_api_migrates(
    quick_build: ImageBuild, environment: dict[str, str], queue: Queue
) -> None:
    await migrates(quick_build.build("api"), environment)


@pytest.mark.images
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("process", PROCESSES)
async def test_an_image_is_made_from_nothing_and_its_process_becomes_healthy(
    process: str, full_build: ImageBuild, environment: dict[str, str], queue: Queue, tmp_path: Path
) -> None:
    stage = full_build.build(process)
    assert (stage.root / "opt/darkroom/api/frontend/dist/studio/index.html").is_file()
    torch = any(stage.path("/opt/venv/lib").glob("python*/site-packages/torch"))
    assert torch == (process == "gpu_worker")
    if process == "api":
        await migrates(stage, environment)
    await becomes_healthy(stage, environment, tmp_path)


@pytest.mark.parametrize("process", PROCESSES)
def test_an_image_runs_as_nobody_and_says_what_it_is(process: str, quick_build: ImageBuild) -> None:
    stage = quick_build.build(process)
    assert stage.user == "10001:10001"
    assert (
        stage.labels["org.opencontainers.image.version"]
        == tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    )
    assert stage.labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    checked = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (checked.stdout, checked.returncode) == ("", 0)


def test_every_package_of_the_product_is_in_the_images(quick_build: ImageBuild) -> None:
    built = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = set(built["targets"]["wheel"]["packages"])
    [steps] = [steps for name, _, steps in quick_build.instructions if name == "code"]
    copied = {arguments.split()[-1].strip("/") for instruction, arguments in steps if instruction == "COPY"}
    assert copied == packages
    made = quick_build.build("dependencies")
    assert packages == {path.name for path in made.path(".").iterdir() if path.is_dir()}


def test_images_are_named_by_a_tag_that_does_not_wander(quick_build: ImageBuild) -> None:
    stages = {name for name, _, _ in quick_build.instructions}
    bases = {base for _, base, _ in quick_build.instructions} - stages
    assert bases
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+(@sha256:[0-9a-f]{64})?", base), base


@pytest.mark.parametrize(
    ("file", "ignored"),
    [
        ("core/settings.py", False),
        ("gpu_worker/demo_model/weights/unet/diffusion_pytorch_model.safetensors", False),
        ("infra/local/build_frontend.sh", False),
        ("tests/conftest.py", True),
        (".git/config", True),
        (".darkroom/secrets.json", True),
        (".env", True),
        ("infra/local/credentials.py", True),
        ("core/__pycache__/settings.cpython-311.pyc", True),
    ],
)
def test_nothing_but_the_product_reaches_a_build(file: str, ignored: bool, quick_build: ImageBuild) -> None:
    assert quick_build.ignores(file) is ignored


def test_a_health_check_fails_while_nobody_answers() -> None:
    check = [sys.executable, f"{REPOSITORY}/infra/docker/healthcheck.py", str(free_port()), "/health/live"]
    assert subprocess.run(check, check=False, capture_output=True).returncode == 1
