import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from core.accounts.limits import Action, Allowance, RateLimiter, Standing
from core.accounts.places import SubscriptionPlaces
from core.clock import now
from core.errors import QuotaExceededError, RateLimitedError
from core.lifecycle import Tier
from core.models import Generation, RateLimit, Subscription
from core.repository import rate_limits
from core.settings import DatabaseSettings, LimitSettings
from tests.conftest import NewAccount
from tests.graphql_client import Client

LIMITS = LimitSettings(
    max_open_normal=4,
    max_open_premium=50,
    max_subscriptions_normal=2,
    pictures_per_day_normal=6,
    signin_attempts_per_minute=3,
    signup_attempts_per_hour=2,
    voucher_attempts_per_minute=2,
)
GENERATE = """
mutation ($count: Int!) {
  generate(input: { prompt: "a lighthouse", count: $count }) {
    __typename ... on UserError { message } ... on QuotaExceeded { limit retryAfter }
  }
}
"""
STANDINGS = "{ rateLimit { name limit remaining windowSeconds restoredAt } }"


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LIMITS


async def answer_to(client: Client, query: str, **variables: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {client.token}"} if client.token else {}
    return await client.http.post("/graphql", json={"query": query, "variables": variables}, headers=headers)


async def remaining(client: Client) -> dict[str, int]:
    found = (await client.data(STANDINGS))["rateLimit"]
    return {one["name"]: one["remaining"] for one in found}


async def test_aliased_signins_are_counted_one_by_one(client: Client) -> None:
    attempt = 'signin(input: { email: "a@example.org", password: "guess" }) { __typename'
    fields = " ".join(f"a{number}: {attempt} ... on RateLimited {{ retryAfter }} }}" for number in range(5))
    answer = await client.data(f"mutation {{ {fields} }}")
    kinds = [answer[f"a{number}"]["__typename"] for number in range(5)]
    assert kinds == ["InvalidCredentials"] * 3 + ["RateLimited"] * 2
    assert 1 <= answer["a4"]["retryAfter"] <= 20


async def test_signups_from_one_address_are_counted(client: Client) -> None:
    signup = 'mutation { signup(input: { email: "a@example.org", password: "long enough" }) { __typename } }'
    kinds = [(await client.data(signup))["signup"]["__typename"] for _ in range(3)]
    assert kinds == ["SignupAccepted", "SignupAccepted", "RateLimited"]


async def test_two_api_processes_count_together(database: DatabaseSettings) -> None:
    one, other = RateLimiter(LIMITS), RateLimiter(LIMITS)
    attempts = [
        limiter.spend(Action.SIGNIN, address="192.0.2.1") for _ in range(10) for limiter in (one, other)
    ]
    ended = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(error, RateLimitedError) for error in ended) == 17
    assert ended.count(None) == 3


async def test_an_address_that_is_spent_does_not_lock_others_accounts(database: DatabaseSettings) -> None:
    limiter = RateLimiter(LIMITS)
    for number in range(3):
        await limiter.spend(Action.SIGNIN, address="192.0.2.1", account=f"{number}@example.org")
    for _ in range(10):
        with pytest.raises(RateLimitedError):
            await limiter.spend(Action.SIGNIN, address="192.0.2.1", account="victim@example.org")
    for _ in range(3):
        await limiter.spend(Action.SIGNIN, address="192.0.2.2", account="victim@example.org")
    with pytest.raises(RateLimitedError):
        await limiter.spend(Action.SIGNIN, address="192.0.2.3", account="victim@example.org")


async def test_actions_are_counted_each_for_itself(database: DatabaseSettings) -> None:
    limiter = RateLimiter(LIMITS)
    for _ in range(3):
        await limiter.spend(Action.SIGNIN, address="192.0.2.1")
    await limiter.spend(Action.VOUCHER, address="192.0.2.1")


async def test_an_allowance_restores_itself_evenly(database: DatabaseSettings) -> None:
    limiter = RateLimiter(LIMITS)
    for _ in range(3):
        await limiter.spend(Action.SIGNIN, address="192.0.2.1")
    # A third of the window later.
    row = await RateLimit.get()
    await RateLimit.all().update(restored_at=row.restored_at - timedelta(seconds=20))
    await limiter.spend(Action.SIGNIN, address="192.0.2.1")
    with pytest.raises(RateLimitedError) as refused:
        await limiter.spend(Action.SIGNIN, address="192.0.2.1")
    assert 15 <= refused.value.retry_after <= 20


