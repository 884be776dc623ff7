"""Asking image registries what a tag is at present, over the HTTP API of OCI Distribution that all have."""

import hashlib
import re
from typing import Final

import httpx2

from core.errors import ServiceUnavailableError

_DEFAULT_HOST: Final = "registry-1.docker.io"
"""Where container engines look when an image names no registry."""

_DEFAULT_FOLDER: Final = "library/"
_TIMEOUT: Final = 20.0
_LARGEST_MANIFEST: Final = 4 * 2**20
_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_UNAUTHORIZED: Final = 401
_THIS_MACHINE: Final = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")


class Registry:
    """Reads public images' manifests, with the tokens that registries give to anybody.

    Args:
        default_host: the registry of images that name none.
    """

    def __init__(self, *, default_host: str = _DEFAULT_HOST) -> None:
        self._default_host = default_host
        self._client = httpx2.Client(timeout=_TIMEOUT, follow_redirects=True)

    def digest_of(self, host: str, path: str, tag: str) -> str:
        """The digest of what a tag is now: of the list of all platforms where there is one.

        Args:
            host: the registry, or empty for the default one.
            path: the repository in it, such as ``nats``.
            tag: a tag of the repository.

        Raises:
            ServiceUnavailableError: the registry does not answer, does not know the image, or its answer does
                not have the digest that it claims.
        """
        if not host:
            host, path = self._default_host, path if "/" in path else f"{_DEFAULT_FOLDER}{path}"
        scheme = "http" if _THIS_MACHINE.fullmatch(host) else "https"
        url = f"{scheme}://{host}/v2/{path}/manifests/{tag}"
        try:
            answer = self._get(url, {"Accept": _MANIFESTS})
            if answer.status_code == _UNAUTHORIZED:
                token = self._token(answer.headers.get("WWW-Authenticate", ""))
                answer = self._get(url, {"Accept": _MANIFESTS, "Authorization": f"Bearer {token}"})
            answer.raise_for_status()
        except (httpx2.HTTPError, ValueError) as error:
            raise ServiceUnavailableError(f"registry {host}: {error}") from error
        if len(answer.content) > _LARGEST_MANIFEST:
            raise ServiceUnavailableError(f"registry {host}: a manifest of {len(answer.content)} bytes")
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        claimed = answer.headers.get("Docker-Content-Digest", digest)
        if claimed != digest:
            raise ServiceUnavailableError(f"registry {host}: the manifest is {digest}, not {claimed}")
        return digest

    def _get(self, url: str, headers: dict[str, str]) -> httpx2.Response:
        return self._client.get(url, headers=headers)

    def _token(self, challenge: str) -> str:
        """A token for anybody, from where the challenge says."""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if not challenge.startswith("Bearer ") or "realm" not in asked:
            raise ValueError(f"it asks for {challenge or 'a password'}")
        realm = asked.pop("realm")
        answer = self._client.get(realm, params=asked)
        answer.raise_for_status()
        body = answer.json()
        return str(body.get("token") or body["access_token"])
