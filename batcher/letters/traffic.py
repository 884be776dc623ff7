"""How many letters may be under way at once: in all, to one domain, and while the mail server is away."""

import random
from collections import Counter
from datetime import timedelta
from typing import Final

from core.clock import now

FIRST_REST: Final = timedelta(seconds=1)
LONGEST_REST: Final = timedelta(seconds=30)


class Traffic:
    """Counts the letters under way, so that those which hang do not hold up the others.

    One domain gets half of the connections at most, and one that did not take its latest letter only one,
    until it takes one again. While the mail server itself is away one letter at a time goes to see.
    """

    def __init__(self, *, connections: int) -> None:
        """Start with nothing under way.

        Args:
            connections: how many letters may be under way at once.
        """
        self._connections = connections
        self._share = max(1, connections // 2)
        self._under_way: Counter[str] = Counter()
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
        return self._under_way.total() < (1 if self._failures else self._connections)

    def full_domains(self) -> frozenset[str]:
        """The domains to which no other letter may set out, in lower case."""
        return frozenset(
            domain
            for domain, letters in self._under_way.items()
            if letters >= (1 if domain in self._slow else self._share)
        )

    def enter(self, address: str) -> None:
        """A letter to an address sets out."""
        self._under_way[_domain(address)] += 1

    def leave(self, address: str) -> None:
        """It is back, whatever came of it."""
        domain = _domain(address)
        self._under_way[domain] -= 1
        if not self._under_way[domain]:
            del self._under_way[domain]

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
            rest = min(FIRST_REST * 2.0**self._failures, LONGEST_REST)
            self._open_at = now() + rest * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, keeps no secret
            self._failures += 1
        return self.closed_for


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
