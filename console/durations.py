"""Durations as people say them."""

from typing import Final

_HOUR: Final = 3600
_MINUTE: Final = 60


def span(seconds: float) -> str:
    """A duration for people, such as ``1 min 20 s``."""
    whole = max(0, round(seconds))
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole} s"