@pytest.mark.parametrize("limit", [1, 3, 7, 1000, 86_399])
def test_as_many_fit_into_a_window_as_the_limit_says(limit: int) -> None:
    allowance = Allowance(Action.PICTURES, limit, timedelta(days=1))
    assert allowance.cost(limit) <= allowance.window < allowance.cost(limit + 1)
    assert allowance.standing(timedelta(0)).remaining == limit
    assert allowance.standing(allowance.cost(limit)) == Standing(
        allowance, remaining=0, restored_in=allowance.cost(limit)
    )


async def test_neither_addresses_nor_accounts_are_kept(database: DatabaseSettings) -> None:
    await RateLimiter(LIMITS).spend(Action.SIGNIN, address="192.0.2.1", account="a@example.org")
    assert all(len(row.key) == 64 and row.key.isalnum() for row in await RateLimit.all())


async def test_what_is_restored_is_forgotten(database: DatabaseSettings, new_account: NewAccount) -> None:
    await RateLimiter(LIMITS).spend(Action.SIGNIN, address="192.0.2.1")
    await RateLimit.create(key="old", restored_at=now() - timedelta(seconds=1))
    assert await rate_limits.forget_restored() == 1
    assert await RateLimit.all().count() == 1


async def test_requests_at_the_same_moment_open_no_more_than_allowed(normal: Client) -> None:
    answers = await asyncio.gather(*(normal.data(GENERATE, count=1) for _ in range(20)))
    kinds = [answer["generate"]["__typename"] for answer in answers]
    assert (kinds.count("Generation"), kinds.count("QuotaExceeded")) == (4, 16)
    assert await Generation.all().count() == 4
    assert (await remaining(normal))["pictures"] == 2


async def test_the_pictures_of_a_day_are_counted_and_what_is_refused_costs_nothing(normal: Client) -> None:
    assert (await normal.data(GENERATE, count=4))["generate"]["__typename"] == "Generation"
    refused = (await normal.data(GENERATE, count=3))["generate"]
    assert (refused["__typename"], refused["limit"]) == ("QuotaExceeded", 6)
    assert refused["message"] == "At most 6 pictures a day: 2 are left, this asks for 3."
    assert 4 * 3600 - 60 <= refused["retryAfter"] <= 4 * 3600
    assert (await normal.data(GENERATE, count=2))["generate"]["__typename"] == "Generation"
    assert (await normal.data(GENERATE, count=1))["generate"]["__typename"] == "QuotaExceeded"
    assert await Generation.all().count() == 2


async def test_the_same_idempotency_key_costs_its_pictures_once(normal: Client) -> None:
    ask = 'mutation { generate(input: { prompt: "x", count: 3, idempotencyKey: "k" }) { __typename } }'
    await asyncio.gather(*(normal.data(ask) for _ in range(8)))
    assert (await remaining(normal))["pictures"] == 3
    assert await Generation.all().count() == 1


async def test_rate_limit_tells_a_stranger_about_the_address_alone(client: Client) -> None:
    assert await remaining(client) == {"signin": 3, "signup": 2, "reset": 10, "voucher": 2, "checkout": 20}


async def test_rate_limit_tells_a_customer_everything_and_asking_costs_nothing(normal: Client) -> None:
    await normal.data(GENERATE, count=2)
    for _ in range(2):
        found = (await normal.data(STANDINGS))["rateLimit"]
    by_name = {one["name"]: one for one in found}
    assert by_name["signin"]["remaining"] == 2
    assert by_name["pictures"] | {"restoredAt": None} == {
        "name": "pictures",
        "limit": 6,
        "remaining": 4,
        "windowSeconds": 86_400,
        "restoredAt": None,
    }
    assert by_name["openGenerations"] == {
        "name": "openGenerations",
        "limit": 4,
        "remaining": 3,
        "windowSeconds": None,
        "restoredAt": None,
    }
    assert by_name["subscriptions"]["remaining"] == 2


