"""Certificates for brokers on this machine; elsewhere an authority of your own issues them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme

from infra.private_file import write_private

_HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, and the authority that has signed it; all in PEM."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> Self:
        """Have one signed by an authority that signs nothing else; one that is there stays."""
        made = cls(folder / f"{name}-ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        # Written last.
        if not made.key.exists():
            authority = trustme.CA(organization_name=f"Darkroom on this machine, {name}")
            issued = authority.issue_cert(*_HOSTS)
            folder.mkdir(parents=True, exist_ok=True)
            made.authority.write_bytes(authority.cert_pem.bytes())
            made.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            write_private(made.key, issued.private_key_pem.bytes().decode())
        return made
