"""``darkroom top``: how the service stands, again and again."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from console import standing
from console.durations import span
from console.standing import Standing, WindowStanding
from core.lifecycle import Tier
from core.queue import Lane, Queue
from core.repository.database import database
from core.settings import BrokerSettings, DatabaseSettings, read

app = typer.Typer()

_BAR: Final = 12
_LATE: Final = timedelta(minutes=5)
"""A letter that has waited longer deserves a look."""

_MEANING: Final = {
    Lane.PREMIUM: "for workers, at once",
    Lane.NORMAL: "for the next window",
    Lane.BATCH: "released, for workers",
}


@app.command("top")
def top_command(
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Once, as a JSON object.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Watch queues, windows, workers, letters and dead jobs; Ctrl-C ends it."""
    try:
        asyncio.run(_run(once=once, as_json=as_json, interval=interval))
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _run(*, once: bool, as_json: bool, interval: float) -> None:
    console = Console()
    queue = await Queue.connect(read(BrokerSettings), name="darkroom-top")
    try:
        async with database(read(DatabaseSettings)):
            first = await standing.ask(queue)
            if as_json:
                typer.echo(json.dumps(as_object(first), indent=2))
            elif once or not console.is_terminal:
                console.print(render(first))
            else:
                with Live(render(first), console=console, screen=True, auto_refresh=False) as live:
                    while True:
                        await asyncio.sleep(interval)
                        live.update(render(await standing.ask(queue)), refresh=True)
    finally:
        await queue.close()


def render(now: Standing) -> Group:
    """The whole view."""
    parts: list[Any] = [_headline(now), _queues(now), _workers(now), _windows(now), _rest(now)]
    parts.extend(Text(f"! {line}", style="bold red") for line in now.trouble)
    return Group(*parts)


def as_object(now: Standing) -> dict[str, Any]:
    """The same for programs; moments in ISO 8601, durations in seconds."""
    waits, letters = now.waits, now.letters
    return {
        "at": now.at.isoformat(),
        "queues": now.lanes and {lane.value.lower(): jobs for lane, jobs in now.lanes.items()},
        "generations": now.generations
        and {
            tier.value.lower(): {
                "waiting": found.waiting,
                "running": found.running,
                "oldestSeconds": _age(found.oldest, now.at),
            }
            for tier, found in now.generations.items()
        },
        "premiumWaitSeconds": waits and {"median": waits.median, "longest": waits.longest},
        "workers": now.workers
        and [beat.model_dump(mode="json", exclude={"version", "jobs"}) for beat in now.workers],
        "nextWindowAt": now.next_window_at and now.next_window_at.isoformat(),
        "windows": now.windows and [_window_object(found) for found in now.windows],
        "letters": letters
        and {
            "waiting": letters.waiting,
            "failed": letters.failed,
            "oldestSeconds": _age(letters.oldest, now.at),
        },
        "deadJobs": now.dead,
        "trouble": list(now.trouble),
    }


def _window_object(found: WindowStanding) -> dict[str, Any]:
    window = found.window
    return {
        "id": str(window.id),
        "beatAt": window.tick_at.isoformat(),
        "state": window.state.value,
        "jobs": window.jobs,
        "customers": window.customers,
        "running": found.running,
        "done": found.done,
        "failed": found.failed,
        "putOff": window.put_off,
        "deadline": window.deadline.isoformat(),
    }


def _headline(now: Standing) -> Text:
    line = Text.assemble(("Darkroom", "bold"), f"  {now.at.astimezone():%Y-%m-%d %H:%M:%S}")
    if now.next_window_at is not None:
        left = (now.next_window_at - now.at).total_seconds()
        line.append("   next window ")
        line.append(
            f"in {span(left)}" if left >= 0 else f"overdue for {span(-left)}", "cyan" if left >= 0 else "red"
        )
    if now.workers is not None:
        rate = sum(beat.images_per_second for beat in now.workers)
        line.append("   workers ")
        line.append(str(len(now.workers)), "cyan" if now.workers else "bold red")
        line.append(f", {rate:.2f} images/s")
    return line


