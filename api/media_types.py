"""Which media type to answer in, RFC 9110, section 12.5.1."""

from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=1024)
def preferred(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """That of ``offered`` which ``accept`` likes best, the first of equals; none where it takes none of them.

    Args:
        accept: the header's value; anything is taken where there is none.
        offered: media types without parameters.
    """
    if not accept:
        return offered[0]
    ranges = [_range(part) for part in accept.split(",")]
    qualities = {media_type: _quality(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: qualities[media_type])
    return best if qualities[best] > 0 else None


def _range(part: str) -> tuple[str, float]:
    """A media range and its quality, which is 1 where it is not said, and 0 where it is no number."""
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
    try:
        return media_range, float(quality)
    except ValueError:
        return media_range, 0.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """That of the most specific range which ``media_type`` is in."""
    kind = media_type.partition("/")[0]
    for wanted in (media_type, f"{kind}/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == wanted:
                return quality
    return 0.0
