"""Three brokers with three copies of each stream: any one of them may die, be cut off, or be restarted."""

import asyncio
import signal
import statistics
import time

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import Error as JetStreamError

from tests.faults.conftest import NewTrial
from tests.faults.service import Service
from tests.faults.trial import Note

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]


async def leader_of(js: JetStreamContext, stream: str) -> str:
    """The broker that leads a stream, by the name of its node."""
    for _ in range(200):
        try:
            found = (await js.stream_info(stream)).cluster
        except (NatsError, JetStreamError):
            found = None
        if found is not None and found.leader:
            return str(found.leader)
        await asyncio.sleep(0.1)
    raise AssertionError(f"{stream} has no leader")


async def connected(service: Service) -> Client:
    return await service.broker_client(reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=_forget)


async def _forget(error: Exception) -> None:
    """It is told by the next call as well."""


async def test_brokers_die_one_after_another(cluster: Service, new_trial: NewTrial) -> None:
    async with new_trial(cluster) as run:
        for broker in cluster.brokers:
            await broker.restart(signal.SIGKILL)
            run.numbers["brokers killed"] += 1
            await asyncio.sleep(3)


async def test_the_leader_dies_and_publishing_goes_on(
    cluster: Service, new_trial: NewTrial, note: Note
) -> None:
    client = await connected(cluster)
    js = client.jetstream(timeout=1)
    await js.add_stream(api.StreamConfig(name="PROBE", subjects=["probe"], num_replicas=3))
    waits = []
    async with new_trial(cluster) as run:
        for _ in range(7):
            leader = await leader_of(js, "PROBE")
            node = next(node for node in cluster.brokers if node.name == leader)
            killed = time.monotonic()
            restarted = asyncio.create_task(node.restart(signal.SIGKILL))
            while True:
                try:
                    await js.publish("probe", b"", timeout=1)
                    break
                except (NatsError, JetStreamError):
                    await asyncio.sleep(0.02)
            waits.append(time.monotonic() - killed)
            await restarted
            run.numbers["leaders killed"] += 1
            await asyncio.sleep(3)
    await client.close()
    note(
        f"a leader killed, publishing again: median {statistics.median(waits):.2f} s,"
        f" longest {max(waits):.2f} s, of {len(waits)}",
        {},
    )


async def test_a_broker_is_cut_off_from_the_others(cluster: Service, new_trial: NewTrial) -> None:
    """The processes that are connected to it stay so: the others have to do their work meanwhile."""
    async with new_trial(cluster) as run:
        for broker in cluster.brokers:
            for link in cluster.routes_of(broker.name):
                link.swallow()
            await asyncio.sleep(10)
            for link in cluster.routes_of(broker.name):
                link.heal()
            run.numbers["brokers cut off"] += 1
            await asyncio.sleep(4)


async def test_the_cluster_is_restarted_one_by_one(cluster: Service, new_trial: NewTrial) -> None:
    async with new_trial(cluster) as run:
        for broker in cluster.brokers:
            # As an orchestrator does that wants no interruption: lame duck mode.
            await broker.restart(signal.SIGTERM)
            run.numbers["brokers restarted"] += 1
            await asyncio.sleep(4)


async def test_faults_of_every_kind_come_and_go(cluster: Service, new_trial: NewTrial) -> None:
    """Up to two at a time, drawn anew each few seconds, then quiet."""
    async with new_trial(cluster, normal=6, premium=6) as run:
        ours = [name for name in cluster.nodes if name not in ("postgres", "mail")]
        for _ in range(14):
            hurt = run.rng.sample(list(cluster.links.values()), 3)
            match run.rng.randrange(5):
                case 0:
                    cluster.nodes[run.rng.choice(ours)].send(signal.SIGKILL)
                case 1:
                    node = cluster.nodes[run.rng.choice(ours)]
                    node.send(signal.SIGSTOP)
                    asyncio.get_running_loop().call_later(5, node.send, signal.SIGCONT)
                case 2:
                    for link in hurt:
                        link.swallow()
                case 3:
                    for link in hurt:
                        link.reset()
                case 4:
                    cluster.nodes[run.rng.choice(["postgres", "mail"])].send(signal.SIGKILL)
            run.numbers["faults of the mix"] += 1
            await asyncio.sleep(run.rng.uniform(2, 5))
            for link in hurt:
                link.heal()
        run.repetitions = 28