async def test_answers_carry_headers_for_what_they_counted(client: Client) -> None:
    signin = 'mutation { signin(input: { email: "a@example.org", password: "guess" }) { __typename } }'
    first = await answer_to(client, signin)
    assert first.headers["ratelimit-policy"] == '"signin";q=3;w=60'
    assert first.headers["ratelimit"] == '"signin";r=2;t=1'
    assert "retry-after" not in first.headers
    for _ in range(3):
        last = await answer_to(client, signin)
    assert last.json()["data"]["signin"]["__typename"] == "RateLimited"
    assert last.headers["ratelimit"].startswith('"signin";r=0;t=')
    assert 1 <= int(last.headers["retry-after"]) <= 20


@pytest.mark.parametrize(("seconds", "said"), [(1, "1 second"), (2, "2 seconds")])
def test_a_refusal_counts_as_people_do(seconds: int, said: str) -> None:
    assert str(RateLimitedError(retry_after=seconds)) == f"Too many attempts. Try again in {said}."


async def test_a_refusal_names_the_same_seconds_everywhere(client: Client) -> None:
    signin = """mutation { signin(input: { email: "a@example.org", password: "guess" }) {
      ... on UserError { message } ... on RateLimited { retryAfter }
    } }"""
    for _ in range(3):
        await answer_to(client, signin)
    answer = await answer_to(client, signin)
    seconds = int(answer.headers["retry-after"])
    assert answer.headers["ratelimit"] == f'"signin";r=0;t={seconds}'
    assert answer.json()["data"]["signin"] == {
        "message": f"Too many attempts. Try again in {seconds} seconds.",
        "retryAfter": seconds,
    }


async def test_an_answer_that_counted_nothing_has_no_such_headers(client: Client) -> None:
    answer = await answer_to(client, "{ __typename }")
    assert not {"ratelimit", "ratelimit-policy", "retry-after"} & set(answer.headers)


async def test_generate_says_in_headers_how_many_pictures_are_left(normal: Client) -> None:
    answer = await answer_to(normal, GENERATE, count=2)
    assert answer.headers["ratelimit-policy"] == '"pictures";q=6;w=86400'
    assert answer.headers["ratelimit"] == '"pictures";r=4;t=1'


async def test_subscriptions_of_an_account_are_counted_over_all_processes(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    account = await new_account()
    one, other = SubscriptionPlaces(LIMITS), SubscriptionPlaces(LIMITS)
    async with one.hold(account, Tier.NORMAL):
        async with other.hold(account, Tier.NORMAL):
            with pytest.raises(QuotaExceededError, match="At most 2 subscriptions"):
                async with one.hold(account, Tier.NORMAL):
                    pass
        async with one.hold(account, Tier.NORMAL):
            assert await one.taken(account) == 2
    assert await Subscription.all().count() == 0


async def test_subscriptions_at_the_same_moment_take_no_more_than_allowed(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    account, places = await new_account(), SubscriptionPlaces(LIMITS)
    done = asyncio.Event()

    async def hold() -> bool:
        try:
            async with places.hold(account, Tier.NORMAL):
                await done.wait()
        except QuotaExceededError:
            return False
        return True

    holding = [asyncio.create_task(hold()) for _ in range(12)]
    await asyncio.wait(holding, timeout=2)
    done.set()
    assert sorted(await asyncio.gather(*holding)) == [False] * 10 + [True] * 2


async def test_the_places_of_a_process_that_died_become_free(
    database: DatabaseSettings, new_account: NewAccount
) -> None:
    account, places = await new_account(), SubscriptionPlaces(LIMITS)
    async with places.hold(account, Tier.NORMAL), places.hold(account, Tier.NORMAL):
        await Subscription.all().update(expires_at=now() - timedelta(seconds=1))
        async with SubscriptionPlaces(LIMITS).hold(account, Tier.NORMAL):
            assert await places.taken(account) == 1


async def test_a_process_renews_its_places_and_gives_them_back_when_it_stops(
    database: DatabaseSettings, new_account: NewAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.accounts.places._RENEW_SECONDS", 0.05)
    account, places, stop = await new_account(), SubscriptionPlaces(LIMITS), asyncio.Event()
    running = asyncio.create_task(places.run(stop=stop))
    async with places.hold(account, Tier.NORMAL):
        await Subscription.all().update(expires_at=now() + timedelta(seconds=5))
        async with asyncio.timeout(5):
            while (await Subscription.get()).expires_at < now() + timedelta(seconds=30):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        stop.set()
        await running
        assert await places.taken(account) == 0
