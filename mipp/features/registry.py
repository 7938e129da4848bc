"""Descriptors by name."""

from __future__ import annotations

from ..errors import DTypeError, NotFoundError, ParameterError
from .base import Descriptor
from .colour_layout import CLD
from .edge_histogram import EHD
from .fused import CLD_EHD

__all__ = ["get", "names", "register"]

_REGISTRY: dict[tuple[str, ...], Descriptor] = {}


def _key(spec: str) -> tuple[str, ...]:
    return tuple(sorted(part.strip() for part in spec.lower().split("+")))


def register(descriptor: Descriptor) -> Descriptor:
    """Make a descriptor known under its name and return it.

    Raises
    ------
    ParameterError
        A name that is empty, not canonical (lower case, no blanks) or taken, in whatever order of its parts.
    """
    name = descriptor.name
    if "" in _key(name) or name != name.lower() or "".join(name.split()) != name:
        raise ParameterError(f"{name!r} is no descriptor name: lower case without blanks, parts joined by +")
    if _key(name) in _REGISTRY:
        raise ParameterError(f"descriptor {name} is registered already")
    _REGISTRY[_key(name)] = descriptor
    return descriptor


def get(spec: str) -> Descriptor:
    """The descriptor of a spec such as ``"ehd"`` or ``"CLD+EHD"``: any case, parts in any order.

    Raises
    ------
    DTypeError, NotFoundError
        Not a string; no such descriptor.
    """
    if not isinstance(spec, str):
        raise DTypeError("a descriptor spec is a string")
    found = _REGISTRY.get(_key(spec))
    if found is None:
        raise NotFoundError(f"no descriptor {spec!r}; there are {', '.join(names())}")
    return found


def names() -> list[str]:
    """Names of all descriptors, in order of registration."""
    return [descriptor.name for descriptor in _REGISTRY.values()]


for _descriptor in (CLD, EHD, CLD_EHD):
    register(_descriptor)
