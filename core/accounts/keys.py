"""Secrets of which the first is used and the others are still good, so that they can be changed."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

_ID_CHARACTERS: Final = 12
_ID_LABEL: Final = b"darkroom key id"


@dataclass(frozen=True, slots=True)
class Key:
    """A secret, and the name by which what was made with it tells so."""

    id: str
    secret: bytes


class Keyring:
    """Keys by their ids, which follow from the secrets: nobody has to name them."""

    def __init__(self, current: SecretStr, others: Sequence[SecretStr]) -> None:
        """Make a keyring.

        Args:
            current: what new things are made with.
            others: what things that are still good were made with, or will be once all processes know it.
        """
        keys = [_key(secret) for secret in (current, *others)]
        self.current = keys[0]
        self.oldest = keys[-1]
        self._keys = {key.id: key for key in keys}

    def get(self, key_id: str) -> Key | None:
        """The key with this id, or none when it was removed or never was."""
        return self._keys.get(key_id)


def _key(secret: SecretStr) -> Key:
    data = secret.get_secret_value().encode()
    # Tells no more of the secret than any signature made with it does.
    return Key(id=hmac.digest(data, _ID_LABEL, hashlib.sha256).hex()[:_ID_CHARACTERS], secret=data)
