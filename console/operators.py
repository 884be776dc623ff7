"""What operators do: what :mod:`core.cli` has, and the view of how everything stands."""

from typing import Final

import typer

from console import top
from core import cli

_PANEL: Final = "For operators"

app = typer.Typer()
app.add_typer(cli.app)
app.add_typer(top.app)
for group in cli.app.registered_groups:
    group.rich_help_panel = _PANEL
for command in (*cli.app.registered_commands, *top.app.registered_commands):
    command.rich_help_panel = _PANEL
