"""Signing in and out."""

from typing import Annotated

import strawberry

from schema.context import Context
from schema.errors import EmailNotVerified, InvalidCredentials, InvalidToken, RateLimited
from schema.types.account import Session


@strawberry.input(description="Who signs in.")
class SigninInput:
    """An address and a password."""

    email: str = strawberry.field(description="The account's address.")
    password: str = strawberry.field(description="Its password.")


@strawberry.type(description="The session was ended; its tokens stopped working at once.")
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


@strawberry.type
class SessionMutation:
    """Mutations about sessions."""

    @strawberry.mutation(description="Sign in with address and password.")
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
