"""What one release leaves to the next: tables, streams and messages that processes of both share for a while.

``python -m tests.migration.contract`` writes that of the present code to ``released.json``, with a release.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

import asyncpg
from tortoise import Model

from core import models
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.messages import (
    Control,
    Heartbeat,
    Job,
    Message,
    Outcome,
    Parameters,
    Progress,
    Speed,
    Started,
    StoredImage,
)
from core.queue import topology
from infra.local import postgres
from tests.conftest import PASSWORD, TEMPLATE, Server, free_port, make_template, run_server

RELEASED: Final = Path(__file__).with_name("released.json")
MESSAGES: Final[tuple[type[Message], ...]] = (Job, Started, Outcome, Progress, Heartbeat, Control)

Contract = Mapping[str, Any]

_ID = UUID("0b6f4b0e-5f0a-4a55-8d13-6f2d8a2f9c11")
_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_PARAMETERS = Parameters(
    prompt='a red house, „quoted" and\nbroken',
    negative_prompt="fog",
    model="darkroom-demo",
    width=128,
    height=64,
    steps=20,
    guidance_scale=4.5,
    seed=2**31 - 1,
    count=3,
    scheduler=Scheduler.DDIM,
    format=ImageFormat.WEBP,
)
_IMAGE = StoredImage(
    key="generations/x/1/0.png",
    width=128,
    height=64,
    seed=7,
    content_type="image/png",
    byte_size=4321,
    sha256="0" * 64,
)
EXAMPLES: Final[tuple[Message, ...]] = (
    Job(
        id=_ID,
        tier=Tier.NORMAL,
        delivery=Delivery.EMAIL,
        parameters=_PARAMETERS,
        accepted_at=_AT,
        deadline=_AT,
        request_id="r",
    ),
    Started(id=_ID, worker="w", attempt=2, started_at=_AT, request_id="r"),
    Outcome(
        id=_ID,
        worker="w",
        attempt=2,
        state=GenerationState.SUCCEEDED,
        images=(_IMAGE,),
        reason="said",
        cause="meant",
        finished_at=_AT,
        request_id="r",
    ),
    Progress(
        id=_ID, state=GenerationState.RUNNING, step=3, total_steps=20, preview="data:image/jpeg;base64,"
    ),
    Heartbeat(
        worker="w",
        models=("m",),
        device="cuda",
        slots=8,
        busy=1,
        images_per_second=1.5,
        speeds=(Speed(model="m", megapixel_steps_per_second=2.5, seconds_per_step=0.5),),
        tiers=(Tier.PREMIUM,),
        jobs=(_ID,),
        started_at=_AT,
        beat_at=_AT,
    ),
    Control(id=_ID, action="preview"),
)
"""One message of each kind with every field set."""

_WORDS = re.compile(r"(?<![\w.])[a-z_0-9]+(?![\w.])")
_COLUMNS = """
SELECT table_name, column_name, udt_name, is_nullable = 'YES' AS nullable,
       column_default IS NOT NULL OR is_identity = 'YES' AS filled
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'tortoise_migrations'
ORDER BY table_name, column_name
"""
_RULES = """
SELECT tablename AS table_name, 'UNIQUE ' || substring(indexdef FROM '\\(.*') AS rule FROM pg_indexes
WHERE schemaname = 'public' AND indexdef LIKE 'CREATE UNIQUE%'
UNION ALL
SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f')
ORDER BY 1, 2
"""


async def present(database_url: str) -> Contract:
    """What the present code relies on, with the tables of a database that it has migrated."""
    connection = await asyncpg.connect(database_url)
    try:
        columns = await connection.fetch(_COLUMNS)
        rules = await connection.fetch(_RULES)
        migrations = await connection.fetch("SELECT name FROM tortoise_migrations ORDER BY name")
    finally:
        await connection.close()
    tables: dict[str, dict[str, Any]] = {}
    for row in columns:
        table = tables.setdefault(row["table_name"], {"columns": {}, "rules": []})
        table["columns"][row["column_name"]] = {
            "type": row["udt_name"],
            "nullable": row["nullable"],
            "filled": row["filled"],
        }
    for row in rules:
        if row["table_name"] in tables:
            tables[row["table_name"]]["rules"].append(row["rule"])
    return {
        "release": version("darkroom"),
        "migrations": [row["name"] for row in migrations],
        "tables": tables,
        "values": {
            f"{model.__name__}.{name}": sorted(str(value) for value in values)
            for model in sorted(_models(), key=lambda model: model.__name__)
            for name, field in model._meta.fields_map.items()
            if (values := getattr(field, "enum_type", None)) is not None
        },
        "streams": {str(stream.name): _stream(stream.as_dict()) for stream in topology.streams(3)},
        "consumers": {
            f"{spec.stream}.{spec.name}": {"filter": spec.filter_subject, "max_deliver": spec.max_deliver}
            for spec in topology.CONSUMERS
        },
        "messages": {kind.__name__: kind.model_json_schema() for kind in MESSAGES},
        "examples": {type(one).__name__: json.loads(one.encode()) for one in EXAMPLES},
    }


def _models() -> Iterator[type[Model]]:
    for value in vars(models).values():
        if isinstance(value, type) and issubclass(value, Model) and value is not Model:
            yield value


def _stream(config: Mapping[str, Any]) -> dict[str, Any]:
    return {field: config[field] for field in topology.COMPARED if config.get(field) is not None}


def breaks(old: Contract, new: Contract) -> set[str]:
    """What of the new contract a process of the old release would stumble over, or the other way round."""
    return {
        *_breaks_of_tables(old["tables"], new["tables"]),
        *_breaks_of_values(old["values"], new["values"]),
        *_breaks_of_declarations("stream", old["streams"], new["streams"]),
        *_breaks_of_declarations("consumer", old["consumers"], new["consumers"]),
        *_breaks_of_messages(old["messages"], new["messages"]),
    }


def _breaks_of_tables(old: Contract, new: Contract) -> Iterator[str]:
    for name, table in old.items():
        if name not in new:
            yield f"table {name} is gone"
            continue
        columns = new[name]["columns"]
        yield from _breaks_of_columns(name, table["columns"], columns)
        for rule in set(new[name]["rules"]) - set(table["rules"]):
            # One that is also about a new column holds for rows that lack it.
            about = set(_WORDS.findall(rule)) & columns.keys()
            if about <= table["columns"].keys():
                yield f"table {name} has a new rule: {rule}"


def _breaks_of_columns(table: str, old: Contract, new: Contract) -> Iterator[str]:
    for column, was in old.items():
        now = new.get(column)
        if now is None:
            yield f"column {table}.{column} is gone"
            continue
        if now["type"] != was["type"]:
            yield f"column {table}.{column} is {now['type']} and was {was['type']}"
        if now["nullable"] != was["nullable"]:
            may = "may be null, and never was" if now["nullable"] else "may not be null any more"
            yield f"column {table}.{column} {may}"
        if was["filled"] and not now["filled"]:
            yield f"column {table}.{column} has no default any more"
    for column in new.keys() - old.keys():
        if not new[column]["nullable"] and not new[column]["filled"]:
            yield f"column {table}.{column} is new and has to be given"


def _breaks_of_values(old: Contract, new: Contract) -> Iterator[str]:
    for name, values in old.items():
        if more := set(new.get(name, ())) - set(values):
            yield f"rows may have {', '.join(sorted(more))} in {name}"
        if fewer := set(values) - set(new.get(name, values)):
            yield f"rows with {', '.join(sorted(fewer))} in {name} cannot be read any more"


def _breaks_of_declarations(kind: str, old: Contract, new: Contract) -> Iterator[str]:
    for name, was in old.items():
        if name not in new:
            yield f"{kind} {name} is gone"
        elif new[name] != was:
            yield f"{kind} {name} is {new[name]} and was {was}"


def _breaks_of_messages(old: Contract, new: Contract) -> Iterator[str]:
    for name, was in old.items():
        if name not in new:
            yield f"message {name} is gone"
            continue
        now = new[name]
        parts = {name: (was, now)} | {
            f"{name}'s {part}": (schema, now.get("$defs", {}).get(part, {}))
            for part, schema in was.get("$defs", {}).items()
        }
        for part, (before, after) in parts.items():
            yield from _breaks_of_fields(part, before, after)


def _breaks_of_fields(name: str, old: Contract, new: Contract) -> Iterator[str]:
    if _bare(old, "properties", "required", "$defs") != _bare(new, "properties", "required", "$defs"):
        yield f"{name} takes other values"
    before, after = old.get("properties", {}), new.get("properties", {})
    for field in before.keys() - after.keys():
        if field in old.get("required", ()):
            yield f"{name}.{field} is not sent any more"
    for field in set(new.get("required", ())) - before.keys():
        yield f"{name}.{field} is new and has no default"
    for field in before.keys() & after.keys():
        if _bare(before[field], "default") != _bare(after[field], "default"):
            yield f"{name}.{field} takes other values"


def _bare(schema: Contract, *without: str) -> dict[str, Any]:
    """A schema without what says nothing of the values that it takes."""
    return {key: value for key, value in schema.items() if key not in {"title", "description", *without}}


def main() -> None:
    """Write it."""
    with TemporaryDirectory(prefix="darkroom-contract-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        postgres.prepare(folder / "postgres", password=PASSWORD)
        command = postgres.command(folder / "postgres", port=port)
        for _ in run_server(command, port, folder / "postgres.log"):
            asyncio.run(make_template(Server(port=port, password=PASSWORD)))
            url = postgres.url(port=port, password=PASSWORD, name=TEMPLATE)
            contract = asyncio.run(present(url))
    RELEASED.write_text(json.dumps(contract, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
