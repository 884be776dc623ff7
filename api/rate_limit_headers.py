"""Tells clients where they stand: ``RateLimit``, ``RateLimit-Policy`` and ``Retry-After``.

The first two are as draft-ietf-httpapi-ratelimit-headers-10 has them.
"""

from collections.abc import Iterable, Mapping

from core.accounts.limits import Standing


def rate_limit_headers(standings: Iterable[Standing]) -> Mapping[str, str]:
    """The headers of an answer; of several standings with one allowance the worst counts.

    Args:
        standings: what the request spent from or was refused by.
    """
    worst: dict[str, Standing] = {}
    for standing in standings:
        name = standing.allowance.action.value
        if name not in worst or standing.restored_in > worst[name].restored_in:
            worst[name] = standing
    if not worst:
        return {}
    headers = {
        "RateLimit-Policy": ", ".join(
            f'"{name}";q={one.allowance.limit};w={round(one.allowance.window.total_seconds())}'
            for name, one in worst.items()
        ),
        "RateLimit": ", ".join(
            f'"{name}";r={one.remaining};t={one.seconds_until()}' for name, one in worst.items()
        ),
    }
    spent = [one.seconds_until() for one in worst.values() if not one.remaining]
    return {**headers, "Retry-After": str(max(spent))} if spent else headers
