"""The public API, as the customers' commands speak it: GraphQL over HTTP and a websocket."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

import aiohttp
from gql import Client as GqlClient
from gql import GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportError, TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from websockets.exceptions import ConnectionClosed

from console.failures import CommandError, Exit

Answer = dict[str, Any]
AccessToken = Callable[[], Awaitable[str]]

_AWAY: Final = (TransportError, aiohttp.ClientError, OSError, TimeoutError)
"""What the libraries raise when nobody answers, or somebody breaks off."""

_TRANSIENT: Final = {"SERVICE_UNAVAILABLE", "TIMEOUT"}
_PAUSES: Final = (0.5, 1.0, 2.0)
_WATCH_PATIENCE: Final = 60.0
_WATCH_PAUSE: Final = 1.0
_DOWNLOAD_SECONDS: Final = 120

_FORBIDDEN: Final = 4403
"""The code with which a socket is closed whose token is no good."""

_LIMITS: Final = {"RateLimited", "QuotaExceeded", "QUOTA_EXCEEDED", "RATE_LIMITED"}
_WRONG: Final = {"", "BAD_USER_INPUT", "NOT_FOUND"}
"""Codes of what nobody but the caller can mend; a value that is none of a type has no code."""

_SIGN_IN: Final = {"InvalidCredentials", "InvalidToken", "EmailNotVerified", "UNAUTHENTICATED"}

_GENERATION: Final = """
fragment Made on Generation {
  id prompt model width height steps seed count format tier delivery state
  error { message } images { url seed width height contentType byteSize sha256 }
  createdAt finishedAt estimatedFinishAt
}
"""
SIGNIN: Final = """
mutation ($input: SigninInput!) {
  signin(input: $input) {
    __typename
    ... on Session { accessToken refreshToken expiresAt account { email tier } }
    ... on UserError { message }
  }
}
"""
REFRESH: Final = """
mutation ($refreshToken: String!) {
  refreshSession(refreshToken: $refreshToken) {
    __typename
    ... on Session { accessToken refreshToken expiresAt account { email tier } }
    ... on UserError { message }
  }
}
"""
SIGNOUT: Final = "mutation { signout { message } }"
GENERATE: Final = (
    """
mutation ($input: GenerateInput!) {
  generate(input: $input) {
    __typename
    ... on Generation { ...Made }
    ... on InvalidInput { fields { field message } }
    ... on QuotaExceeded { limit retryAfter }
    ... on UserError { message }
  }
}
"""
    + _GENERATION
)
CANCEL: Final = """
mutation ($id: ID!) {
  cancelGeneration(id: $id) { __typename ... on Generation { state } ... on UserError { message } }
}
"""
OUTLOOK: Final = "{ me { email } service { nextWindowAt } }"
STATUS: Final = (
    """
