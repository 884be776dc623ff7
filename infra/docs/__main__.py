"""``python -m infra.docs``: builds the documentation site into ``build/docs/site``.

Nothing of the built site is fetched from elsewhere when somebody reads it: fonts are the reader's own, and
diagrams are drawn now.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import mermaidx

from core.errors import ConfigurationError, DarkroomError
from infra.docs.pages import Pages

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_HERE: Final = Path(__file__).parent


def main() -> int:
    """Build the site; the exit status is 1 where a link leads nowhere or a page is in no menu."""
    try:
        build(REPOSITORY / "build" / "docs")
    except DarkroomError as error:
        sys.stderr.write(f"docs: {error}\n")
        return 1
    return 0


def build(folder: Path) -> Path:
    """Build the site in a folder of its own; returns where its pages are.

    Raises:
        ConfigurationError: a link leads nowhere, a page is in no menu, or a diagram cannot be drawn.
    """
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "docs"
    (source / "decisions").mkdir(parents=True)
    (source / "decisions" / "index.md").write_text(_decisions())
    Pages(REPOSITORY, source, draw=_draw).copy()
    shutil.copyfile(_HERE / "site.css", source / "site.css")
    config = tomllib.loads((_HERE / "site.toml").read_text())
    _check_menu(config["nav"], source)
    # JSON is YAML too.
    (folder / "mkdocs.yml").write_text(json.dumps(config, indent=2))
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ConfigurationError(f"{done.stdout}{done.stderr}".strip())
    return folder / "site"


def _draw(text: str, target: Path) -> None:
    try:
        target.write_text(mermaidx.render(text).svg())
    except RuntimeError as error:
        raise ConfigurationError(f"a diagram cannot be drawn: {error}") from error


def _decisions() -> str:
    """A page that lists the decision records by their titles."""
    lines = [
        "# Decisions\n",
        "Why things are as they are, where that may be asked: context, choice, consequence.\n",
    ]
    for path in sorted((REPOSITORY / "docs" / "decisions").glob("*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def _check_menu(menu: list[Any], source: Path) -> None:
    """Every page is in the menu or listed by one that is."""
    named = set(re.findall(r'"([^"]+\.md)"', json.dumps(menu)))
    there = {path.relative_to(source).as_posix() for path in source.rglob("*.md")}
    listed = {page for page in there if page.startswith("decisions/")}
    if missing := named - there:
        raise ConfigurationError(f"the menu names pages that are not there: {', '.join(sorted(missing))}")
    if hidden := there - named - listed:
        raise ConfigurationError(
            f"no menu leads to {', '.join(sorted(hidden))}: name them in infra/docs/site.toml"
        )


if __name__ == "__main__":
    sys.exit(main())
