"""Signed downloads of pictures, with ranges and revalidation as RFC 9110 has them."""

import re
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse

from core import models
from core.clock import now
from core.repository import generations
from core.storage import DownloadLinks, Storage

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def _links(request: Request) -> DownloadLinks:
    links: DownloadLinks = request.app.state.services.links
    return links


router = APIRouter(tags=["downloads"])


@router.api_route("/images/{image_id}.{extension}", methods=["GET", "HEAD"], response_class=Response)
async def download(  # noqa: PLR0913, PLR0917 - one argument per part of the request
    request: Request,
    image_id: UUID,
    extension: str,
    expires: Annotated[int, Query(description="Unix time until which the link is good.")],
    signature: Annotated[str, Query(description="HMAC over picture and time.", max_length=64)],
    storage: Annotated[Storage, Depends(_storage)],
    links: Annotated[DownloadLinks, Depends(_links)],
    range_header: Annotated[str | None, Header(alias="Range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """One picture, whole or in part."""
    if not links.allows(image_id, expires=expires, signature=signature, now=now()):
        raise HTTPException(
            403, "This link is not valid or has expired. The studio and the API give a fresh one."
        )
    image = await generations.image(image_id)
    if image is None or not image.key.endswith(f".{extension}"):
        raise HTTPException(404, "There is no such picture.")
    etag = f'"{image.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # A picture never changes; it is its owner's alone.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'inline; filename="darkroom-{image_id}.{extension}"',
        "X-Content-Type-Options": "nosniff",
    }
    if if_none_match is not None and _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    # Only GET has parts, RFC 9110, section 14.2: HEAD tells of the whole.
    wanted = range_header if request.method == "GET" and if_range in (None, etag) else None
    return await _content(request, image, storage, wanted=wanted, headers=headers)


async def _content(
    request: Request, image: models.Image, storage: Storage, *, wanted: str | None, headers: dict[str, str]
) -> Response:
    size = image.byte_size
    part = parse_range(wanted, size=size) if wanted else None
    if part is not None and part.start >= part.stop:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    status = 200 if part is None else 206
    part = part or range(size)
    if status == 206:  # noqa: PLR2004 - Partial Content, as two lines above
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    headers["Content-Length"] = str(len(part))
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=image.content_type)
    body = storage.stream(image.key, start=part.start, end=part.stop)
    # The first chunk is fetched before the status goes out, so that a missing object is an error, not a cut.
    first = await anext(body)
    return StreamingResponse(
        _rest(first, body), status_code=status, headers=headers, media_type=image.content_type
    )


async def _rest(first: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in body:
        yield chunk


def parse_range(header: str, *, size: int) -> range | None:
    """The bytes that a Range header asks for.

    Args:
        header: such as ``bytes=0-99``, ``bytes=100-`` or ``bytes=-50``.
        size: length of the whole in bytes.

    Returns:
        The bytes, empty when there are none of them, or none for a header that is to be ignored (another
        unit, several parts, or malformed).
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    stop = min(int(last) + 1, size) if last else size
    if last and int(last) < int(first):
        return None
    return range(int(first), stop)


def _matches(if_none_match: str, etag: str) -> bool:
    return any(item.strip().removeprefix("W/") in (etag, "*") for item in if_none_match.split(","))
