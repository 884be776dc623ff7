"""``darkroom``: the commands of customers and of operators in one program."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import dotenv
import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from console.failures import CommandError, Exit
from core.errors import DarkroomError
from core.refusals import reason

CUSTOMERS: Final = ("generate", "watch", "cancel", "signin", "signout")
"""The commands that speak the public API."""

_OURS: Final = ("console", "core")


def main() -> None:
    """Run a command; an error of ours is one line, and ends with the exit status that it has.

    On one machine the stack leaves its settings in its state folder; what the shell sets comes first.
    """
    dotenv.load_dotenv(Path(os.environ.get("DARKROOM_HOME", ".darkroom")) / "operator.env")
    try:
        program(sys.argv[1:])()
    except CommandError as error:
        typer.secho(f"darkroom: {error}", err=True, fg="red")
        for field, reason in error.details:
            typer.secho(f"  {field}: {reason}", err=True, fg="red")
        raise SystemExit(error.status) from error
    except DarkroomError as error:
        typer.secho(f"darkroom: {error}", err=True, fg="red")
        raise SystemExit(1) from error


def program(words: list[str]) -> typer.Typer:
    """The commands among which the words choose, and no others where that is plain.

    Operators' need the libraries of the database and customers' those of a GraphQL client. Who has one kind
    installed need not have the other, nor wait for it.

    Raises:
        CommandError: the libraries of the first word's kind are not installed, or those of neither kind.
    """
    word = words[0] if words else ""
    if word in CUSTOMERS:
        kinds = [_commands("console.customers")]
        if kinds == [None]:
            raise CommandError(
                f"{word} needs libraries that are not installed here: pip install 'darkroom[client]'"
            )
    else:
        operators = _commands("console.operators")
        known = operators is not None and word in typer.main.get_group(operators).commands
        kinds = [operators] if known else [_commands("console.customers"), operators]
    if not any(kinds):
        raise CommandError(
            "no command's libraries are installed here: pip install 'darkroom[client]', or for operators"
            " 'darkroom[api]'"
        )
    app = typer.Typer(
        cls=_Commands,
        pretty_exceptions_show_locals=False,  # they hold tokens
        no_args_is_help=True,
        add_completion=False,
        help="Make pictures with Darkroom, or run one.",
    )
    for commands in filter(None, kinds):
        app.add_typer(commands)
    return app


class _Commands(TyperGroup):
    """Commands that refuse a value as we refuse things everywhere: the field, the reason, the limit."""

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401 - Typer keeps the type to itself
        """Run one.

        Raises:
            CommandError: a value is none for its option or argument.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # What is missing has no message, and Typer says that well.
            if not error.message:
                raise
            field = error.param_hint or (error.param.opts[0] if error.param else None)
            told = f"{field}: {_reason(error)}" if field else _reason(error)
            raise CommandError(told, status=Exit.REFUSED) from error


def _reason(error: typer.BadParameter) -> str:
    """Why a value is none."""
    if not isinstance(error.__cause__, ValidationError):
        return error.message
    [first, *_] = error.__cause__.errors()
    # What is none of several says itself what it is.
    return reason(first) if first["type"] == "value_error" else f"{reason(first)}, not {first['input']}"


def _commands(name: str) -> typer.Typer | None:
    """A module's commands, or none where their libraries are not installed."""
    try:
        found: typer.Typer = importlib.import_module(name).app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(_OURS):
            raise
        return None
    return found


if __name__ == "__main__":
    main()
