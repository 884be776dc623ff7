"""``python -m benchmarks.api``: `generate` and `generation(id)` of the api, and the same by hand.

The api has everything on: authentication, limits, checks, the GraphQL executor. By hand is
``benchmarks/handwritten_api.py``. Both run in a process of their own on the same PostgreSQL and nats-server,
and take turns. It takes about three minutes on two idle cores. The exit status is 1 when a figure misses its
bar.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.arrivals import percentile, poisson_arrivals
from benchmarks.command import parser, run
from benchmarks.http_load import HttpLoad, request_bytes
from benchmarks.processes import BenchmarkError, Child, running
from benchmarks.report import Figure, Report, at_least, at_most, tell
from benchmarks.service import Customer, Service, open_service
from core.lifecycle import GenerationState
from infra.local.ports import Ports
from schema.types.node import to_global_id

CONNECTIONS: Final = 16
CUSTOMERS: Final = 1000
"""Who take turns: nobody has thousands of open generations, which are counted for each new one."""
LOAD: Final = 0.7
"""Share of its own throughput at which a server's latency is measured."""

_GENERATE: Final = """
mutation Generate($input: GenerateInput!) {
  generate(input: $input) {
    __typename
    ... on Generation { id state createdAt }
    ... on UserError { message }
  }
}
"""
_GENERATION: Final = """
query Generation($id: ID!) { generation(id: $id) { id state prompt width height createdAt } }
"""
_READY_SECONDS: Final = 20
# The customers' limits are raised, not lifted: each request is counted as ever.
_LIMITS: Final = {
    "DARKROOM_MAX_OPEN_PREMIUM": "1000000",
    "DARKROOM_PICTURES_PER_DAY_PREMIUM": "100000000",
    "DARKROOM_LOG_LEVEL": "INFO",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: rounds, and seconds of one server in each; and seconds of latencies."""

    rounds: int
    seconds: float
    latency_seconds: float


FULL: Final = Plan(rounds=7, seconds=3, latency_seconds=8)
QUICK: Final = Plan(rounds=3, seconds=1.5, latency_seconds=3)


@dataclass(frozen=True, slots=True)
class Pair:
    """The same work at both servers."""

    ours: HttpLoad
    by_hand: HttpLoad


async def measure(folder: Path, plan: Plan) -> list[tuple[str, list[Figure]]]:
    """All figures, by what is asked for."""
    os.environ.update({name: value for name, value in _LIMITS.items() if name not in os.environ})
    port = Ports(folder / "by_hand.json").of("by_hand")
    async with open_service(folder) as service:
        argv, env = (sys.executable, "-m", "benchmarks.handwritten_api"), {**service.env, "PORT": str(port)}
        async with running(argv, env=env, log=folder / "by_hand.log") as child:
            await _listening(child, port)
            customers = await service.new_customers(CUSTOMERS)
            made = [
                ("generate", _generate(service, port, customers)),
                ("generation(id)", await _generation(service, port, customers)),
            ]
            return [(name, await _compared(name, pair, plan)) for name, pair in made]


async def _compared(name: str, pair: Pair, plan: Plan) -> list[Figure]:
    tell(f"{name}: throughput in {plan.rounds} turns")
    ours, by_hand = [], []
    for load in (pair.ours, pair.by_hand):
        await load.throughput(connections=CONNECTIONS, seconds=1)
    for _ in range(plan.rounds):
        ours.append(await pair.ours.throughput(connections=CONNECTIONS, seconds=plan.seconds))
        by_hand.append(await pair.by_hand.throughput(connections=CONNECTIONS, seconds=plan.seconds))
    ratio = statistics.median(one / other for one, other in zip(ours, by_hand, strict=True))
    tell(f"{name}: latency at {LOAD:.0%} of it")
    waited: dict[str, list[float]] = {"ours": [], "by hand": []}
    for turn in range(2):
        for who, load, most in (("ours", pair.ours, ours), ("by hand", pair.by_hand, by_hand)):
            rate = LOAD * statistics.median(most)
            count = round(rate * plan.latency_seconds / 2)
            moments = poisson_arrivals(rate=rate, count=count, seed=turn)
            waited[who] += await load.latencies(moments, connections=CONNECTIONS * 4)
    p99 = {who: 1000 * percentile(seconds, 0.99) for who, seconds in waited.items()}
    return [
        Figure(name="ours", value=statistics.median(ours), unit="1/s", note=_spread(ours)),
        Figure(name="by hand", value=statistics.median(by_hand), unit="1/s", note=_spread(by_hand)),
        Figure(name="ours ÷ by hand", value=ratio, bar=at_least(0.6), note="median of the turns' ratios"),
        Figure(name="p99 ours", value=p99["ours"], unit="ms", note=f"at {LOAD:.0%} of its throughput"),
        Figure(name="p99 by hand", value=p99["by hand"], unit="ms", note=f"at {LOAD:.0%} of its throughput"),
        Figure(name="p99 ours ÷ by hand", value=p99["ours"] / p99["by hand"], bar=at_most(5)),
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"


def _generate(service: Service, port: int, customers: Sequence[Customer]) -> Pair:
    numbers = itertools.count()
    asked: dict[str, object] = {"width": 128, "height": 128, "steps": 20}

    def ours(_: int) -> bytes:
        number = next(numbers)
        customer = customers[number % len(customers)]
        fields = {**asked, "prompt": f"a red lighthouse, number {number}", "seed": number}
        body: dict[str, object] = {"query": _GENERATE, "variables": {"input": fields}}
        return _posted("/graphql", body, authorization=f"Bearer {customer.token}")

    def by_hand(_: int) -> bytes:
        number = next(numbers)
        customer = customers[number % len(customers)]
        fields = {**asked, "prompt": f"a red lighthouse, number {number}", "seed": number}
        return _posted("/generate", {**fields, "account": str(customer.account.id)})

    return _pair(service, port, ours, by_hand, sign=b'"QUEUED"')


async def _generation(service: Service, port: int, customers: Sequence[Customer]) -> Pair:
    rows = await service.new_generations(customers, len(customers), state=GenerationState.SUCCEEDED, steps=20)
    chosen = itertools.cycle(rows)

    def ours(_: int) -> bytes:
        key, customer = next(chosen)
        body: dict[str, object] = {"query": _GENERATION, "variables": {"id": to_global_id("Generation", key)}}
        return _posted("/graphql", body, authorization=f"Bearer {customer.token}")

    def by_hand(_: int) -> bytes:
        key, customer = next(chosen)
        return request_bytes("GET", f"/generations/{key}?account={customer.account.id}")

    return _pair(service, port, ours, by_hand, sign=b'"SUCCEEDED"')


def _pair(
    service: Service,
    port: int,
    ours: Callable[[int], bytes],
    by_hand: Callable[[int], bytes],
    *,
    sign: bytes,
) -> Pair:
    """Both, whose answers have ``sign`` in them."""

    def check(answer: bytes) -> bool:
        return sign in answer

    return Pair(HttpLoad(service.port, ours, check=check), HttpLoad(port, by_hand, check=check))


def _posted(path: str, body: dict[str, object], *, authorization: str | None = None) -> bytes:
    return request_bytes("POST", path, body=json.dumps(body).encode(), authorization=authorization)


async def _listening(child: Child, port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        child.check()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the server by hand is not ready:\n{child.tail()}") from error
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def _measure(folder: Path, options: argparse.Namespace, report: Report) -> None:
    begun = time.monotonic()
    for name, figures in await measure(folder, QUICK if options.quick else FULL):
        report.add(name, figures, seconds=time.monotonic() - begun)


def main() -> int:
    """Measure; status 1 when a figure misses its bar."""
    return run(parser("api", __doc__, quick="fewer of everything, for a first look"), _measure)


if __name__ == "__main__":
    sys.exit(main())
