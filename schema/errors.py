"""What clients are told when something is wrong.

Errors that a client can act on are members of a mutation's union; each is made from one class of
:class:`core.errors.ClientError`. Everything else becomes an entry of ``errors`` with a code, and what was not
raised on purpose is masked behind an id that the log has.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final

import strawberry
import structlog
from graphql import GraphQLError
from strawberry.extensions import MaskErrors
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types.execution import StreamExecutionResult
from strawberry.types.field import StrawberryField

from core import errors, tracing
from core.telemetry import GRAPHQL_ERRORS
from schema.cost import ListSize

log = structlog.get_logger(__name__)


@strawberry.interface(description="Something that you can put right.")
class UserError:
    """Implemented by every error that a mutation's union holds."""

    message: str = strawberry.field(description="What is wrong, in a sentence for people.")


@strawberry.type(description="One refused field of an input.")
class FieldError:
    """A field and what is wrong with it."""

    field: str = strawberry.field(description="The field's name in the input.")
    message: str = strawberry.field(description="The reason and the limit.")


@strawberry.type(description="Fields are outside their limits; nothing was written.")
class InvalidInput(UserError):
    """All refused fields at once."""

    fields: list[FieldError] = strawberry.field(
        description="Every refused field.", directives=[ListSize(assumed_size=10)]
    )


@strawberry.type(description="E-mail address and password do not belong together.")
class InvalidCredentials(UserError):
    """Does not tell which of the two is wrong."""


@strawberry.type(description="Follow the link in the verification letter first.")
class EmailNotVerified(UserError):
    """The address is not proven yet."""


@strawberry.type(description="The token is unknown, used or expired.")
class InvalidToken(UserError):
    """A verification, reset or refresh token."""


@strawberry.type(description="The code is unknown, used or expired.")
class InvalidVoucher(UserError):
    """A voucher code."""


@strawberry.type(description="Nothing can be bought by card here, or not at the moment.")
class PaymentUnavailable(UserError):
    """A person has to act; trying again at once does not help."""


@strawberry.type(description="Only premium customers get this.")
class PremiumRequired(UserError):
    """Download on the normal tier."""


@strawberry.type(description="As many generations are open, or pictures were asked for, as your tier allows.")
class QuotaExceeded(UserError):
    """Wait for one to finish, or for the next day."""

    limit: int = strawberry.field(
        description="How many generations may be open, or pictures asked for in a day."
    )
    retry_after: float | None = strawberry.field(
        description="Seconds until so many pictures may be asked for; null where generations have to end."
    )


@strawberry.type(description="Too many attempts.")
class RateLimited(UserError):
    """Try again later."""

    retry_after: float = strawberry.field(description="Seconds until the next attempt counts.")


@strawberry.type(description="No such thing, or not yours.")
class NotFound(UserError):
    """The two are never told apart."""


@strawberry.type(description="It has ended already; that never changes.")
class AlreadyFinished(UserError):
    """Nothing left to cancel."""


class _Handler:
    """Turns one class of exceptions into one type; ``fields`` gives what the type has beside the message."""

    def __init__(
        self,
        exception_type: type[errors.ClientError],
        error_type: type[UserError],
        fields: Callable[[Any], dict[str, Any]] = lambda _: {},
    ) -> None:
        self.exception_type = exception_type
        self.error_type = error_type
        self._fields = fields

    def handle(
        self,
        exception: errors.ClientError,
        *,
        field: StrawberryField,  # noqa: ARG002 - the protocol's signature
        info: strawberry.Info,  # noqa: ARG002 - the protocol's signature
    ) -> UserError:
        return self.error_type(message=str(exception), **self._fields(exception))


def _field_errors(exception: errors.InvalidInputError) -> dict[str, Any]:
    return {"fields": [FieldError(field=item.field, message=item.message) for item in exception.problems]}


def exception_handlers() -> list[_Handler]:
    """From exceptions to union members; a field uses those whose type is in its union."""
    return [
        _Handler(errors.InvalidInputError, InvalidInput, _field_errors),
        _Handler(
            errors.QuotaExceededError,
            QuotaExceeded,
            lambda error: {"limit": error.limit, "retry_after": error.retry_after},
        ),
        _Handler(errors.RateLimitedError, RateLimited, lambda error: {"retry_after": error.retry_after}),
        _Handler(errors.InvalidCredentialsError, InvalidCredentials),
        _Handler(errors.EmailNotVerifiedError, EmailNotVerified),
        _Handler(errors.InvalidTokenError, InvalidToken),
        _Handler(errors.InvalidVoucherError, InvalidVoucher),
        _Handler(errors.PaymentUnavailableError, PaymentUnavailable),
        _Handler(errors.PremiumRequiredError, PremiumRequired),
        _Handler(errors.NotFoundError, NotFound),
        _Handler(errors.AlreadyFinishedError, AlreadyFinished),
    ]


_CODES: dict[type[errors.ClientError], str] = {
    errors.UnauthenticatedError: "UNAUTHENTICATED",
    errors.NotFoundError: "NOT_FOUND",
    errors.InvalidInputError: "BAD_USER_INPUT",
    errors.QuotaExceededError: "QUOTA_EXCEEDED",
    errors.RateLimitedError: "RATE_LIMITED",
}


_OURS: Final = ("INTERNAL", "SERVICE_UNAVAILABLE", "TIMEOUT")
"""Codes of errors that are no client's fault."""

_SUGGESTION: Final = re.compile(r" Did you mean [^?]+\?")
"""How graphql-core ends a message about a name or a value that is nearly right."""


class ErrorPresentation(MaskErrors):
    """Gives every entry of ``errors`` a code, and masks what was not meant for clients."""

    def on_stream_result(self, result: StreamExecutionResult) -> Iterator[None]:
        """Looks at those with errors alone: Strawberry takes long to find out that there are none."""
        if getattr(result, "errors", None):
            yield from super().on_stream_result(result)
        else:
            yield

    def anonymise_error(self, error: GraphQLError) -> GraphQLError:
        """The error as the client may see it."""
        return presentable(error)


def presentable(error: GraphQLError) -> GraphQLError:
    """The error as the client may see it, which is counted."""
    presented = _as_client_sees(error)
    code = str((presented.extensions or {}).get("code", "GRAPHQL_INVALID"))
    GRAPHQL_ERRORS.labels(code=code).inc()
    if code in _OURS:
        tracing.current().fail(code)
    return presented


def _as_client_sees(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        # The request itself is wrong: its syntax, its fields or its variables.
        error.message = _SUGGESTION.sub("", error.message)
        return error
    if isinstance(cause, CannotGetOperationTypeError):
        return _presented(error, cause.as_http_error_reason(), "BAD_REQUEST")
    if isinstance(cause, errors.ClientError):
        return _presented(error, str(cause), _CODES.get(type(cause), "BAD_USER_INPUT"))
    if isinstance(cause, errors.ServiceUnavailableError):
        log.warning("backing_service_unavailable", error=repr(cause))
        return _presented(error, "A backing service does not answer. Try again.", "SERVICE_UNAVAILABLE")
    error_id = secrets.token_hex(6)
    log.error("unexpected_error", error_id=error_id, path=error.path, exc_info=cause)
    return _presented(error, f"Something went wrong on our side (error {error_id}).", "INTERNAL")


def _presented(error: GraphQLError, message: str, code: str) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={"code": code},
    )
