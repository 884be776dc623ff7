import pytest

from core.settings import LimitSettings
from tests.graphql_client import Client


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(signin_attempts_per_minute=3, signup_attempts_per_hour=2)


async def test_aliased_signins_are_counted_one_by_one(client: Client) -> None:
    attempt = 'signin(input: { email: "a@example.org", password: "guess" }) { __typename'
    fields = " ".join(f"a{number}: {attempt} ... on RateLimited {{ retryAfter }} }}" for number in range(5))
    answer = await client.data(f"mutation {{ {fields} }}")
    kinds = [answer[f"a{number}"]["__typename"] for number in range(5)]
    assert kinds == ["InvalidCredentials"] * 3 + ["RateLimited"] * 2
    assert 1 <= answer["a4"]["retryAfter"] <= 60


async def test_signups_from_one_address_are_counted(client: Client) -> None:
    signup = 'mutation { signup(input: { email: "a@example.org", password: "long enough" }) { __typename } }'
    kinds = [(await client.data(signup))["signup"]["__typename"] for _ in range(3)]
    assert kinds == ["SignupAccepted", "SignupAccepted", "RateLimited"]