subscription ($id: ID!) {
  generationStatus(id: $id) {
    state step totalSteps fraction queuePosition etaSeconds generation { ...Made }
  }
}
"""
    + _GENERATION
)

_T = TypeVar("_T")


class Client:
    """Speaks to one Darkroom.

    Args:
        url: where it is, without ``/graphql``.
        access_token: gives a token that is good for now; not asked where an operation needs none.
    """

    def __init__(self, url: str, *, access_token: AccessToken | None = None) -> None:
        self._url = url.rstrip("/")
        self._access_token = access_token

    async def ask(self, document: str, **variables: object) -> Answer:
        """The data of a query or mutation, tried again for some seconds while the service is away.

        Raises:
            CommandError: it stays away, or it refuses.
        """

        async def once() -> Answer:
            headers = {}
            if self._access_token is not None:
                headers["Authorization"] = f"Bearer {await self._access_token()}"
            transport = AIOHTTPTransport(url=f"{self._url}/graphql", headers=headers)
            async with GqlClient(transport=transport) as session:
                answer: Answer = await session.execute(GraphQLRequest(document, variable_values=variables))
                return answer

        return await self._insist(once)

    async def result(self, document: str, **variables: object) -> Answer:
        """What a mutation's union holds, where that is no error.

        Raises:
            CommandError: it is one; or as :meth:`ask`.
        """
        [answer] = (await self.ask(document, **variables)).values()
        return accepted(answer)

    async def watch(self, generation_id: str) -> AsyncIterator[Answer]:
        """The events of a generation to its end, across lost connections and expired tokens.

        Raises:
            CommandError: there is no such generation, the session has ended, or the service stays away for a
                minute.
        """
        loop = asyncio.get_running_loop()
        given_up_at = loop.time() + _WATCH_PATIENCE
        while True:
            try:
                async for event in self._events(generation_id):
                    yield event
                    given_up_at = loop.time() + _WATCH_PATIENCE
            except TransportQueryError as error:
                if _code(error) not in _TRANSIENT:
                    raise _refusal(error) from error
            except _AWAY as error:
                if loop.time() > given_up_at:
                    raise self._unreachable(error) from error
            else:
                return
            await asyncio.sleep(_WATCH_PAUSE)

    async def _events(self, generation_id: str) -> AsyncIterator[Answer]:
        assert self._access_token is not None  # noqa: S101 - nobody watches without an account
        scheme, _, rest = self._url.partition("://")
        transport = WebsocketsTransport(
            url=f"{'wss' if scheme == 'https' else 'ws'}://{rest}/graphql",
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
            init_payload={"authorization": f"Bearer {await self._access_token()}"},
            ssl=scheme == "https",
        )
        async with AsyncExitStack() as stack:
            try:
                session = await stack.enter_async_context(GqlClient(transport=transport))
            except TransportConnectionFailed as error:
                if _close_code(error) == _FORBIDDEN:
                    raise _signed_out() from error
                raise
            request = GraphQLRequest(STATUS, variable_values={"id": generation_id})
            async for answer in session.subscribe(request):
                yield answer["generationStatus"]

    async def download(self, image: Mapping[str, Any]) -> bytes:
        """A picture's file.

        Raises:
            CommandError: it does not arrive, or not as it was made.
        """

        async def once() -> bytes:
            timeout = aiohttp.ClientTimeout(total=_DOWNLOAD_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
                session.get(image["url"]) as response,
            ):
                data = await response.read()
            if hashlib.sha256(data).hexdigest() != image["sha256"]:
                raise aiohttp.ClientPayloadError("a picture arrived that is not the one that was made")
            return data

        return await self._insist(once)

    async def _insist(self, once: Callable[[], Awaitable[_T]]) -> _T:
        for pause in (*_PAUSES, None):
            try:
                return await once()
            except TransportQueryError as error:
                if pause is None or _code(error) not in _TRANSIENT:
                    raise _refusal(error) from error
            except _AWAY as error:
                if pause is None:
                    raise self._unreachable(error) from error
            await asyncio.sleep(pause)
        raise AssertionError  # the last try has returned or raised

    def _unreachable(self, error: BaseException) -> CommandError:
        reason = str(error) or type(error).__name__
        return CommandError(f"no answer from {self._url}: {reason} (--url or DARKROOM_URL says where it is)")


def accepted(answer: Answer) -> Answer:
    """A union's member, unless it is an error.

    Raises:
        CommandError: it is one; fields are named with what is wrong with each.
    """
    kind = answer["__typename"]
    if "message" not in answer:
        return answer
    details = [(field["field"], field["message"]) for field in answer.get("fields", ())]
    wait = answer.get("retryAfter")
    # The message of several refused fields is all of theirs in a line.
    message = "this cannot be asked for" if details else answer["message"]
    if wait is not None:
        message = f"{message} Try again in {wait:.0f} s."
    status = Exit.LIMIT if kind in _LIMITS else Exit.SIGN_IN if kind in _SIGN_IN else Exit.REFUSED
    raise CommandError(message, status=status, details=details)


def _code(error: TransportQueryError) -> str:
    [first, *_] = error.errors or [{}]
    return str(first.get("extensions", {}).get("code", ""))


def _close_code(error: TransportConnectionFailed) -> int | None:
    cause = error.__cause__
    return cause.rcvd.code if isinstance(cause, ConnectionClosed) and cause.rcvd else None


def _signed_out() -> CommandError:
    return CommandError("you are not signed in any more: run `darkroom signin`", status=Exit.SIGN_IN)


def _refusal(error: TransportQueryError) -> CommandError:
    [first, *_] = error.errors or [{"message": str(error)}]
    code = _code(error)
    if code == "UNAUTHENTICATED":
        return _signed_out()
    status = Exit.LIMIT if code in _LIMITS else Exit.REFUSED if code in _WRONG else Exit.FAILED
    return CommandError(str(first["message"]), status=status)
