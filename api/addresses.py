"""Whose network address a request counts for."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from starlette.requests import HTTPConnection

_IPV6_PREFIX: Final = 64
"""Bits of an address that a provider gives to one customer, who may change the others at will."""


def client_address(connection: HTTPConnection) -> str:
    """The address that limits are counted for: of IPv6 the network, of what is no address one for all.

    Behind proxies that are trusted uvicorn has already put the client's address in the place of the proxy's.
    """
    return _counted(connection.client.host if connection.client else "")


@lru_cache(maxsize=4096)
def _counted(host: str) -> str:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)
