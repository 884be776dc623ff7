"""What a newcomer reads once the stack is ready."""

import json
import shlex
from typing import Final

from infra.local.home import Home
from infra.local.processes import NORMAL_EMAIL, PREMIUM_EMAIL
from infra.local.settings import StackSettings

_DEFAULT_WINDOW: Final = StackSettings.model_fields["window"].default

_SIGNIN: Final = (
    "mutation($input: SigninInput!) { signin(input: $input) "
    "{ ... on Session { accessToken } ... on UserError { message } } }"
)
_GENERATE: Final = (
    "mutation($input: GenerateInput!) { generate(input: $input) "
    "{ ... on Generation { id state } ... on UserError { message } } }"
)
_LATEST: Final = "{ generations(first: 1) { edges { node { state images { url } } } } }"

_TEXT: Final = """
Darkroom is ready.

  Studio     {url}/
  GraphiQL   {url}/graphql
  Letters    {url}/inbox
  Health     {url}/health/ready
  Logs       {logs}

  Accounts   {premium}   pictures at once
             {normal}    pictures with the next window, by e-mail
  Password   {password}   (of both)

  Window     {window}{window_note}
  Models     {models}{models_note}

A first picture, which asks for that password:

  .venv/bin/darkroom signin {premium} --url {url}
  .venv/bin/darkroom generate "a red house by the sea at sunset" -o house.png --url {url}

or with curl alone:

{query}

Ctrl-C stops everything; {home} keeps its state.
"""


def compose(settings: StackSettings, *, url: str, home: Home, password: str) -> str:
    """The banner, with commands and a query that can be pasted into a shell as they are."""
    is_default = settings.window == _DEFAULT_WINDOW
    note = "   (every 2 minutes; DARKROOM_WINDOW sets another)" if is_default else "   (from DARKROOM_WINDOW)"
    offered = settings.offer.models
    bundled = settings.models is None and settings.catalogue is None
    return _TEXT.format(
        url=url,
        logs=home.logs,
        home=home.root,
        premium=PREMIUM_EMAIL,
        normal=NORMAL_EMAIL,
        password=password,
        window=settings.window,
        window_note=note,
        models=", ".join(offered) or f"all of {settings.catalogue or 'the catalogue'}",
        models_note="   (bundled; `make pin` and DARKROOM_MODELS bring others)" if bundled else "",
        query=_first_query(url, password),
    )


def _first_query(url: str, password: str) -> str:
    signin = _body(_SIGNIN, {"email": PREMIUM_EMAIL, "password": password})
    generate = _body(_GENERATE, {"prompt": "a red house by the sea at sunset"})
    endpoint = shlex.quote(f"{url}/graphql")
    return "\n".join(
        (
            f"ask() {{ curl -sS {endpoint} -H 'content-type: application/json' \"$@\"; echo; }}",
            f'TOKEN=$(ask -d {signin} | sed \'s/.*"accessToken": *"\\([^"]*\\)".*/\\1/\')',
            f'ask -H "authorization: Bearer $TOKEN" -d {generate}',
            f'sleep 5; ask -H "authorization: Bearer $TOKEN" -d {_body(_LATEST)}',
        )
    )


def _body(query: str, values: dict[str, str] | None = None) -> str:
    """A GraphQL request as one shell word."""
    body: dict[str, object] = {"query": query}
    if values is not None:
        body["variables"] = {"input": values}
    return shlex.quote(json.dumps(body))
