"""Owners as callers name them: names, ids and owner objects become ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import NotFoundError, ParameterError
from ..rpc.names import is_id

__all__ = ["OwnerRef", "Owners", "as_id", "owner_id", "owner_refs"]

_LISTED = 20


class HasId(Protocol):
    """Anything with the 16-byte id of an owner, such as :class:`~mipp.client.owner.ImageOwner`."""

    @property
    def id(self) -> bytes: ...


#: an owner: its name, its 16-byte id, the id as 32 hex digits, or an object with that id
OwnerRef: TypeAlias = Any
#: one owner or several
Owners: TypeAlias = OwnerRef | Sequence[OwnerRef]


def owner_refs(owners: Owners | None) -> list[OwnerRef]:
    """``owners`` as a list: one owner alone, or the items of a sequence."""
    if owners is None:
        return []
    if isinstance(owners, (str, bytes, bytearray)) or hasattr(owners, "id"):
        return [owners]
    if not isinstance(owners, Iterable):
        raise ParameterError("owners are names, ids of 16 bytes, ids in hex or owner objects, not " + _kind(owners))
    return list(owners)


def as_id(owner: OwnerRef) -> bytes | None:
    """The id in ``owner``, or None when it is a name."""
    if isinstance(owner, str):
        return bytes.fromhex(owner) if is_id(owner) else None
    found = owner if isinstance(owner, (bytes, bytearray)) else getattr(owner, "id", None)
    if not isinstance(found, (bytes, bytearray)) or len(found) != 16:
        raise ParameterError(
            "an owner is a name, an id of 16 bytes, its hex text or an owner object, not " + _kind(owner)
        )
    return bytes(found)


def owner_id(owner: OwnerRef, names: Mapping[bytes, str]) -> bytes:
    """The id of one owner.

    Parameters
    ----------
    owner : str, bytes or ImageOwner
        Name, id (16 bytes or 32 hex digits), or an object with ``id``.
    names : mapping of bytes to str
        Names of the known owners by id.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    NotFoundError
        An unknown name, or one that several owners have; the text lists the known owners.
    ParameterError
        Anything else.
    """
    found = as_id(owner)
    if found is not None:
        return found
    having = [i for i, name in names.items() if name == owner]
    if len(having) == 1:
        return having[0]
    if having:
        ids = ", ".join(i.hex() for i in having)
        raise NotFoundError(f"several owners are called {owner!r}; name one by its id: {ids}")
    listed = sorted(set(names.values()))
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    raise NotFoundError(
        f"unknown owner {owner[:80]!r}, or one that grants this user nothing; known are: "
        f"{', '.join(listed[:_LISTED]) or 'none'}{more}"
    )


def _kind(value: object) -> str:
    size = f" of {len(value)} bytes" if isinstance(value, (bytes, bytearray)) else ""
    return f"{type(value).__name__}{size}"
