"""The pages as Vite built them, and what becomes of them in a wheel."""

import gzip
import re
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from api.assets import BUILT

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not BUILT.is_dir(), reason="the pages are not built: `make frontend`")


def test_the_studio_loads_at_most_200_kilobytes_of_scripts_and_styles() -> None:
    page = (BUILT / "studio" / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="/(assets/[^"]+\.(?:js|css))"', page)
    assert loaded
    assert sum(len(gzip.compress((BUILT / name).read_bytes())) for name in loaded) <= 200_000


def test_a_wheel_holds_the_built_pages_and_nothing_else_of_theirs(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("api/frontend/")}
    built = {str(path.relative_to(REPOSITORY)) for path in BUILT.rglob("*") if path.is_file()}
    assert {"api/frontend/dist/studio/index.html", "api/frontend/dist/explorer/index.html"} <= built
    assert packed == built
