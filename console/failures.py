"""How a customer's command may end, other than well."""

from collections.abc import Sequence
from enum import IntEnum

from core.errors import DarkroomError


class Exit(IntEnum):
    """Exit statuses of the customers' commands; 2 is also what a wrong option ends with."""

    FAILED = 1
    REFUSED = 2
    SIGN_IN = 3
    LIMIT = 4
    INTERRUPTED = 130


class CommandError(DarkroomError):
    """A command cannot go on.

    Attributes:
        status: what the program ends with.
        details: further lines, a field and what is wrong with it each.
    """

    def __init__(
        self, message: str, *, status: Exit = Exit.FAILED, details: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.details = details
