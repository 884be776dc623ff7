"""Global object ids, as Relay has them: base64 of ``Type:uuid``."""

import base64
import binascii
from uuid import UUID

import strawberry


@strawberry.interface(description="Anything that can be looked up by its id.")
class Node:
    """Implemented by every type with a global id."""

    id: strawberry.ID = strawberry.field(description="A global id: opaque, unique over all types.")


def to_global_id(type_name: str, key: UUID) -> strawberry.ID:
    """The global id of an object."""
    return strawberry.ID(base64.urlsafe_b64encode(f"{type_name}:{key}".encode()).decode().rstrip("="))


def from_global_id(value: str) -> tuple[str, UUID] | None:
    """Type name and key of a global id, or none when it is not one."""
    try:
        decoded = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
        type_name, _, key = decoded.partition(":")
        return type_name, UUID(key)
    except (binascii.Error, ValueError):
        return None


def key_of(value: str, type_name: str) -> UUID | None:
    """The key in a global id of this type, or none when it is anything else."""
    parts = from_global_id(value)
    return parts[1] if parts is not None and parts[0] == type_name else None
