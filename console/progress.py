"""How a generation is shown while it is being made."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from console.client import Answer
from console.durations import span


def moment(stamp: str) -> str:
    """A moment as the clock on the wall here shows it, and how far it is from now."""
    at = datetime.fromisoformat(stamp)
    left = (at - datetime.now(UTC)).total_seconds()
    return f"{at.astimezone():%H:%M:%S} (in {span(left)})"


def describe(event: Answer) -> str:
    """Where a generation stands, in a few words."""
    eta = event["etaSeconds"]
    left = f", about {span(eta)} left" if eta is not None else ""
    match event["state"]:
        case "QUEUED":
            position = event["queuePosition"]
            return f"waiting{f' as number {position}' if position else ''}{left}"
        case "RUNNING":
            return f"step {event['step']} of {event['totalSteps']}{left}"
        case state:
            return str(state).lower()


async def follow(events: AsyncIterator[Answer], *, console: Console) -> Answer:
    """Show the events of a generation as a bar, where there is a terminal for it.

    Returns:
        The generation as its last event has it.
    """
    columns = (SpinnerColumn(), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("asking", total=1.0)
        last: Answer = {}
        async for event in events:
            # No share is known of while it waits: the bar then runs to and fro.
            total = None if event["state"] == "QUEUED" else 1.0
            progress.update(task, total=total, completed=event["fraction"], description=describe(event))
            last = event["generation"]
    return last
