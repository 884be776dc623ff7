"""What customers do: sign in, ask for pictures, watch them being made."""

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from uuid import uuid4

import typer
from rich.console import Console

from console import files, pictures, progress, sessions
from console.client import CANCEL, GENERATE, OUTLOOK, SIGNOUT, Answer, Client
from console.failures import CommandError, Exit
from console.sessions import Memory, SessionFile

_T = TypeVar("_T")

_PANEL: Final = "For customers"
_LOCAL: Final = "http://127.0.0.1:8000"
_NEVER_IN_FILES: Final = {"EMAIL"}
_ENDED: Final = {"FAILED": "failed", "REJECTED": "was rejected", "CANCELED": "was canceled"}
_OPTIONS: Final = {
    "prompt": "PROMPT",
    "negativePrompt": "--negative",
    "guidanceScale": "--guidance",
    "width": "--size, its width",
    "height": "--size, its height",
}
"""What a field of the API is called here, where that differs."""

app = typer.Typer(no_args_is_help=True, add_completion=False)

Url = Annotated[
    str,
    typer.Option(
        "--url",
        # The latter is what the stack of this machine says of itself.
        envvar=["DARKROOM_URL", "DARKROOM_PUBLIC_URL"],
        show_envvar=False,
        help="Where the service is; DARKROOM_URL says it too.",
    ),
]
Email = Annotated[
    str | None,
    typer.Option("--email", envvar="DARKROOM_EMAIL", help="Who asks, instead of who is signed in."),
]
Password = Annotated[
    str | None,
    typer.Option(
        "--password",
        envvar="DARKROOM_PASSWORD",
        help="With --email. Better in the variable: others on this machine see what you type here.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The picture's file, or a folder; of several pictures house.png makes house-1.png and so on."
        " Named for the prompt and the seed when left out.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]
GenerationId = Annotated[str, typer.Argument(help="What `generate` said.", metavar="ID")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where results go, for programs too, and where people are told the rest."""

    results: Console
    notes: Console
    as_json: bool

    @classmethod
    def of(cls, *, as_json: bool) -> "Terminal":
        """This program's own."""
        return cls(
            results=Console(soft_wrap=True, highlight=False),
            notes=Console(stderr=True, soft_wrap=True, highlight=False),
            as_json=as_json,
        )

    def note(self, line: str) -> None:
        """Tell people something."""
        if not self.as_json:
            self.notes.print(line, markup=False)

    def result(self, made: Answer, *, saved: list[Path], letter: str | None = None) -> None:
        """Say what came of it: the files, one a line, or everything as JSON."""
        if self.as_json:
            told = {**made, "files": [str(path) for path in saved], "letterTo": letter}
            self.results.out(json.dumps(told, indent=2))
        elif saved:
            self.results.out("\n".join(str(path) for path in saved))


@app.command("generate", rich_help_panel=_PANEL)
def generate_command(  # noqa: PLR0913, PLR0917 - one argument per option
    prompt: Annotated[str, typer.Argument(help="What to draw.", metavar="PROMPT")],
    output: Output = None,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    model: Annotated[str | None, typer.Option(help="A model of the service; else its default.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Width and height in pixels; else the model's own.", metavar="WxH")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strictly to follow the prompt.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="The sampler: DDIM, EULER, EULER_ANCESTRAL, DPMPP_2M, DPMPP_2M_KARRAS or LCM.",
            metavar="NAME",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same picture.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures, each with the next seed.")] = 1,
    image_format: Annotated[
        str | None,
        typer.Option("--format", help="png, jpeg or webp; else as the file is called.", metavar="FORMAT"),
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option(help="download or email; the former is for premium.", metavar="WAY"),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Say the id, and wait for nothing.")] = False,
    as_json: AsJson = False,
    url: Url = _LOCAL,
    email: Email = None,
    password: Password = None,
) -> None:
    """Make a picture of a prompt.

    Premium: waits for it and writes the file. Normal: says when the window opens; a letter brings it.
    """
    width, height = _size(size)
    fields = {
        "prompt": prompt,
        "negativePrompt": negative,
        "model": model,
        "width": width,
        "height": height,
        "steps": steps,
        "guidanceScale": guidance,
        "scheduler": scheduler.upper() if scheduler else None,
        "seed": seed,
        "count": count,
        "format": _format(image_format, output),
        "delivery": delivery.upper() if delivery else None,
        # Sent again after a lost answer, it is the same request.
        "idempotencyKey": str(uuid4()),
    }
    terminal = Terminal.of(as_json=as_json)
    client = _client(url, email=email, password=password)
    asked = {name: value for name, value in fields.items() if value is not None}
    made = _run(client.result(GENERATE, input=asked))
    if detach:
        terminal.result(made, saved=[]) if as_json else terminal.results.out(made["id"])
    elif made["delivery"] in _NEVER_IN_FILES:
        _tell_of_letter(client, made, output=output, terminal=terminal)
    else:
        _finish(client, made["id"], output=output, terminal=terminal)


@app.command("watch", rich_help_panel=_PANEL)
def watch_command(
    generation_id: GenerationId,
    output: Output = None,
    as_json: AsJson = False,
    url: Url = _LOCAL,
    email: Email = None,
    password: Password = None,
) -> None:
    """Watch a picture being made, to its end; then write it, if it is for download."""
    _finish(
        _client(url, email=email, password=password),
        generation_id,
        output=output,
        terminal=Terminal.of(as_json=as_json),
    )


@app.command("cancel", rich_help_panel=_PANEL)
def cancel_command(
    generation_id: GenerationId, url: Url = _LOCAL, email: Email = None, password: Password = None
) -> None:
    """Cancel a picture that has not been made."""
    _run(_client(url, email=email, password=password).result(CANCEL, id=generation_id))
    Terminal.of(as_json=False).note("Canceled.")


@app.command("signin", rich_help_panel=_PANEL)
def signin_command(
    email: Annotated[str, typer.Argument(envvar="DARKROOM_EMAIL", help="Asked for when left out.")] = "",
    password: Annotated[
        str, typer.Option("--password", envvar="DARKROOM_PASSWORD", help="Asked for when left out.")
    ] = "",
    url: Url = _LOCAL,
) -> None:
    """Sign in, for all further commands; tokens are kept in a file that only you can read."""
    email = email or typer.prompt("E-mail address", err=True)
    password = password or typer.prompt("Password", hide_input=True, err=True)
    session = _run(sessions.sign_in(url, email=email, password=password))
    SessionFile.usual(url).save(session)
    Terminal.of(as_json=False).note(f"You are signed in at {url} as {session.email}.")


@app.command("signout", rich_help_panel=_PANEL)
def signout_command(url: Url = _LOCAL) -> None:
    """End the session that `darkroom signin` began, and forget its tokens."""
    kept = SessionFile.usual(url)
    try:
        _run(sessions.client(url, kept).ask(SIGNOUT))
    except CommandError as error:
        # One that has ended is one less to end.
        if error.status is not Exit.SIGN_IN:
            raise
    kept.forget()
    Terminal.of(as_json=False).note(f"You are signed out at {url}.")


def _client(url: str, *, email: str | None, password: str | None) -> Client:
    if (email is None) != (password is None):
        raise typer.BadParameter("an e-mail address and a password are needed together")
    if email is None or password is None:
        return sessions.client(url, SessionFile.usual(url))
    return sessions.client(url, Memory(_run(sessions.sign_in(url, email=email, password=password))))


def _finish(client: Client, generation_id: str, *, output: Path | None, terminal: Terminal) -> None:
    """Watch to the end and write what there is to write; an interruption cancels, if that is meant.

    Raises:
        CommandError: it ended without pictures, or they do not arrive.
    """
    try:
        with _found_again(generation_id):
            made = _run(progress.follow(client.watch(generation_id), console=terminal.notes))
    except KeyboardInterrupt:
        _interrupted(client, generation_id, terminal=terminal)
        raise typer.Exit(Exit.INTERRUPTED) from None
    if made["state"] != "SUCCEEDED":
        terminal.result(made, saved=[])
        reason = f": {made['error']['message']}" if made["error"] else ""
        raise CommandError(f"the generation {_ENDED[made['state']]}{reason}")
    if made["delivery"] in _NEVER_IN_FILES:
        terminal.result(made, saved=[])
        terminal.note("Made; a letter brings it.")
        return
    with _found_again(generation_id):
        saved = pictures.targets(output, prompt=made["prompt"], images=made["images"])
        for image, path in zip(made["images"], saved, strict=True):
            data = _run(client.download(image))
            files.write(path, data)
            if not terminal.as_json:
                pictures.show(data, console=terminal.results)
    terminal.result(made, saved=saved)
    for image in made["images"]:
        terminal.note(
            f"{image['width']} by {image['height']} pixels, seed {image['seed']}, {made['steps']} steps"
        )


@contextmanager
def _found_again(generation_id: str) -> Iterator[None]:
    """Have an error say how to come back to a generation, whose id nothing else on the screen may tell."""
    try:
        yield
    except CommandError as error:
        # What is refused is refused again.
        if error.status is Exit.REFUSED:
            raise
        told = f"{error}; later `darkroom watch {generation_id}` finds it again"
        raise CommandError(told, status=error.status, details=error.details) from error


def _tell_of_letter(client: Client, made: Answer, *, output: Path | None, terminal: Terminal) -> None:
    address = opens_at = None
    try:
        outlook = _run(client.ask(OUTLOOK))
    except CommandError as error:
        # It is accepted all the same, and who asks for it again has it twice.
        terminal.note(f"When the next window opens is not known: {error}")
    else:
        address, opens_at = outlook["me"]["email"], outlook["service"]["nextWindowAt"]
    if made["tier"] == "NORMAL" and opens_at is not None:
        terminal.note(f"Accepted. The next window opens at {progress.moment(opens_at)}.")
    else:
        terminal.note("Accepted.")
    if made["estimatedFinishAt"] is not None:
        terminal.note(f"It should be made by {progress.moment(made['estimatedFinishAt'])}.")
    terminal.note(
        f"A letter{f' to {address}' if address else ''} brings the picture{'s' if made['count'] > 1 else ''}."
    )
    if output is not None:
        terminal.note(f"{output} is not written: what comes by letter is not downloaded.")
    terminal.note(f"darkroom watch {made['id']} shows how it goes; darkroom cancel {made['id']} ends it.")
    terminal.result({**made, "nextWindowAt": opens_at}, saved=[], letter=address)


def _interrupted(client: Client, generation_id: str, *, terminal: Terminal) -> None:
    """Ask whether it is to be canceled where somebody can answer; where nobody can, nobody waits for it."""
    asking = terminal.notes.is_terminal and not terminal.as_json
    if asking and not typer.confirm("\nCancel the generation?", err=True):
        terminal.note(f"It goes on: darkroom watch {generation_id}")
        return
    try:
        _run(client.result(CANCEL, id=generation_id))
    except CommandError as error:
        terminal.note(str(error))
    else:
        terminal.note("Canceled.")


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size such as 512x512", param_hint="--size")
    return int(found[1]), int(found[2])


def _format(chosen: str | None, output: Path | None) -> str | None:
    """What the option says, else the file's ending; both are the same where both are there."""
    ending = output.suffix.lower() if output is not None and not output.is_dir() else ""
    implied = pictures.FORMATS.get(ending)
    if ending and implied is None:
        raise typer.BadParameter(f"{ending} is none of {', '.join(pictures.FORMATS)}", param_hint="--output")
    wanted = {"jpg": "JPEG"}.get(chosen.lower(), chosen.upper()) if chosen else None
    if wanted and implied and wanted != implied:
        raise typer.BadParameter(f"{wanted} does not go into a file {ending}", param_hint="--format")
    return wanted or implied


def _run(action: Coroutine[Any, Any, _T]) -> _T:
    """Do it; a refused field is called as the command line calls it."""
    try:
        return asyncio.run(action)
    except CommandError as error:
        details = [(_OPTIONS.get(field, f"--{field}"), reason) for field, reason in error.details]
        raise CommandError(str(error), status=error.status, details=details) from error
