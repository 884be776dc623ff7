"""What it takes to start one program."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A program that stays in the foreground.

    Attributes:
        argv: the program and its arguments.
        user: system account that it has to run as, or none for whoever starts it.
    """

    argv: tuple[str, ...]
    user: str | None = None
