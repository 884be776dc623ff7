"""What a worker counts about itself."""

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations, sorted into buckets.

    Attributes:
        total: the sum of all.
        counts: for each upper bound, in order, how many did not exceed it; the last bound is infinite.
    """

    total: float
    counts: dict[float, float]

    @property
    def count(self) -> float:
        """How many there are."""
        return max(self.counts.values(), default=0)

    @property
    def mean(self) -> float:
        """The arithmetic mean; there must be observations."""
        return self.total / self.count

    def since(self, before: "Histogram") -> "Histogram":
        """What has come since ``before``, an earlier look at the same histogram."""
        counts = {bound: count - before.counts.get(bound, 0) for bound, count in self.counts.items()}
        return Histogram(self.total - before.total, counts)

    def percentile_bound(self, share: float) -> float:
        """The upper bound of the bucket that holds the percentile ``share`` (0 to 1)."""
        return next(bound for bound, count in self.counts.items() if count >= share * self.count)


class Metrics:
    """A worker's ``/metrics``.

    Args:
        url: its whole address.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    async def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram ``name`` with these labels; empty where the worker has none."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(self._url)).raise_for_status().text
        total, counts = 0.0, {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples if family.name == name else ():
                bound = sample.labels.get("le")
                if {key: value for key, value in sample.labels.items() if key != "le"} != labels:
                    continue
                if bound is not None:
                    counts[float(bound)] = sample.value
                elif sample.name == f"{name}_sum":
                    total = sample.value
        return Histogram(total, dict(sorted(counts.items())))
