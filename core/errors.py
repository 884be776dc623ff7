"""The one error tree of Darkroom.

What a client may see, and whether trying again can help, are facts of the class, so that nobody who catches
an error has to guess. Anything that is not a :class:`DarkroomError` is masked at the edge.
"""

from dataclasses import dataclass


class DarkroomError(Exception):
    """Root of every error raised on purpose.

    Attributes:
        retryable: whether the same call may succeed later without anybody changing anything.
    """

    retryable: bool = False


class ConfigurationError(DarkroomError):
    """A setting, file or server is not as this process needs it; a person has to act."""


class ServiceUnavailableError(DarkroomError):
    """A backing service (database, broker, object store, mail server) does not answer."""

    retryable = True


class ConflictError(DarkroomError):
    """The broker already holds a message on this subject."""


class InvalidMessageError(DarkroomError):
    """A wire message does not follow its schema; delivering it again cannot help."""


class InvalidWebhookError(DarkroomError):
    """A webhook does not come from whom it says, or cannot be read; delivering it again cannot help."""


class ObjectNotFoundError(DarkroomError):
    """No object is stored under this key."""


class WeightsError(DarkroomError):
    """Model weights are missing, incomplete or not what the catalogue names."""


class GenerationFailedError(DarkroomError):
    """The model ran and did not give usable pictures; the reason is fit for the customer."""


class GenerationRejectedError(DarkroomError):
    """The model's safety check held a picture back; the reason is fit for the customer."""


class ClientError(DarkroomError):
    """The caller did something it can mend; the message is written for it."""


class UnauthenticatedError(ClientError):
    """No valid access token came with the request."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One refused input field.

    Attributes:
        field: path of the field as the client wrote it, such as ``width``.
        message: the reason and the limit, in a sentence.
    """

    field: str
    message: str


class InvalidInputError(ClientError):
    """One or more input fields are outside their limits; nothing was written."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


class InvalidCredentialsError(ClientError):
    """E-mail address and password do not belong together."""


class EmailNotVerifiedError(ClientError):
    """The account has to prove its e-mail address first."""


class InvalidTokenError(ClientError):
    """A verification, reset or refresh token is unknown, used or expired."""


class InvalidVoucherError(ClientError):
    """A voucher code is unknown, used or expired."""


class PaymentUnavailableError(ClientError):
    """Nothing can be bought by card here."""


class PremiumRequiredError(ClientError):
    """The request asks for something that only premium customers get."""


class QuotaExceededError(ClientError):
    """The account already has as much as its tier allows.

    Attributes:
        limit: how much that is.
        retry_after: in how many whole seconds there is room again, where that is known.
    """

    retryable = True

    def __init__(self, message: str, *, limit: int, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class RateLimitedError(ClientError):
    """Too many attempts; ``retry_after`` says in how many whole seconds the next one counts."""

    retryable = True

    def __init__(self, *, retry_after: int) -> None:
        plural = "" if retry_after == 1 else "s"
        super().__init__(f"Too many attempts. Try again in {retry_after} second{plural}.")
        self.retry_after = retry_after


class NotFoundError(ClientError):
    """No such thing, or it belongs to somebody else: the two are never told apart."""


class AlreadyFinishedError(ClientError):
    """The generation is in a terminal state, which never changes."""
