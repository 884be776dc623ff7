"""An object store over HTTP, on a folder: ``python -m tests.faults.object_server PORT FOLDER``.

It speaks as much of S3's dialect as our processes use, and believes every signature: what is tested with it
is the network in between. The first part of a path is a bucket, and every bucket is the folder.
"""

import os
import sys
from contextlib import suppress
from hashlib import md5
from pathlib import Path
from typing import Final
from uuid import uuid4
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

_NAMESPACE: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class ObjectServer:
    """Serves the files of a folder as objects.

    Args:
        folder: has one file for each object, and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def application(self) -> Starlette:
        """For an ASGI server."""
        return Starlette(
            routes=[
                Route("/{bucket}", self._list, methods=["GET"]),
                Route("/{bucket}", self._delete, methods=["POST"]),
                Route("/{bucket}/{key:path}", self._get, methods=["GET", "HEAD"]),
                Route("/{bucket}/{key:path}", self._put, methods=["PUT"]),
            ]
        )

    async def _put(self, request: Request) -> Response:
        path = self._folder / request.path_params["key"]
        # Beside the others, and under its name once it is whole: half a picture is none.
        half = path.with_name(f".{uuid4()}")
        digest = md5(usedforsecurity=False)
        try:
            half.parent.mkdir(parents=True, exist_ok=True)
            with half.open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
                    digest.update(chunk)
            half.rename(path)
        except ClientDisconnect:
            return Response(status_code=400)
        except OSError as error:
            return _error(507, "InsufficientStorage", str(error))
        finally:
            with suppress(OSError):
                half.unlink()
        return Response(headers={"ETag": f'"{digest.hexdigest()}"'})

    async def _get(self, request: Request) -> Response:
        path = self._folder / request.path_params["key"]
        return FileResponse(path) if path.is_file() else _error(404, "NoSuchKey", "no such object")

    async def _list(self, request: Request) -> Response:
        prefix = request.query_params.get("prefix", "")
        keys = (str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(self._folder / key).stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in sorted(keys)
            if key.startswith(prefix)
        )
        return _xml(f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>")

    async def _delete(self, request: Request) -> Response:
        asked = ET.fromstring(await request.body())  # noqa: S314 - from our own processes
        keys = [key.text or "" for key in asked.iter() if key.tag.removeprefix(_NAMESPACE) == "Key"]
        for key in keys:
            with suppress(FileNotFoundError):
                (self._folder / key).unlink()
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return _xml(f"<DeleteResult>{deleted}</DeleteResult>")


def _xml(text: str, *, status: int = 200) -> Response:
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>{text}', status, media_type="application/xml")


def _error(status: int, code: str, message: str) -> Response:
    return _xml(f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>", status=status)


def main(port: int, folder: Path) -> None:
    """Serve until told to stop."""
    uvicorn.run(
        ObjectServer(folder).application, host="127.0.0.1", port=port, access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    os.umask(0o022)
    main(int(sys.argv[1]), Path(sys.argv[2]))
