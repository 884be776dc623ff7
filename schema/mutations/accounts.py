"""Signing up, proving an address, choosing a new password, and leaving."""

from typing import Annotated

import strawberry

from schema.context import Context
from schema.cost import PASSWORD_HASH
from schema.errors import InvalidCredentials, InvalidInput, InvalidToken, RateLimited
from schema.types.account import Account


@strawberry.input(description="Who wants an account.")
class SignupInput:
    """An address and a password."""

    email: str = strawberry.field(description="Where letters go; it has to be verified.")
    password: str = strawberry.field(
        description="8 to 128 characters, none of the most used; passphrases are welcome."
    )


@strawberry.input(description="A new password, by the token of a reset letter.")
class ResetPasswordInput:
    """A mailed token and a password."""

    token: str = strawberry.field(description="From the link in the letter.")
    password: str = strawberry.field(description="8 to 128 characters, none of the most used.")


@strawberry.input(description="Deletes your account.")
class DeleteAccountInput:
    """The password."""

    password: str = strawberry.field(description="The account's present one.")


@strawberry.type(description="A letter is on its way. Whether the address was free is told only there.")
class SignupAccepted:
    """The same answer for a known and an unknown address."""

    message: str = strawberry.field(description="What to do next.")


@strawberry.type(description="If there is such an account, a letter is on its way.")
class PasswordResetRequested:
    """The same answer for a known and an unknown address."""

    message: str = strawberry.field(description="What to do next.")


@strawberry.type(description="Your account is closed for good, and every session has ended.")
class AccountDeleted:
    """What is left of it is deleted within minutes."""

    message: str = strawberry.field(description="For people.")


@strawberry.type(description="What you chose.")
class RemindersSet:
    """The account as it is now."""

    account: Account = strawberry.field(description="You.")


SignupResult = Annotated[
    SignupAccepted | InvalidInput | RateLimited,
    strawberry.union("SignupResult", description="What came of `signup`."),
]
VerifyEmailResult = Annotated[
    Account | InvalidToken, strawberry.union("VerifyEmailResult", description="What came of `verifyEmail`.")
]
RequestPasswordResetResult = Annotated[
    PasswordResetRequested | RateLimited,
    strawberry.union("RequestPasswordResetResult", description="What came of `requestPasswordReset`."),
]
ResetPasswordResult = Annotated[
    Account | InvalidToken | InvalidInput | RateLimited,
    strawberry.union("ResetPasswordResult", description="What came of `resetPassword`."),
]

DeleteAccountResult = Annotated[
    AccountDeleted | InvalidCredentials | RateLimited,
    strawberry.union("DeleteAccountResult", description="What came of `deleteAccount`."),
]


@strawberry.type
class AccountMutation:
    """Mutations about an account's address and password."""

    @strawberry.mutation(
        description="Ask for an account; a letter with a link follows.", directives=[PASSWORD_HASH]
    )
    async def signup(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[SignupInput, strawberry.argument(description="Who you are.")],  # noqa: A002 - the contract's name
    ) -> SignupResult:
        """Never tells whether the address is taken."""
        await info.context.services.registration.signup(
            email=input.email, password=input.password, address=info.context.address
        )
        return SignupAccepted(message="Look into your mailbox: a letter tells how to go on.")

    @strawberry.mutation(description="Prove that an address is yours.")
    async def verify_email(
        self,
        info: strawberry.Info[Context, None],
        token: Annotated[str, strawberry.argument(description="From the link in the letter.")],
    ) -> VerifyEmailResult:
        """A token works once."""
        return Account.of(await info.context.services.registration.verify_email(token))

    @strawberry.mutation(description="Ask for a letter with a link to choose a new password.")
    async def request_password_reset(
        self,
        info: strawberry.Info[Context, None],
        email: Annotated[str, strawberry.argument(description="The account's address.")],
    ) -> RequestPasswordResetResult:
        """Never tells whether there is such an account."""
        await info.context.services.registration.request_password_reset(
            email=email, address=info.context.address
        )
        return PasswordResetRequested(message="If there is such an account, a letter is on its way.")

    @strawberry.mutation(description="Choose a new password; every session ends.", directives=[PASSWORD_HASH])
    async def reset_password(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[ResetPasswordInput, strawberry.argument(description="The token and the password.")],  # noqa: A002 - the contract's name
    ) -> ResetPasswordResult:
        """A token works once."""
        account = await info.context.services.registration.reset_password(
            token=input.token, password=input.password, address=info.context.address
        )
        return Account.of(account)

    @strawberry.mutation(
        description="Choose whether a letter reminds you before premium ends. All other letters answer "
        "something that you did, and come in any case."
    )
    async def set_reminders(
        self,
        info: strawberry.Info[Context, None],
        enabled: Annotated[bool, strawberry.argument(description="Whether you want it.")],
    ) -> RemindersSet:
        """The link in such a letter does the same."""
        viewer = await info.context.viewer()
        await info.context.services.reminders.choose(viewer.account.id, wanted=enabled)
        await viewer.account.refresh_from_db(fields=["reminders_off_at"])
        return RemindersSet(account=Account.of(viewer.account))

    @strawberry.mutation(
        description="Delete your account with its prompts and pictures; nothing of it can be brought back. "
        "Open generations are canceled, premium time that is left is lost, and the address is free again.",
        directives=[PASSWORD_HASH],
    )
    async def delete_account(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[DeleteAccountInput, strawberry.argument(description="Your password.")],  # noqa: A002 - the contract's name
    ) -> DeleteAccountResult:
        """Every session ends at once."""
        await info.context.services.closing.close(
            await info.context.viewer(), password=input.password, address=info.context.address
        )
        return AccountDeleted(message="Your account is closed. Its prompts and pictures are being deleted.")
