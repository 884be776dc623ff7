"""Sign in, ask for a picture, watch it being made, save it.

pip install 'gql[aiohttp,websockets]'
DARKROOM_EMAIL=… DARKROOM_PASSWORD=… python generate.py "a red house at sunset" house.png
"""

import asyncio
import os
import sys
from typing import Any
from urllib.error import URLError
from urllib.request import urlretrieve

from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed
from gql.transport.websockets import WebsocketsTransport

URL = os.environ.get("DARKROOM_URL", "http://127.0.0.1:8000")

SIGN_IN = """
  mutation ($input: SigninInput!) {
    signin(input: $input) {
      __typename
      ... on Session { accessToken }
      ... on UserError { message }
    }
  }
"""
GENERATE = """
  mutation ($input: GenerateInput!) {
    generate(input: $input) {
      __typename
      ... on Generation { id }
      ... on InvalidInput { fields { field message } }
      ... on UserError { message }
    }
  }
"""
WATCH = """
  subscription ($id: ID!) {
    generationStatus(id: $id) {
      state step totalSteps etaSeconds
      generation { error { message } images { url } }
    }
  }
"""


async def ask(document: str, fields: dict[str, Any], *, token: str | None = None) -> dict[str, Any]:
    """The success of a mutation; its errors end the program."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with Client(transport=AIOHTTPTransport(url=f"{URL}/graphql", headers=headers)) as session:
        request = GraphQLRequest(document, variable_values={"input": fields})
        [result] = (await session.execute(request)).values()
    if "message" in result:
        sys.exit(f"{result['message']} {result.get('fields', '')}")
    return dict(result)


async def watch(generation_id: str, *, token: str) -> dict[str, Any]:
    """The last event of a generation; the others are printed."""
    transport = WebsocketsTransport(
        url=f"{URL.replace('http', 'ws', 1)}/graphql",
        subprotocols=["graphql-transport-ws"],
        init_payload={"authorization": f"Bearer {token}"},
    )
    status: dict[str, Any] = {}
    async with Client(transport=transport) as session:
        request = GraphQLRequest(WATCH, variable_values={"id": generation_id})
        async for event in session.subscribe(request):
            status = event["generationStatus"]
            print(status["state"], f"step {status['step']} of {status['totalSteps']}")
    return status


async def main(prompt: str, path: str) -> None:
    """From the prompt to the file."""
    credentials = {"email": os.environ["DARKROOM_EMAIL"], "password": os.environ["DARKROOM_PASSWORD"]}
    token = (await ask(SIGN_IN, credentials))["accessToken"]
    generation = await ask(GENERATE, {"prompt": prompt, "delivery": "DOWNLOAD"}, token=token)
    status = await watch(generation["id"], token=token)
    if status["state"] != "SUCCEEDED":
        sys.exit(f"{status['state']}: {status['generation']['error']}")
    urlretrieve(status["generation"]["images"][0]["url"], path)
    print(path)


try:
    asyncio.run(main(*sys.argv[1:3]))
except (TransportConnectionFailed, URLError) as error:
    sys.exit(f"No answer from {URL}: {error}")
