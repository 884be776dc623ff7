"""Every migration since the last release, as SQL: what would break or block running processes is refused.

A comment in the migration's file allows one rule of squawk there, and says why::

    # squawk-ignore ban-drop-column: nothing reads it since 1.4
"""

import json
import re
import subprocess
import sysconfig
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr
from tortoise.migrations.api import sqlmigrate

from core import migrations
from core.models import database_config
from core.settings import DatabaseSettings
from tests.migration.contract import RELEASED

FOLDER: Final = Path(migrations.__path__[0])
BEFORE: Final = frozenset(json.loads(RELEASED.read_text())["migrations"])
SINCE: Final = sorted(path.stem for path in FOLDER.glob("[0-9]*.py") if path.stem not in BEFORE)

_NOT_OURS: Final = (
    "prefer-bigint-over-int",  # counts that stay small
    "prefer-robust-stmts",  # a migration that fails is rolled back
    "prefer-text-field",  # the ORM's
    "require-lock-timeout",  # `core.repository.database.migrate` sets it
    "require-statement-timeout",
)
_MARK: Final = re.compile(r"#\s*squawk-ignore (?P<rule>[a-z-]+): (?P<reason>\S.{9,})")


def broken_rules(sql: str, *, in_transaction: bool = True) -> set[str]:
    """Squawk's rules that these statements break."""
    done = subprocess.run(
        [
            str(Path(sysconfig.get_path("scripts")) / "squawk"),
            *("--reporter", "json", "--pg-version", "18.0", "--exclude", ",".join(_NOT_OURS)),
            *(["--assume-in-transaction"] if in_transaction else []),
        ],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode in {0, 1}, done.stderr
    return {found["rule_name"] for found in json.loads(done.stdout)}


async def statements(name: str) -> str:
    """A migration as SQL."""
    nowhere = DatabaseSettings(database_url=SecretStr("postgres://nobody@localhost/none"))
    found = await sqlmigrate(app_label="darkroom", migration_name=name, config=database_config(nowhere))
    return "\n".join(
        statement if statement.startswith("--") else f"{statement.rstrip(';')};" for statement in found
    )


async def test_the_migrations_since_the_release_break_and_block_nobody_unless_they_say_why() -> None:
    for name in SINCE:
        marked = {match["rule"] for match in _MARK.finditer((FOLDER / f"{name}.py").read_text())}
        atomic = import_module(f"core.migrations.{name}").Migration.atomic
        assert broken_rules(await statements(name), in_transaction=atomic) == marked, name


async def test_a_migration_is_seen_as_its_sql() -> None:
    assert 'ALTER TABLE "generation" ADD COLUMN "attempts" INT NOT NULL DEFAULT 0;' in await statements(
        "0007_recovery"
    )


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE generation DROP COLUMN prompt;", "ban-drop-column"),
        ("DROP TABLE generation;", "ban-drop-table"),
        ("ALTER TABLE generation RENAME COLUMN prompt TO words;", "renaming-column"),
        ("ALTER TABLE generation RENAME TO picture;", "renaming-table"),
        ("ALTER TABLE generation ADD COLUMN mood text NOT NULL;", "adding-required-field"),
        ("ALTER TABLE generation ALTER COLUMN seed TYPE text;", "changing-column-type"),
        ("ALTER TABLE generation ALTER COLUMN cause SET NOT NULL;", "adding-not-nullable-field"),
        ("CREATE INDEX i ON generation (seed);", "require-concurrent-index-creation"),
        ("ALTER TABLE generation ADD CONSTRAINT c CHECK (steps > 4);", "constraint-missing-not-valid"),
    ],
)
def test_what_breaks_or_blocks_is_found(sql: str, rule: str) -> None:
    assert rule in broken_rules(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE generation ADD COLUMN mood text;",
        "ALTER TABLE generation ADD COLUMN tries int NOT NULL DEFAULT 0;",
        "CREATE TABLE mood (id uuid PRIMARY KEY); CREATE INDEX i ON mood (id);",
    ],
)
def test_what_adds_is_let_through(sql: str) -> None:
    assert broken_rules(sql) == set()


def test_an_index_on_a_full_table_is_made_beside_its_use() -> None:
    assert broken_rules("CREATE INDEX CONCURRENTLY i ON generation (seed);", in_transaction=False) == set()


@pytest.mark.parametrize("line", ["# squawk-ignore ban-drop-column", "# squawk-ignore ban-drop-column: so"])
def test_a_mark_without_a_reason_is_none(line: str) -> None:
    assert not _MARK.search(line)
