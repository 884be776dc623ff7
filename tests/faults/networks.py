"""What can become of the network between our processes and a server."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from tests.faults.links import Link, Way
from tests.faults.trial import Trial

SECONDS: Final = 7
FAULTS: Final[dict[str, Callable[[Link], object]]] = {
    "slow": lambda link: link.slow_down(0.1),
    "down": Link.take_down,
    "black hole": Link.swallow,
    "nothing arrives": lambda link: link.swallow(Way.TO_SERVER),
    "nothing comes back": lambda link: link.swallow(Way.TO_CLIENT),
}


async def every_fault(run: Trial, links: Sequence[Link]) -> None:
    """Lay each on all links at once, as when the server's machine is cut off, and on some; reset them all."""
    for fault in FAULTS.values():
        for chosen in (links, run.rng.sample(links, len(links) // 2)):
            for link in chosen:
                fault(link)
            await asyncio.sleep(SECONDS)
            for link in links:
                link.heal()
            await asyncio.sleep(1)
            run.numbers["faults of links"] += len(chosen)
    for _ in range(10):
        run.numbers["connections reset"] += sum(link.reset() for link in links)
        await asyncio.sleep(0.5)
