"""A small GraphQL client for the tests."""

import ssl
from dataclasses import dataclass
from typing import Any, Final

import httpx

NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of addresses without TLS: reading whom to trust takes a twentieth of a second each time."""

PASSWORD = "correct horse battery staple"

SIGNIN = """
mutation ($input: SigninInput!) {
  signin(input: $input) {
    __typename
    ... on Session { accessToken refreshToken expiresAt account { email tier } }
    ... on UserError { message }
  }
}
"""


@dataclass
class Client:
    """Speaks GraphQL over HTTP; ``token`` is sent with every operation once it is set."""

    http: httpx.AsyncClient
    port: int
    token: str | None = None

    async def execute(self, query: str, **variables: Any) -> dict[str, Any]:
        """The whole answer."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        response = await self.http.post(
            "/graphql", json={"query": query, "variables": variables}, headers=headers
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an operation that must have no errors."""
        answer = await self.execute(query, **variables)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    async def signed_in(self, email: str, password: str = PASSWORD) -> "Client":
        """Another client, signed in."""
        answer = await self.data(SIGNIN, input={"email": email, "password": password})
        return Client(http=self.http, port=self.port, token=answer["signin"]["accessToken"])
