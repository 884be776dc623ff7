"""What the running processes serve at /metrics: all that is asked for, and nothing without bounds."""

import json
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.middleware import ROUTES
from core.catalogue import load_catalogue
from core.lifecycle import GenerationState, Tier
from core.models import LetterKind
from core.queue import Lane
from core.queue.topology import CONSUMERS, streams
from core.repository.sweeps import _STATEMENTS
from core.settings import DocumentSettings
from tests.infra.queries import queries, selectors
from tests.stack import Customer, Stack

pytestmark = pytest.mark.acceptance

OUTCOMES = {
    *("sent", "postponed", "failed", "handed_back", "dropped", "opened", "unavailable", "refused"),
    *("answered", "missing", "stored", "held", "paid", "disputed", "refunded", "expired", "repeated"),
    *("ignored", "ownerless"),
}
BOUNDS = {
    "tier": set(Tier),
    "state": {*GenerationState, "open", "idle", "busy", "free"},
    "lane": set(Lane),
    "what": {"subject", "connection"},
    "why": {"exhausted", "broken", "lost"},
    "kind": {*(kind.value for kind in LetterKind), "pictures", "padding"},
    "outcome": OUTCOMES,
    "model": {model.id for model in load_catalogue().models},
    "source": {"encoder", "cache"},
    "stream": {stream.name for stream in streams(1)},
    "consumer": {spec.name for spec in CONSUMERS},
    "action": {
        *(
            "signin",
            "signup",
            "reset",
            "voucher",
            "checkout",
            "pictures",
            "open_generations",
            "subscriptions",
        ),
    },
    "part": {"event loop", "engine", "jobs", "premium fetches", "normal fetches"},
    "limit": {*DocumentSettings().measures, "tokens", "repeats", "cost"},
    "code": {
        *("INTERNAL", "SERVICE_UNAVAILABLE", "TIMEOUT", "BAD_REQUEST", "BAD_USER_INPUT", "UNAUTHENTICATED"),
        *("NOT_FOUND", "QUOTA_EXCEEDED", "RATE_LIMITED", "GRAPHQL_INVALID", "DOCUMENT_TOO_LARGE"),
        "COST_LIMIT_EXCEEDED",
    },
    "operation": {"query", "mutation", "subscription", "unreadable", "put", "get", "head", "delete"},
    "route": {*ROUTES, "other"},
    "status": {f"{digit}xx" for digit in range(1, 6)},
    "table": {*_STATEMENTS, "rate_limit"},
}
"""Every label that a metric of ours has, with the values that it may take; close codes are numbers."""


def scraped(stack: Stack) -> Iterator[str]:
    ports = json.loads((stack.home / "ports.json").read_text())
    for name in ("api", "gpu_worker", "batcher"):
        yield httpx.get(f"http://127.0.0.1:{ports[f'{name} metrics']}/metrics").raise_for_status().text


async def test_every_metric_that_dashboards_and_alerts_ask_for_is_served(
    stack: Stack, premium: Customer
) -> None:
    await premium.watch_to_end(await premium.generate(prompt="a boat", width=64, height=64, steps=2))
    served = set(re.findall(r"^# TYPE (\w+) ", "".join(scraped(stack)), re.MULTILINE))
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", selector.metric)
        for query in queries()
        for selector in selectors(query.tree)
        if not selector.metric.startswith(("darkroom:", "kubelet_", "cnpg_", "barman_", "up"))
    }
    # A recorded metric has colons, which no metric of a process has.
    assert {name for name in asked if ":" not in name} - served == set()


async def test_no_label_takes_a_value_that_a_customer_made_up(stack: Stack, premium: Customer) -> None:
    made_up = secrets.token_hex(8)
    async with httpx.AsyncClient(base_url=stack.urls[0]) as client:
        await client.get(f"/{made_up}/{made_up}", headers={"X-Request-Id": made_up})
        await client.get(f"/images/{made_up}.png")
        await client.get(f"/inbox/{made_up}")
        for body in (
            {"query": f"query a{made_up} {{ a{made_up} }}"},
            {"query": "{ models { id } }", "operationName": f"a{made_up}"},
            {"query": f"mutation {{ a{made_up}: signout {{ __typename }} }}"},
        ):
            await client.post("/graphql", json=body)
    await premium.generate(prompt=made_up, width=64, height=64, steps=2, idempotencyKey=made_up)
    values = defaultdict(set)
    for text in scraped(stack):
        assert made_up not in text
        for family in text_string_to_metric_families(text):
            for sample in family.samples if family.name.startswith("darkroom_") else ():
                for label, value in sample.labels.items():
                    if label != "le" and not (
                        family.name == "darkroom_websockets_closed" and value.isdigit()
                    ):
                        values[label].add(value)
    assert values
    assert {label for label in values if values[label] - BOUNDS.get(label, set())} == set()
