"""What it takes to start one program."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Command:
    """A program that stays in the foreground.

    Attributes:
        argv: the program and its arguments.
        user: system account to run it as, or none for the one that starts it.
        env: variables on top of the ones that every program gets.
    """

    argv: tuple[str, ...]
    user: str | None = None
    env: dict[str, str] = field(default_factory=dict)
