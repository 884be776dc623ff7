"""The operation in a request's body, as https://graphql.github.io/graphql-over-http/draft/ has it."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError


class RefusedRequestError(Exception):
    """The request is not answered as it is.

    Attributes:
        status: of the answer.
        reason: what is wrong, for the client.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

    @classmethod
    def of(
        cls, error: MissingQueryError | CannotGetOperationTypeError | InvalidOperationTypeError
    ) -> "RefusedRequestError":
        """What Strawberry raises for a document in which there is no such operation, or not for here."""
        if isinstance(error, MissingQueryError):
            return _bad("No GraphQL query found in the request")
        if isinstance(error, InvalidOperationTypeError):
            return _bad(error.as_http_error_reason("POST"))
        return _bad(error.as_http_error_reason())


@dataclass(frozen=True, slots=True)
class Operation:
    """What a client asks for."""

    query: str | None
    variables: dict[str, Any] | None
    name: str | None
    extensions: dict[str, Any] | None


def decode_json(data: str | bytes) -> object:
    """What JSON says.

    Raises:
        JSONDecodeError: it is none, or is nested without end, has a number without end or half a surrogate
            pair, which no database and no hash takes.
    """
    found: object = orjson.loads(data)
    return found


def read_operation(body: bytes) -> Operation:
    """One operation: an object whose parts have the types that they have to have.

    Raises:
        RefusedRequestError: it is anything else.
    """
    try:
        found = decode_json(body)
    except orjson.JSONDecodeError as error:
        raise _bad("Unable to parse request body as JSON") from error
    if not isinstance(found, dict):
        raise _bad("The body has to be a JSON object, with one operation in it.")
    return Operation(
        query=_part(found, "query", str, "a string"),
        variables=_part(found, "variables", dict, "an object"),
        name=_part(found, "operationName", str, "a string"),
        extensions=_part(found, "extensions", dict, "an object"),
    )


def _part(found: dict[str, Any], name: str, kind: type, called: str) -> Any:  # noqa: ANN401 - of that kind
    value = found.get(name)
    if value is not None and not isinstance(value, kind):
        raise _bad(f"The GraphQL operation's `{name}` must be {called} or null.")
    return value


def _bad(reason: str) -> RefusedRequestError:
    return RefusedRequestError(HTTPStatus.BAD_REQUEST, reason)
