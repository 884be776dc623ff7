"""How many letters may be under way at once: in all, to one domain, and while the mail server is away."""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from core.clock import now

FIRST_REST: Final = timedelta(seconds=1)
LONGEST_REST: Final = timedelta(seconds=30)

_DOUBLINGS: Final = 5
"""After which a rest is as long as any: doubled for half an hour it would fit into no timedelta."""

PROMPT: Final = timedelta(seconds=5)
"""How long a letter usually takes, at most: one that has been under way for longer holds nobody up."""

SPARE: Final = 4
"""All that are under way together, those that hang as well, in numbers of connections."""


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """A letter under way."""

    domain: str
    since: datetime


class Traffic:
    """Counts the letters under way, so that those which hang do not hold up the others.

    One domain gets half of the connections at most, and one that did not take its latest letter only one,
    until it takes one again. A letter that takes long gives its place to another, so that several domains
    that hang do not have all of them. While the mail server itself is away one letter at a time goes to see.
    """

    def __init__(self, *, connections: int) -> None:
        """Start with nothing under way.

        Args:
            connections: how many letters may be under way at once, beside those that take long.
        """
        self._connections = connections
        self._share = max(1, connections // 2)
        self._under_way: set[Journey] = set()
        self._slow: set[str] = set()
        self._failures = 0
        self._open_at = now()

    @property
    def closed_for(self) -> timedelta:
        """How long the mail server is still left alone."""
        return max(timedelta(0), self._open_at - now())

    @property
    def has_room(self) -> bool:
        """Whether another letter may set out."""
        if self._failures:
            return not self._under_way
        before = now() - PROMPT
        prompt = sum(journey.since > before for journey in self._under_way)
        return prompt < self._connections and len(self._under_way) < SPARE * self._connections

    def full_domains(self) -> frozenset[str]:
        """The domains to which no other letter may set out, in lower case."""
        letters = Counter(journey.domain for journey in self._under_way)
        return frozenset(
            domain
            for domain, count in letters.items()
            if count >= (1 if domain in self._slow else self._share)
        )

    def enter(self, address: str) -> Journey:
        """A letter to an address sets out."""
        journey = Journey(_domain(address), now())
        self._under_way.add(journey)
        return journey

    def leave(self, journey: Journey) -> None:
        """It is back, whatever came of it."""
        self._under_way.discard(journey)

    def answered(self, address: str) -> None:
        """The mail server said yes or no to a letter for an address."""
        self._slow.discard(_domain(address))
        self._failures = 0

    def hung(self, address: str) -> None:
        """The mail server could be spoken to, and did not take one now."""
        self._slow.add(_domain(address))
        self._failures = 0

    def lost_server(self) -> timedelta:
        """The mail server is away; returns for how long nobody sets out."""
        if not self.closed_for:
            rest = min(FIRST_REST * 2.0 ** min(self._failures, _DOUBLINGS), LONGEST_REST)
            self._open_at = now() + rest * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, keeps no secret
            self._failures += 1
        return self.closed_for


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