def _queues(now: Standing) -> Panel:
    table = _table("queue", "jobs>", "", "oldest>", "running>")
    for lane in Lane:
        tier = Tier.PREMIUM if lane is Lane.PREMIUM else Tier.NORMAL
        found = now.generations[tier] if now.generations else None
        table.add_row(
            lane.value,
            "?" if now.lanes is None else str(now.lanes[lane]),
            _MEANING[lane],
            _since(found.oldest, now.at) if found and lane is not Lane.BATCH else "",
            str(found.running) if found and lane is not Lane.NORMAL else "",
        )
    waits = now.waits
    told = (
        f"premium waited {waits.median:.1f} s (median), {waits.longest:.1f} s at most, in 10 min"
        if waits and waits.median is not None and waits.longest is not None
        else "no premium job in 10 min"
    )
    return Panel(
        table, title="Queues", title_align="left", subtitle=told, subtitle_align="left", border_style="dim"
    )


def _workers(now: Standing) -> Panel:
    table = _table("worker", "device", "models", "slots", "", "images/s>", "up>", "seen>")
    for beat in now.workers or ():
        table.add_row(
            beat.worker,
            beat.device,
            ", ".join(beat.models),
            f"{beat.busy} of {beat.slots}",
            ProgressBar(total=max(1, beat.slots), completed=beat.busy, width=8),
            f"{beat.images_per_second:.2f}",
            _since(beat.started_at, now.at),
            f"{_since(beat.beat_at, now.at)} ago",
        )
    if not now.workers:
        table.add_row(
            Text("the broker does not answer" if now.workers is None else "none is warm", style="red")
        )
    return Panel(table, title="Workers", title_align="left", border_style="dim")


def _windows(now: Standing) -> Panel:
    table = _table("window", "state", "jobs>", "customers>", "progress", "", "failed>", "put off>", "took>")
    for found in now.windows or ():
        window = found.window
        end = window.finished_at or now.at
        table.add_row(
            f"{window.tick_at.astimezone():%H:%M:%S}",
            Text(window.state.value.lower(), style="" if found.over else "cyan"),
            str(window.jobs),
            str(window.customers),
            ProgressBar(total=max(1, window.jobs), completed=found.done, width=_BAR),
            f"{found.done / window.jobs:.0%}" if window.jobs else "",
            Text(str(found.failed), style="red" if found.failed else ""),
            str(window.put_off or ""),
            span((end - (window.opened_at or window.tick_at)).total_seconds()),
        )
    if not now.windows:
        table.add_row("?" if now.windows is None else "none yet")
    return Panel(table, title="Windows", title_align="left", border_style="dim")


def _rest(now: Standing) -> Panel:
    line = Text()
    if now.letters is not None:
        letters = now.letters
        late = letters.oldest is not None and now.at - letters.oldest > _LATE
        line.append(f"letters waiting {letters.waiting}", "red" if late else "")
        if letters.oldest is not None:
            line.append(f" (oldest {_since(letters.oldest, now.at)})", "red" if late else "")
        line.append(f"   failed {letters.failed}", "red" if letters.failed else "")
    if now.dead is not None:
        line.append(f"   dead jobs {now.dead} (24 h)", "red" if now.dead else "")
    hints = [
        hint
        for hint, needed in (
            ("darkroom letter list --state FAILED", now.letters is not None and now.letters.failed),
            ("darkroom job list --dead", now.dead),
        )
        if needed
    ]
    return Panel(
        line,
        title="Letters and dead jobs",
        title_align="left",
        subtitle=" · ".join(hints),
        border_style="dim",
    )


def _table(*columns: str) -> Table:
    """One without lines; columns that end in ``>`` are set to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        name = column.removesuffix(">")
        table.add_column(name, justify="left" if name == column else "right", no_wrap=True)
    return table


def _age(moment: datetime | None, at: datetime) -> float | None:
    return None if moment is None else max(0.0, (at - moment).total_seconds())


def _since(moment: datetime | None, at: datetime) -> str:
    age = _age(moment, at)
    # The greatest unit says enough here.
    return "" if age is None else " ".join(span(age).split()[:2])
