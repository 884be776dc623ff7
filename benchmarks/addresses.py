"""``python -m benchmarks.addresses``: what time tells of an address, at sign-up, reset and sign-in.

An api process with its limits raised, a database and a broker of its own; one request at a time, the ways of
each mutation in turns and in random order. It takes about three minutes on two idle cores. The exit status is
1 when two ways are further apart than the bar.
"""

import argparse
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.arrivals import percentile
from benchmarks.command import parser, run
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure, Report, at_most, tell
from benchmarks.service import Service, open_service
from core.clock import now
from core.models import Account

BAR: Final = 1.05
"""How many times as long the slower way may take, as the median over all turns."""

_SIGNUP: Final = """
mutation ($email: String!, $password: String!) {
  signup(input: { email: $email, password: $password }) { __typename }
}
"""
_RESET: Final = "mutation ($email: String!) { requestPasswordReset(email: $email) { __typename } }"
_SIGNIN: Final = """
mutation ($email: String!, $password: String!) {
  signin(input: { email: $email, password: $password }) { __typename }
}
"""
_PASSWORD: Final = "a passphrase of the benchmark"  # noqa: S105 - of accounts that live for minutes
_WRONG: Final = "another passphrase altogether"
_KNOWN: Final = "known@example.org"
_UNVERIFIED: Final = "unverified@example.org"
_LIMITS: Final = {
    f"DARKROOM_{name}": "1000000"
    for name in ("SIGNIN_ATTEMPTS_PER_MINUTE", "SIGNUP_ATTEMPTS_PER_HOUR", "RESET_REQUESTS_PER_HOUR")
}
_WARM_UP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """What is compared.

    Attributes:
        name: for people.
        document: with the variables ``email`` and perhaps ``password``.
        variables: the others beside ``email``.
        answer: the type that every way answers with.
        ways: from their names to where their addresses come from; the first is the unknown address.
        often: how many times per round, for what takes little.
    """

    name: str
    document: str
    variables: Mapping[str, str]
    answer: str
    ways: Mapping[str, Callable[[], str]]
    often: int = 1


def main() -> int:
    """Measure; status 1 when a figure misses its bar."""
    line = parser("addresses", __doc__)
    line.add_argument("--rounds", type=int, default=60, help="requests of each way; resets 10 times as many")
    return run(line, _measure)


async def _measure(folder: Path, options: argparse.Namespace, report: Report) -> None:
    os.environ.update(_LIMITS)
    async with open_service(folder) as service, httpx.AsyncClient(timeout=60) as client:
        ask = _Asker(client, service)
        for email in (_KNOWN, _UNVERIFIED):
            await ask(_SIGNUP, "SignupAccepted", email=email, password=_PASSWORD)
        await Account.filter(email=_KNOWN).update(email_verified_at=now())
        for mutation in _mutations():
            tell(mutation.name)
            began = time.monotonic()
            seconds = await _times(ask, mutation, rounds=options.rounds)
            report.add(mutation.name, list(figures(seconds)), seconds=time.monotonic() - began)


def _mutations() -> list[Mutation]:
    numbers = itertools.count()

    def stranger() -> str:
        return f"stranger-{next(numbers)}@example.org"

    known = {"unverified": lambda: _UNVERIFIED, "verified": lambda: _KNOWN}
    return [
        Mutation(
            name="signup",
            document=_SIGNUP,
            variables={"password": _PASSWORD},
            answer="SignupAccepted",
            ways={"unknown": stranger, **known},
        ),
        Mutation(
            name="requestPasswordReset",
            document=_RESET,
            variables={},
            answer="PasswordResetRequested",
            ways={"unknown": stranger, **known},
            often=10,
        ),
        Mutation(
            name="signin",
            document=_SIGNIN,
            variables={"password": _WRONG},
            answer="InvalidCredentials",
            ways={"unknown": stranger, **known},
        ),
    ]


class _Asker:
    """Sends one mutation and times its answer."""

    def __init__(self, client: httpx.AsyncClient, service: Service) -> None:
        self._client = client
        self._url = f"http://127.0.0.1:{service.port}/graphql"

    async def __call__(self, document: str, answer: str, **variables: str) -> float:
        body: dict[str, Any] = {"query": document, "variables": variables}
        began = time.perf_counter()
        response = await self._client.post(self._url, json=body)
        seconds = time.perf_counter() - began
        if f'"{answer}"' not in response.text:
            raise BenchmarkError(f"not {answer}: {response.text}")
        return seconds


async def _times(ask: _Asker, mutation: Mutation, *, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {way: [] for way in mutation.ways}
    order = random.Random(1)  # noqa: S311 - an order, not a secret
    for number in range(-_WARM_UP, rounds * mutation.often):
        # In turns, so that the machine's moods fall on all; in random order, so that none always goes first.
        for way in order.sample(list(mutation.ways), len(mutation.ways)):
            took = await ask(
                mutation.document, mutation.answer, email=mutation.ways[way](), **mutation.variables
            )
            if number >= 0:
                seconds[way].append(took)
    return seconds


def figures(seconds: Mapping[str, list[float]]) -> Iterator[Figure]:
    """What the times of some ways, turn by turn, say; the first way is the unknown address."""
    for way, times in seconds.items():
        low, high = (percentile(times, share) * 1000 for share in (0.25, 0.75))
        yield Figure(
            name=way,
            value=statistics.median(times) * 1000,
            unit="ms",
            note=f"median of {len(times)}; half of them within {low:.2f} to {high:.2f}",
        )
    unknown, *others = seconds
    for way in others:
        ratio = statistics.median(
            one / other for one, other in zip(seconds[way], seconds[unknown], strict=True)
        )
        yield Figure(
            name=f"{way} ÷ unknown, or the inverse",
            value=max(ratio, 1 / ratio),
            bar=at_most(BAR),
            note="median of the turns' ratios",
        )
        yield Figure(
            name=f"{way} slower than unknown",
            value=_share_slower(seconds[way], seconds[unknown]),
            note="share of all pairs; 0.5 tells nothing",
        )


def _share_slower(times: list[float], others: list[float]) -> float:
    return sum(one > other for one in times for other in others) / (len(times) * len(others))


if __name__ == "__main__":
    sys.exit(main())
