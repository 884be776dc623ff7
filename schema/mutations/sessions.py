"""Signing in and out."""

from typing import Annotated

import strawberry

from schema.context import Context
from schema.cost import PASSWORD_HASH
from schema.errors import EmailNotVerified, InvalidCredentials, InvalidInput, InvalidToken, RateLimited
from schema.types.account import Account, Session


@strawberry.input(description="Who signs in.")
class SigninInput:
    """An address and a password."""

    email: str = strawberry.field(description="The account's address.")
    password: str = strawberry.field(description="Its password.")


@strawberry.input(description="Another password, by the present one.")
class ChangePasswordInput:
    """Two passwords."""

    current_password: str = strawberry.field(description="The present one.")
    new_password: str = strawberry.field(description="8 to 128 characters, none of the most used.")


@strawberry.type(description="The session was ended, or all of them; the tokens stopped working at once.")
class SignedOut:
    """Nothing more to say."""

    message: str = strawberry.field(description="For people.")


SigninResult = Annotated[
    Session | InvalidCredentials | EmailNotVerified | RateLimited,
    strawberry.union("SigninResult", description="What came of `signin`."),
]
RefreshSessionResult = Annotated[
    Session | InvalidToken,
    strawberry.union("RefreshSessionResult", description="What came of `refreshSession`."),
]
ChangePasswordResult = Annotated[
    Account | InvalidCredentials | InvalidInput | RateLimited,
    strawberry.union("ChangePasswordResult", description="What came of `changePassword`."),
]


@strawberry.type
class SessionMutation:
    """Mutations about sessions."""

    @strawberry.mutation(description="Sign in with address and password.", directives=[PASSWORD_HASH])
    async def signin(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[SigninInput, strawberry.argument(description="Address and password.")],  # noqa: A002 - the contract's name
    ) -> SigninResult:
        """Opens a session."""
        tokens = await info.context.services.sessions.signin(
            email=input.email, password=input.password, address=info.context.address
        )
        return Session.of(tokens)

    @strawberry.mutation(description="Trade a refresh token for a new pair of tokens.")
    async def refresh_session(
        self,
        info: strawberry.Info[Context, None],
        refresh_token: Annotated[str, strawberry.argument(description="The latest one of the session.")],
    ) -> RefreshSessionResult:
        """A token that is used again ends the session."""
        return Session.of(await info.context.services.sessions.refresh(refresh_token))

    @strawberry.mutation(description="End the session whose access token is sent.")
    async def signout(self, info: strawberry.Info[Context, None]) -> SignedOut:
        """Effective at once."""
        await info.context.services.sessions.signout(await info.context.viewer())
        return SignedOut(message="You are signed out.")

    @strawberry.mutation(description="End every session of your account.")
    async def signout_everywhere(self, info: strawberry.Info[Context, None]) -> SignedOut:
        """Effective at once."""
        await info.context.services.sessions.signout_everywhere(await info.context.viewer())
        return SignedOut(message="You are signed out everywhere.")

    @strawberry.mutation(
        description="Set another password; every other session of your account ends.",
        directives=[PASSWORD_HASH],
    )
    async def change_password(
        self,
        info: strawberry.Info[Context, None],
        input: Annotated[ChangePasswordInput, strawberry.argument(description="Both passwords.")],  # noqa: A002 - the contract's name
    ) -> ChangePasswordResult:
        """The session that asks goes on."""
        account = await info.context.services.sessions.change_password(
            await info.context.viewer(),
            current=input.current_password,
            new=input.new_password,
            address=info.context.address,
        )
        return Account.of(account)
