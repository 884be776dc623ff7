"""The documentation as a site."""

import re
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from infra.docs import __main__ as site
from infra.docs.pages import Pages
from infra.docs.reference import Reference

EXTERNAL = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:[^>]+stylesheet|@import"
)


def test_the_site_is_built_with_every_page_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    folder = site.build(tmp_path / "docs")
    pages = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}
    assert len(pages) > 40
    assert "generateStatus" not in pages["reference/subscriptions.html"]
    assert "generationStatus" in pages["reference/subscriptions.html"]
    assert "diagrams/1.svg" in pages["architecture.html"]
    assert "<svg" in (folder / "diagrams" / "1.svg").read_text()
    for name, text in pages.items():
        assert not EXTERNAL.search(text), name


def test_the_reference_is_that_of_the_schema() -> None:
    for name, text in Reference(site.REPOSITORY).pages():
        assert (site.REPOSITORY / "docs" / "reference" / name).read_text() == text, (
            f"`make schema` writes {name}"
        )


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    pages = Pages(site.REPOSITORY, tmp_path, draw=site._draw)
    good = pages.rewritten("[a](docs/api.md#errors) `[x](y.md)`", origin="README.md", place="index.md")
    assert good == "[a](api.md#errors) `[x](y.md)`"
    with pytest.raises(ConfigurationError, match=r"docs/nowhere\.md"):
        pages.rewritten("[a](docs/nowhere.md)", origin="README.md", place="index.md")


def test_a_page_that_no_menu_names_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "hidden.md").touch()
    (tmp_path / "index.md").touch()
    with pytest.raises(ConfigurationError, match=r"hidden\.md"):
        site._check_menu([{"Home": "index.md"}], tmp_path)


def test_a_diagram_that_cannot_be_drawn_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="diagram"):
        site._draw("flowchart LR\n a --> [[[", tmp_path / "x.svg")
